"""Chunks and completions whose known fields have types that OpenAI's have not, brought into OpenAI's shape.

Called only for what the typed decoder has refused. A value is converted where its meaning is plain (a list of
content parts, one tool call without its list, arguments as an object), else left out; unknown fields keep
their bytes.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw

from server.openai_wire.chunks import MAX_INDEX, RawObject, fields_of, raw_of, value_of

_THOUGHTS = ("thinking", "reasoning")


def reshaped(data: bytes) -> bytes | None:
    """The same object with known fields as the structs of ``chunks`` take them; None if it is no object."""
    try:
        fields = fields_of(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if _kind(fields.get("choices")) not in (b"[", b"{", b"n"):
        fields.pop("choices", None)
    elif _kind(fields["choices"]) != b"n":
        fields["choices"] = raw_of([_choice(one) for one in _objects(fields["choices"])])
    _drop_unless(fields, "usage", b"{")
    return msgspec.json.encode(fields)


def _choice(fields: RawObject) -> RawObject:
    _reshape_index(fields)
    for key in ("delta", "message"):
        _drop_unless(fields, key, b"{")
        if _kind(fields.get(key)) == b"{":
            fields[key] = raw_of(_said(fields_of(fields[key])))
    if _kind(fields.get("finish_reason")) not in (b'"', b"n", b""):
        fields["finish_reason"] = Raw(b"null")  # each choice tells whether it ends
    _drop_unless(fields, "usage", b"{")
    return fields


def _said(fields: RawObject) -> RawObject:
    if _kind(fields.get("content")) in (b"[", b"{"):
        _reshape_parts(fields)
    for key in ("role", "content", "reasoning_content", "reasoning", "refusal"):
        _drop_unless(fields, key, b'"')
    if "tool_calls" in fields:
        calls = [_call(one) for one in _objects(fields["tool_calls"])]
        fields["tool_calls"] = raw_of(calls)
    return fields


def _reshape_parts(fields: RawObject) -> None:
    """Content parts → text and reasoning; parts of other kinds are kept under ``content_parts``."""
    parts = value_of(fields["content"])
    text, thought, others = [], [], []
    for part in parts if isinstance(parts, list) else [parts]:
        if isinstance(part, dict) and part.get("type") in _THOUGHTS:
            thought.append(_text_in(part))
        elif said := _text_in(part):
            text.append(said)
        elif isinstance(part, dict) and part.get("type") != "text":
            others.append(part)
    fields["content"] = raw_of("".join(text) if text or not any(thought) else None)
    if any(thought) and _kind(fields.get("reasoning_content")) != b'"':
        fields["reasoning_content"] = raw_of("".join(thought))
    if others:
        fields["content_parts"] = raw_of(others)


def _text_in(part: object) -> str:
    """The text of one part: itself, its ``text``, or that of the parts within it."""
    if isinstance(part, str):
        return part
    if isinstance(part, list):
        return "".join(map(_text_in, part))
    if isinstance(part, dict):
        return next((_text_in(part[key]) for key in ("text", *_THOUGHTS) if part.get(key)), "")
    return ""


def _call(fields: RawObject) -> RawObject:
    _reshape_index(fields)
    if _kind(fields.get("id")) == b"0":
        fields["id"] = raw_of(bytes(fields["id"]).decode())
    _drop_unless(fields, "id", b'"')
    _drop_unless(fields, "type", b'"')
    _drop_unless(fields, "function", b"{")
    if _kind(fields.get("function")) == b"{":
        function = fields_of(fields["function"])
        _drop_unless(function, "name", b'"')
        if _kind(function.get("arguments")) not in (b'"', b"n", b""):
            function["arguments"] = raw_of(bytes(function["arguments"]).decode(errors="replace"))
        fields["function"] = raw_of(function)
    return fields


def _reshape_index(fields: RawObject) -> None:
    """An index as a string or a float is read; another oddity is as good as none."""
    value: Any = value_of(fields.get("index", Raw(b"null")))
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 6:
        value = int(value)
    fits = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= MAX_INDEX
    if fits and value == int(value):
        fields["index"] = raw_of(int(value))
    else:
        fields.pop("index", None)


def _objects(data: Raw) -> list[RawObject]:
    """The objects in a list, or an object that stands without its list."""
    if _kind(data) == b"{":
        return [fields_of(data)]
    if _kind(data) != b"[":
        return []
    return [fields_of(one) for one in msgspec.json.decode(data, type=list[Raw]) if _kind(one) == b"{"]


def _kind(data: Raw | None) -> bytes:
    """The first byte of a value, with ``0`` for all numbers; b"" if it is absent."""
    first = b"" if data is None else bytes(data)[:1]
    return b"0" if first and first in b"-0123456789" else first


def _drop_unless(fields: RawObject, key: str, kind: bytes) -> None:
    if _kind(fields.get(key)) not in (kind, b"n", b""):
        del fields[key]
