"""The shape of OpenAI's chunks and completions as typed structs, and edits of them that lose nothing.

The structs name only what has a meaning here; every other field stays in the bytes. An edit decodes a level
into ``dict[str, Raw]``, so values that are not touched keep their bytes: big integers, odd spacing inside
them, unknown fields.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, TypeAlias

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

MAX_INDEX = 1023
"""Of a choice or a tool call; what is above is nonsense, and would cost memory."""
MAX_TOKENS = 2**53 - 1
"""No figure of usage is above it: every JSON reader can take it."""
Index: TypeAlias = Annotated[int, Meta(ge=0, le=MAX_INDEX)]


def figure(value: object) -> int | None:
    """A number of tokens; None if it is not one."""
    if type(value) is int:
        return value if 0 <= value <= MAX_TOKENS else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if 0 <= value <= MAX_TOKENS else None


class Function(msgspec.Struct, gc=False):
    """The function of a tool call; arguments are a piece of JSON text, never parsed."""

    name: str | None = None
    arguments: str | None = None


class ToolCall(msgspec.Struct, gc=False):
    """One tool call, or a piece of one."""

    index: Index | None = None
    id: str | None = None
    type: str | None = None
    function: Function | None = None


class Said(msgspec.Struct, gc=False):
    """A ``delta`` or a ``message``."""

    role: str | None = None
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: list[ToolCall] | None = None


class UsageFields(msgspec.Struct, gc=False):
    """The three figures of ``usage``, whatever they are: ``figure`` reads one."""

    prompt_tokens: Any = None
    completion_tokens: Any = None
    total_tokens: Any = None


class Choice(msgspec.Struct, gc=False):
    """One choice of a chunk (``delta``) or of a completion (``message``)."""

    index: Index | None = None
    delta: Said | None = None
    message: Said | None = None
    # Absent is told from null, and is an empty string here: OpenAI's chunks always have the field.
    finish_reason: str | None = ""
    usage: UsageFields | UnsetType | None = UNSET


class Chunk(msgspec.Struct, gc=False):
    """A chunk or a completion."""

    choices: list[Choice] | UnsetType | None = UNSET
    usage: UsageFields | UnsetType | None = UNSET
    error: Raw | UnsetType = UNSET


class Head(msgspec.Struct, gc=False):
    """What makes chunks belong together, whatever it is: an odd ``created`` must not cost the ``id``."""

    id: Any = None
    object: Any = None
    created: Any = None
    model: Any = None

    def own_id(self) -> str | None:
        """The upstream's id, if it gave one."""
        return self.id if isinstance(self.id, str) and self.id else None

    def own_created(self) -> int | None:
        """The upstream's time in Unix seconds, if it gave one."""
        return figure(self.created) or None

    def is_whole(self, kind: str) -> bool:
        """Is everything there, and as it should be, in an object of this ``kind``?"""
        return (
            self.object == kind
            and self.own_id() is not None
            and type(self.created) is int
            and self.own_created() is not None
            and isinstance(self.model, str)
        )


class PlainAnswer(Chunk, gc=False):
    """A completion with its head, so that its bytes are read once."""

    id: Any = None
    object: Any = None
    created: Any = None
    model: Any = None

    def whole_name(self) -> str | None:
        """The model's name, if the head is as ``Head.is_whole`` wants it."""
        whole = (
            self.object == "chat.completion"
            and type(self.id) is str
            and self.id
            and type(self.created) is int
            and 0 < self.created <= MAX_TOKENS
            and type(self.model) is str
        )
        return self.model if whole else None


RawObject: TypeAlias = dict[str, Raw]

decode_plain = msgspec.json.Decoder(PlainAnswer).decode
decode_chunk = msgspec.json.Decoder(Chunk).decode
decode_said = msgspec.json.Decoder(Said).decode
decode_head = msgspec.json.Decoder(Head).decode
_decode_object = msgspec.json.Decoder(RawObject).decode
_decode_list = msgspec.json.Decoder(list[RawObject]).decode
_encode = msgspec.json.encode


def raw_of(value: Any) -> Raw:
    """A value as a piece of JSON."""
    return Raw(_encode(value))


def edit_object(data: bytes | Raw, change: Callable[[RawObject], None]) -> bytes:
    """A JSON object with ``change`` carried out on its top level; values that it leaves keep their bytes."""
    fields = _decode_object(data)
    change(fields)
    return _encode(fields)


def with_choice(data: bytes | Raw, choice: RawObject) -> bytes:
    """A chunk with this as its only choice."""
    return edit_object(data, lambda fields: fields.update(choices=raw_of([choice])))


def objects(data: bytes | Raw) -> list[RawObject]:
    """A JSON list of objects."""
    return _decode_list(data)


def fields_of(data: bytes | Raw) -> RawObject:
    """The top level of a JSON object."""
    return _decode_object(data)


def value_of(data: bytes | Raw) -> Any:
    """Any JSON value; None if it is none."""
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
