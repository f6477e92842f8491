"""The shape of OpenAI's chunks and completions as typed structs, and edits of them that lose nothing.

The structs name only what has a meaning here; every other field stays in the bytes. An edit decodes a level
into ``dict[str, Raw]``, so values that are not touched keep their bytes: big integers, odd spacing inside
them, unknown fields.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import msgspec
from msgspec import UNSET, Raw, UnsetType


class Function(msgspec.Struct, gc=False):
    """The function of a tool call; arguments are a piece of JSON text, never parsed."""

    name: str | None = None
    arguments: str | None = None


class ToolCall(msgspec.Struct, gc=False):
    """One tool call, or a piece of one."""

    index: int | None = None
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
    """The three figures of ``usage``."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None


class Choice(msgspec.Struct, gc=False):
    """One choice of a chunk (``delta``) or of a completion (``message``)."""

    index: int = 0
    delta: Said | None = None
    message: Said | None = None
    finish_reason: str | None = None
    usage: UsageFields | UnsetType | None = UNSET


class Chunk(msgspec.Struct, gc=False):
    """A chunk or a completion."""

    choices: list[Choice] | UnsetType | None = UNSET
    usage: UsageFields | UnsetType | None = UNSET
    error: Raw | UnsetType = UNSET


class Head(msgspec.Struct, gc=False):
    """What makes chunks belong together."""

    id: str | None = None
    object: str | None = None
    created: int | None = None
    model: str | None = None


RawObject: TypeAlias = dict[str, Raw]

decode_chunk = msgspec.json.Decoder(Chunk).decode
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


def edit_choices(data: bytes, change: Callable[[RawObject], RawObject | None]) -> bytes:
    """A chunk with each choice changed; None takes a choice out."""

    def change_all(fields: RawObject) -> None:
        choices = [change(choice) for choice in _decode_list(fields["choices"])]
        fields["choices"] = raw_of([choice for choice in choices if choice is not None])

    return edit_object(data, change_all)


def objects(data: bytes | Raw) -> list[RawObject]:
    """A JSON list of objects."""
    return _decode_list(data)


def fields_of(data: bytes | Raw) -> RawObject:
    """The top level of a JSON object."""
    return _decode_object(data)


def lenient_chunk(data: bytes) -> Chunk | None:
    """A chunk whose known fields have types that we do not know: what fits is taken, the rest ignored.

    None if the data is not a JSON object.
    """
    try:
        value = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    chunk = Chunk()
    if value.get("error"):
        chunk.error = raw_of(value["error"])
    if isinstance(value.get("choices"), list):
        chunk.choices = [_lenient_choice(choice) for choice in value["choices"] if isinstance(choice, dict)]
    if "usage" in value:
        chunk.usage = _lenient(value["usage"], UsageFields)
    return chunk


def _lenient_choice(value: dict[str, Any]) -> Choice:
    index, reason = value.get("index"), value.get("finish_reason")
    return Choice(
        index=index if isinstance(index, int) and not isinstance(index, bool) else 0,
        delta=_lenient(value.get("delta"), Said),
        message=_lenient(value.get("message"), Said),
        finish_reason=reason if isinstance(reason, str) else None,
    )


def _lenient(value: object, kind: type[Any]) -> Any:
    """The fields of ``value`` that fit ``kind``, one by one."""
    if not isinstance(value, dict):
        return None
    taken = kind()
    for name in kind.__struct_fields__:
        if name in value:
            try:
                setattr(taken, name, getattr(msgspec.convert({name: value[name]}, kind), name))
            except msgspec.ValidationError:
                continue  # not ours to read; the bytes still carry it
    return taken
