"""The messages of ``antiphon.events.v1``: what a watcher may say, and what it is told. No I/O."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, TypeAlias

import msgspec
from msgspec import Meta

SUBPROTOCOL = "antiphon.events.v1"
BEARER = "base64url.bearer.authorization.antiphon."
"""The prefix of the subprotocol that carries a key, for browsers' scripts, which cannot set headers."""

MAX_MESSAGE = 64 * 1024

Id: TypeAlias = Annotated[str, Meta(min_length=1, max_length=128)]
Name: TypeAlias = Annotated[str, Meta(max_length=256)]
Names: TypeAlias = Annotated[tuple[Name, ...], Meta(max_length=64)]
Number: TypeAlias = Annotated[int, Meta(ge=0, le=2**53)]


class Init(msgspec.Struct, frozen=True, tag="connection_init"):
    token: str | None = None


class Subscribe(msgspec.Struct, frozen=True, tag="subscribe"):
    """``cursors``: lane (or ``lane:kind``) → code points that the client has; in a topic ``run_…/lane``.

    ``wait``: for a run that has not begun yet; it is then told from its first event.
    """

    id: Id
    topic: Name
    types: Names | None = None
    include: Names | None = None
    starting_after: Number | None = None
    cursors: Annotated[dict[Name, Number], Meta(max_length=256)] | None = None
    offset: Name | None = None
    epoch: Name | None = None
    wait: bool = False


class Control(msgspec.Struct, frozen=True, tag="control"):
    id: Id
    verb: Name
    run_id: Name
    member: Name | None = None


class Complete(msgspec.Struct, frozen=True, tag="complete"):
    id: Id


class Ping(msgspec.Struct, frozen=True, tag="ping"):
    pass


class Pong(msgspec.Struct, frozen=True, tag="pong"):
    pass


class Refresh(msgspec.Struct, frozen=True, tag="refresh"):
    token: str


Message: TypeAlias = Init | Subscribe | Control | Complete | Ping | Pong | Refresh

_decode: Callable[[str], Message] = msgspec.json.Decoder(Message).decode
_encode = msgspec.json.Encoder().encode


class Malformed(ValueError):
    """A message that is none of ours; the text says why, in words fit for a close frame."""


def decode_message(text: str | bytes) -> Message:
    """One message of a watcher. Unknown fields are ignored. Raises ``Malformed``."""
    if isinstance(text, bytes):
        raise Malformed("messages are text")
    try:
        return _decode(text)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise Malformed(str(error)) from error


def encode_message(kind: str, id: str | None = None, **fields: Any) -> bytes:
    """One message to a watcher."""
    head = {"type": kind} if id is None else {"type": kind, "id": id}
    return _encode({**head, **fields})


class Next:
    """Builds the ``next`` messages of one subscription around events that are JSON already."""

    __slots__ = ("_head",)

    def __init__(self, id: str) -> None:
        self._head = b'{"type":"next","id":' + _encode(id)

    def build(self, event: bytes, offset: int | None = None) -> bytes:
        """``offset`` is the place behind the event in a topic."""
        if offset is None:
            return self._head + b',"event":' + event + b"}"
        return self._head + b',"offset":"%d","event":' % offset + event + b"}"
