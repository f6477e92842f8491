"""What a model costs on a channel, as frozen data."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta

From0: TypeAlias = Annotated[float, Meta(ge=0)]


class Price(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Money per million tokens, in whatever one currency all prices are given in.

    ``cached_input`` None: as ``input``; ``reasoning`` None: as ``output``, of which it is a part.
    """

    input: From0
    output: From0
    cached_input: From0 | None = None
    reasoning: From0 | None = None
