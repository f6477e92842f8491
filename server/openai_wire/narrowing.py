"""A chat that holds fields of Anthropic's dialect → one that an upstream of OpenAI's takes.

Servers of OpenAI's dialect refuse what they do not know, or worse, take it for something else. Marks for a
cache, signed thoughts and the name of a service's tier mean nothing to them and are taken out; what is missed
is told.
"""

from __future__ import annotations

import msgspec
from msgspec import Raw

from server.chat import ChatRequest

_MARKS = (b'"cache_control"', b'"thinking_blocks"', b'"is_error"', b'"citations"')
_TIERS_THERE = (b'"standard_only"',)
_LEFT_OUT = ("thinking", "container", "metadata")
_decode = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_list = msgspec.json.Decoder(list[Raw]).decode
_encode = msgspec.json.encode


def narrowed(chat: ChatRequest, *, keep: tuple[str, ...] = ()) -> tuple[ChatRequest, tuple[str, ...]]:
    """The request without those fields, and in ASCII words which of them will be missed.

    ``keep`` names top-level fields that the upstream knows after all.
    """
    changes: dict[str, bytes | None] = {}
    gone = [key for key in _LEFT_OUT if key not in keep]
    warnings = [f"{key} was left out" for key in gone if chat.has(key)]
    changes |= {key: None for key in (*gone, "output_config", "cache_control") if key in chat.json}
    effort = _effort(chat)
    if effort is not None and not chat.has("reasoning_effort"):
        changes["reasoning_effort"] = effort
    if chat.json.raw("service_tier") in _TIERS_THERE:
        changes["service_tier"] = None
        warnings.append("service_tier was left out")
    if _marked(chat.json.raw("messages")):
        changes["messages"] = b"[" + b",".join(map(_turn, chat.raw_messages())) + b"]"
    if _marked(tools := chat.json.raw("tools")):
        changes["tools"] = _encode([_without_mark(tool) for tool in _decode_list(tools or b"[]")])
    return chat.edit(changes), tuple(warnings)


def _effort(chat: ChatRequest) -> bytes | None:
    """How much thought is asked for, in the same words as OpenAI's."""
    config = chat.json.raw("output_config")
    if config is None or not config.startswith(b"{"):
        return None
    effort = bytes(_decode(config).get("effort", Raw(b"null")))
    return effort if effort.startswith(b'"') else None


def _marked(data: bytes | None) -> bool:
    return data is not None and any(mark in data for mark in _MARKS)


def _turn(data: bytes) -> bytes:
    """One turn without marks; a result that is an error says so in its text."""
    if not _marked(data):
        return data
    fields = _decode(data)
    fields.pop("thinking_blocks", None)
    failed = bytes(fields.pop("is_error", Raw(b""))) == b"true"
    content = fields.get("content", Raw(b"null"))
    if bytes(content).startswith(b"["):
        fields["content"] = Raw(_encode([_without_mark(part) for part in _decode_list(content)]))
    elif failed and bytes(content).startswith(b'"'):
        text = msgspec.json.decode(content, type=str)
        if "error" not in text[:100].lower():
            fields["content"] = Raw(_encode(f"Error: {text}"))
    return _encode(fields)


def _without_mark(data: Raw) -> Raw:
    """A part or a tool without its mark for a cache, and without Anthropic's sources of a text."""
    if b'"cache_control"' not in bytes(data) and b'"citations"' not in bytes(data):
        return data
    fields = _decode(data)
    fields.pop("cache_control", None)
    fields.pop("citations", None)
    return Raw(_encode(fields))
