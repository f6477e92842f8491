"""Images that are fetched, and files that pass through, as frozen data. Units stand in the names."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta

Above0: TypeAlias = Annotated[float, Meta(gt=0)]
Whole0: TypeAlias = Annotated[int, Meta(ge=0)]
Whole1: TypeAlias = Annotated[int, Meta(ge=1)]


class _Frozen(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of these settings: immutable; a key that is not a field is refused."""


class Images(_Frozen, frozen=True):
    """Images that are fetched, or made to fit, for upstreams which take only bytes of some kinds."""

    allow_hosts: tuple[str, ...] = ()  # names or addresses that may be private
    max_bytes: Annotated[int, Meta(ge=1, le=100_000_000)] = 20_000_000
    # Decoding takes up to twenty bytes each, in two threads: this is a photograph of 16 megapixels, or an A4
    # page scanned at 400 dpi, and some 300 MB.
    max_pixels: Annotated[int, Meta(ge=1, le=50_000_000)] = 16_000_000
    total_s: Annotated[float, Meta(gt=0, le=300)] = 10
    max_redirects: Annotated[int, Meta(ge=0, le=20)] = 3
    at_once: Annotated[int, Meta(ge=1, le=1000)] = 16


class Uploads(_Frozen, frozen=True):
    """Forms with files on their way to an upstream, which are kept in temporary files, not in memory."""

    max_bytes: Whole1 = 256 * 1024 * 1024  # of one form
    all_bytes: Whole1 = 2 * 1024 * 1024 * 1024  # of all that are under way
    total_s: Above0 = 600  # to send one
    dir: str | None = None  # None: TMPDIR of the environment, else /var/tmp
