"""The envelope around an event's data, and its JSON both ways. No I/O, no clock."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
from msgspec import UNSET, UnsetType

from server.events.data import DATA_TYPES
from server.events.parts import Data, MemberRef, StageRef

VERSION = 1


class Event(msgspec.Struct, gc=False):
    """One event of run ``run_id``. ``time`` is in Unix seconds, ``elapsed_ms`` since the run's acceptance.

    To be treated as frozen: the one thing that changes is its JSON, kept once made.
    """

    sequence_number: int
    time: float
    elapsed_ms: int
    run_id: str
    data: Data
    stage: StageRef | None = None
    member: MemberRef | None = None
    conversation_id: str | None = None
    json: bytes | None = None

    @property
    def type(self) -> str:
        return self.data.type

    @property
    def volatile(self) -> bool:
        return self.data.volatile


class _Wire(msgspec.Struct, gc=False):
    v: int
    type: str
    volatile: bool | UnsetType
    sequence_number: int
    time: str
    elapsed_ms: int
    run_id: str
    conversation_id: str | UnsetType
    stage: StageRef | UnsetType
    member: MemberRef | UnsetType
    data: Data


class _WireIn(msgspec.Struct, gc=False):
    type: str
    sequence_number: int
    time: str
    elapsed_ms: int
    run_id: str
    data: msgspec.Raw
    stage: StageRef | None = None
    member: MemberRef | None = None
    conversation_id: str | None = None


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_WireIn).decode


def timestamp(time: float) -> str:
    """Unix seconds as RFC 3339 in UTC, with milliseconds."""
    return datetime.fromtimestamp(time, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def encode(event: Event, opened: frozenset[str] = frozenset()) -> bytes:
    """The event's JSON object, on one line. Fields behind a gate stand in it only if it is in ``opened``.

    The form without gated fields, which nearly all get, is made once and kept.
    """
    data = event.data
    if data.gated:
        shut = {
            name: UNSET
            for name, gate in data.gated.items()
            if gate not in opened and getattr(data, name) is not UNSET
        }
        if shut:
            data = msgspec.structs.replace(data, **shut)
        elif opened.intersection(data.gated.values()):
            return _build(event, data)
    if event.json is None:
        event.json = _build(event, data)
    return event.json


def _build(event: Event, data: Data) -> bytes:
    return _encode(
        _Wire(
            VERSION,
            data.type,
            True if data.volatile else UNSET,
            event.sequence_number,
            timestamp(event.time),
            event.elapsed_ms,
            event.run_id,
            event.conversation_id if event.conversation_id is not None else UNSET,
            event.stage if event.stage is not None else UNSET,
            event.member if event.member is not None else UNSET,
            data,
        )
    )


def decode(data: bytes | msgspec.Raw) -> Event | None:
    """An event's JSON as an ``Event``; None for a type that this version has no word for.

    Unknown fields are ignored. Raises ValueError for what is no event at all.
    """
    try:
        wire = _decode(data)
        kind = DATA_TYPES.get(wire.type)
        if kind is None:
            return None
        return Event(
            wire.sequence_number,
            datetime.fromisoformat(wire.time).timestamp(),
            wire.elapsed_ms,
            wire.run_id,
            msgspec.json.decode(wire.data, type=kind),
            wire.stage,
            wire.member,
            wire.conversation_id,
        )
    except msgspec.MsgspecError as error:
        raise ValueError(f"not an event: {error}") from error
