"""The names of what may be asked of a channel."""

from __future__ import annotations

from typing import Literal, TypeAlias

SurfaceName: TypeAlias = Literal[
    "chat",
    "embeddings",
    "moderations",
    "speech",
    "transcriptions",
    "translations",
    "images",
    "rerank",
]
