"""What a channel of kind ``anthropic`` says of its own."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta


class AnthropicModel(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a model takes where its name does not tell it right; None: as the name tells."""

    thinking: Literal["adaptive", "budget", "no"] | None = None
    sampling: bool | None = None  # does it take temperature, top_p and top_k?
    max_tokens: Annotated[int, Meta(ge=1)] | None = None  # of requests that name no limit


class Anthropic(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How the service is spoken to. ``models`` is by the service's names."""

    auth: Literal["x-api-key", "bearer"] = "x-api-key"
    version: str = "2023-06-01"
    beta: tuple[str, ...] = ()
    pass_beta: bool = True  # are what clients name in anthropic-beta sent on beside ``beta``?
    models: dict[str, AnthropicModel] = {}
