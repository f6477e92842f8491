"""What a channel of kind ``gemini`` says of its own."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

Category: TypeAlias = Literal["HARASSMENT", "HATE_SPEECH", "SEXUALLY_EXPLICIT", "DANGEROUS_CONTENT"]
Threshold: TypeAlias = Literal[
    "OFF", "BLOCK_NONE", "BLOCK_ONLY_HIGH", "BLOCK_MEDIUM_AND_ABOVE", "BLOCK_LOW_AND_ABOVE"
]


class GeminiModel(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a model takes where its name does not tell it right; None: as the name tells."""

    thinking: Literal["level", "budget", "no"] | None = None
    schema: Literal["json", "openapi"] | None = None
    signed: bool | None = None  # must the thought signatures of tool calls come back?
    instructed: bool | None = None  # does it take a system instruction?


class Gemini(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How the service is spoken to. ``models`` is by the service's names."""

    version: str = "v1beta"
    safety: dict[Category, Threshold] = {}
    models: dict[str, GeminiModel] = {}
