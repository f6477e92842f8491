"""What a channel of kind ``azure`` says of its own."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta


class Azure(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How a resource is spoken to. With ``auth: bearer`` the token is ``api_key``, or of a file or command.

    ``token_every_s``: so long one of a file or command is used before it is had anew.
    """

    api_version: str | None = None  # None: the v1 route, which needs none
    auth: Literal["api-key", "bearer"] = "api-key"
    token_file: str | None = None
    token_command: tuple[str, ...] = ()
    token_every_s: Annotated[float, Meta(gt=0)] = 1800
