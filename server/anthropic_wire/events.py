"""What the service's stream and its plain message are made of, as far as it is read."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw

from server.anthropic_wire.errors import Fault


class Piece(msgspec.Struct):
    """The ``delta`` of a content_block_delta or of a message_delta."""

    type: str = ""
    text: str = ""
    thinking: str = ""
    signature: str = ""
    partial_json: str = ""
    citation: dict[str, Any] | None = None
    stop_reason: str | None = None
    stop_sequence: str | None = None
    stop_details: dict[str, Any] | None = None
    container: dict[str, Any] | None = None


class Block(msgspec.Struct):
    """One block of content, at its start or whole."""

    type: str
    text: str = ""
    thinking: str = ""
    signature: str = ""
    id: str = ""
    name: str = ""
    input: Raw = Raw()
    citations: list[dict[str, Any]] | None = None


class Message(msgspec.Struct):
    """A message: whole, or as a stream begins it. The blocks are kept as they came."""

    content: list[Raw] = []
    stop_reason: str | None = None
    stop_sequence: str | None = None
    stop_details: dict[str, Any] | None = None
    container: dict[str, Any] | None = None
    context_management: dict[str, Any] | None = None
    usage: dict[str, Any] | None = None


class Event(msgspec.Struct):
    """One event of a stream. ``content_block`` is kept as it came, for blocks that are only passed on."""

    type: str
    index: int = 0
    delta: Piece | None = None
    content_block: Raw = Raw()
    message: Message | None = None
    usage: dict[str, Any] | None = None
    context_management: dict[str, Any] | None = None
    error: Fault | None = None


class Kind(msgspec.Struct):
    """What something is, when nothing else of it could be read."""

    type: str = ""


class Whole(Message):
    """The body of a plain answer: a message, or an error."""

    type: str = ""
    error: Fault | None = None


decode_event = msgspec.json.Decoder(Event).decode
decode_block = msgspec.json.Decoder(Block).decode
decode_whole = msgspec.json.Decoder(Whole).decode
decode_kind = msgspec.json.Decoder(Kind).decode
