"""What a channel of kind ``ollama`` says of its own."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta


class OllamaModel(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a model takes where its name does not tell it right; None: as the name tells."""

    thinking: Literal["level", "switch", "no"] | None = None
    num_ctx: Annotated[int, Meta(ge=1)] | None = None  # tokens


class Ollama(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How the server is spoken to. ``models`` is by its names.

    ``pull``: a model that the server does not have is pulled when it is first asked for. ``options`` go with
    each request, below those that the request has itself. ``keep_alive`` is a time such as ``10m``, or
    seconds; -1: for ever.
    """

    num_ctx: Annotated[int, Meta(ge=1)] | None = None  # tokens
    keep_alive: str | int | None = None
    pull: bool = False
    options: dict[str, Any] = {}
    models: dict[str, OllamaModel] = {}
