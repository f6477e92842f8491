"""What is kept of runs, and how they are watched and logged, as frozen data. Units stand in the names."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta

Above0: TypeAlias = Annotated[float, Meta(gt=0)]
From0: TypeAlias = Annotated[float, Meta(ge=0)]
Whole0: TypeAlias = Annotated[int, Meta(ge=0)]
Whole1: TypeAlias = Annotated[int, Meta(ge=1)]


class _Frozen(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of these settings: immutable; a key that is not a field is refused."""


class Runs(_Frozen, frozen=True):
    """How long and how much of ended runs is kept in memory, and whether they are recorded."""

    keep_s: From0 = 600
    max_events: Whole1 = 2048
    max_runs: Whole1 = 1000
    max_background: Whole0 = 16  # of one key, under way
    max_topic_events: Whole1 = 10_000
    keep_text: bool = False
    record_to: str = ""  # a folder for recordings of combinations' runs; empty: none are made
    max_recordings: Whole1 = 1000  # in that folder


class Responses(_Frozen, frozen=True):
    """How long and how much of answered responses is kept in memory, for clients to go on from."""

    keep_s: From0 = 86_400
    max_bytes: Whole0 = 64 * 1024 * 1024


class Events(_Frozen, frozen=True):
    """The status channel."""

    origins: tuple[str, ...] = ()
    max_connections: Whole1 = 100  # for each key
    max_subscriptions: Whole1 = 128
    outbox_events: Whole1 = 1024
    outbox_bytes: Whole1 = 1024 * 1024
    ping_s: Above0 = 20
    idle_ping_s: Above0 = 25
    pong_timeout_s: Above0 = 10
    init_timeout_s: Above0 = 10
    expect_s: Above0 = 30  # so long before it begins a run may be subscribed to


class Logging(_Frozen, frozen=True):
    """What is written to stderr."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["text", "json"] = "text"
    access: bool = True
