"""A chat that holds fields of Anthropic's dialect → one that an upstream of OpenAI's takes.

Servers of OpenAI's dialect refuse what they do not know, or worse, take it for something else. Marks for a
cache, signed thoughts, blocks and the name of a service's tier mean nothing to them and are taken out, and
what a tool's result shows is put behind it. All of it is told.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw

from server.chat import ChatRequest
from server.foreign import FIELDS, OWN_EXTRA, OWN_PART, plain_key, shortened, unsupported, wrong

# None of them in the bytes: there is nothing to do.
_OF_CALLS = (b'"cache_control"', b'"extra_content"')
_MARKS = (b'"thinking_blocks"', b'"is_error"', b'"citations"', b'"anthropic_block"', *_OF_CALLS)
_SHOWN = (b'"image_url"', b'"file"', b'"input_audio"')
_TIERS_THERE = (b'"standard_only"',)
_LEFT_OUT = {
    "thinking": "thinking",
    "container": "container",
    "metadata": "metadata",
    "cache_control": "cache_control",
    "anthropic_beta": "the header anthropic-beta",
}
# Of the fields that have no name here: without it, the answer is not the one that was asked for.
_MISSED = ("mcp_servers",)
_BLOCKS = {"document": "documents", "search_result": "search results"}
MOVED = "images and files in results of tools were put behind them"
_OWN_TYPE = msgspec.json.encode(OWN_PART)
_TOOLS_THERE = (b'"function"', b'"custom"')
_decode = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_list = msgspec.json.Decoder(list[Raw]).decode
_encode = msgspec.json.encode


def narrowed(chat: ChatRequest, *, keep: tuple[str, ...] = ()) -> tuple[ChatRequest, tuple[str, ...]]:
    """The request without those fields, and in ASCII words which of them will be missed.

    ``keep`` names top-level fields that the upstream knows after all. Raises ``InvalidRequest`` for what
    would be missed too much: the service's own tools and servers, and files that only it can read.
    """
    changes: dict[str, bytes | None] = {}
    told: dict[str, None] = {}
    for key, name in _LEFT_OUT.items():
        if key in chat.json and key not in keep:
            changes[key] = None
            if chat.has(key):
                told[f"{name} was left out"] = None
    _narrow_output(chat, changes, told)
    if FIELDS in chat.json:
        changes[FIELDS] = None
        _refuse_missed(others := _decode(chat.json.raw(FIELDS) or b""))
        told.update(dict.fromkeys(f"{plain_key(key)} was left out" for key in others))
    if chat.json.raw("service_tier") in _TIERS_THERE:
        changes["service_tier"] = None
        told["service_tier was left out"] = None
    if _has(chat.json.raw("messages"), _MARKS):
        changes["messages"] = b"[" + b",".join(_turns(chat, told)) + b"]"
    if (tools := chat.json.raw("tools")) is not None and tools != b"null":
        changes["tools"] = _encode([_tool(tool, at, told) for at, tool in enumerate(_decode_list(tools))])
    made_chat, moved = results_apart(chat.edit(changes))
    return made_chat, shortened([*told, *moved])


def results_apart(chat: ChatRequest) -> tuple[ChatRequest, tuple[str, ...]]:
    """The request with what results of tools show put into the user's turn behind them; what was done."""
    if not _has(chat.json.raw("messages"), _SHOWN):
        return chat, ()
    turns: list[bytes] = []
    shown: list[Raw] = []
    moved = False
    for data in chat.raw_messages():
        fields = _decode(data)
        role, content = bytes(fields.get("role", b"")), bytes(fields.get("content", b""))
        if role == b'"tool"':
            parts = _decode_list(content) if content.startswith(b"[") else []
            texts = [part for part in parts if _is_text(part)]
            if seen := [part for part in parts if not _is_text(part)]:
                id = msgspec.json.decode(fields.get("tool_call_id", Raw(b'""')))
                shown += [Raw(_encode(_words(f"Shown by the result of {id}:"))), *seen]
                text = "\n".join(str(msgspec.json.decode(part)["text"]) for part in texts)
                data, moved = _encode(fields | {"content": text}), True
        elif shown and role == b'"user"':
            said = _decode_list(content) if content.startswith(b"[") else []
            if content.startswith(b'"'):
                said = [Raw(_encode({"type": "text", "text": Raw(content)}))]
            data, shown = _encode(fields | {"content": [*shown, *said]}), []
        elif shown:
            turns.append(_encode({"role": "user", "content": shown}))
            shown = []
        turns.append(data)
    if shown:
        turns.append(_encode({"role": "user", "content": shown}))
    return (chat.with_messages(turns), (MOVED,)) if moved else (chat, ())


def _narrow_output(chat: ChatRequest, changes: dict[str, bytes | None], told: dict[str, None]) -> None:
    """``output_config``: how much thought is asked for, in the same words as OpenAI's; the rest is missed."""
    if "output_config" not in chat.json:
        return
    changes["output_config"] = None
    raw = chat.json.raw("output_config") or b""
    config = _decode(raw) if raw.startswith(b"{") else {}
    effort = bytes(config.pop("effort", Raw(b"null")))
    if effort.startswith(b'"') and not chat.has("reasoning_effort"):
        changes["reasoning_effort"] = effort
    if any(bytes(value) != b"null" for value in config.values()):
        told["output_config was left out but for its effort"] = None


def _has(data: bytes | None, marks: tuple[bytes, ...]) -> bool:
    return data is not None and any(mark in data for mark in marks)


def _refuse_missed(others: dict[str, Raw]) -> None:
    for key in _MISSED:
        if bytes(others.get(key, Raw(b"[]"))) != b"[]":
            raise unsupported(key, "cannot be had from this model; leave it out")


def _turns(chat: ChatRequest, told: dict[str, None]) -> list[bytes]:
    return [_turn(turn, f"messages[{place}]", told) for place, turn in enumerate(chat.raw_messages())]


def _turn(data: bytes, param: str, told: dict[str, None]) -> bytes:
    """One turn without marks; a result that is an error says so in its text."""
    if not _has(data, _MARKS):
        return data
    fields = _unmarked(_decode(data), told)
    if fields.pop("thinking_blocks", None) is not None:
        told["thinking_blocks of messages was left out"] = None
    failed = bytes(fields.pop("is_error", Raw(b""))) == b"true"
    content = fields.get("content", Raw(b"null"))
    if bytes(content).startswith(b"["):
        parts = [_part(part, param, told) for part in _decode_list(content)]
        if failed and not (parts and _is_text(parts[0]) and b"error" in bytes(parts[0])[:100].lower()):
            parts.insert(0, Raw(_encode(_words("Error:"))))
        fields["content"] = Raw(_encode(parts))
    elif failed and bytes(content).startswith(b'"'):
        text = msgspec.json.decode(content, type=str)
        if "error" not in text[:100].lower():
            fields["content"] = Raw(_encode(f"Error: {text}"))
    if _has(bytes(calls := fields.get("tool_calls", Raw(b""))), _OF_CALLS):
        fields["tool_calls"] = Raw(_encode([_call(call, told) for call in _decode_list(calls)]))
    return _encode(fields)


def _call(data: Raw, told: dict[str, None]) -> dict[str, Raw]:
    """A call without what Anthropic alone says of one."""
    fields = _unmarked(_decode(data), told)
    if bytes(extra := fields.get("extra_content", Raw(b""))).startswith(b"{"):
        beside = _decode(extra)
        own = beside.pop(OWN_EXTRA, Raw(b"{}"))
        for key in _decode(own) if bytes(own).startswith(b"{") else ():
            told[f"{plain_key(key)} of tool calls was left out"] = None
        del fields["extra_content"]
        if beside:
            fields["extra_content"] = Raw(_encode(beside))
    return fields


def _part(data: Raw, param: str, told: dict[str, None]) -> Raw:
    """A part without its mark for a cache, and without what else it was in Anthropic's dialect."""
    if not _has(bytes(data), _MARKS):
        return data
    fields = _unmarked(_decode(data), told)
    block: dict[str, Any] = msgspec.json.decode(fields.pop("anthropic_block", Raw(b"{}")))
    if fields.pop("citations", None) is not None:
        told["citations of messages was left out"] = None
    kind = block.pop("type", None)
    if bytes(fields["type"]) == _OWN_TYPE:
        what = (
            f"holds a block that this model cannot read: {str(kind)[:100]} that only its service can look up"
        )
        raise wrong(f"{param}.content", what, "unsupported_content")
    if kind in _BLOCKS:
        told[f"{_BLOCKS[kind]} were put into text"] = None
    # Of a whole block title and context are in the text.
    asked = set(block) if kind is None else {"citations"} & block.keys()
    if block.get("citations") in (None, [], {"enabled": False}):
        asked.discard("citations")
    told.update(dict.fromkeys(f"{plain_key(key)} of messages was left out" for key in sorted(asked)))
    return Raw(_encode(fields))


def _tool(data: Raw, at: int, told: dict[str, None]) -> Raw:
    """A tool as OpenAI's dialect has it."""
    fields = _unmarked(_decode(data), told)
    if bytes(fields.get("type", b"")) not in _TOOLS_THERE:
        raise unsupported(
            f"tools[{at}].type", "is a tool of another service's own; this model does not have it"
        )
    if bytes(fields.get("type", b"")) == b'"function"':
        for key in [key for key in fields if key not in ("type", "function")]:
            del fields[key]
            told[f"{plain_key(key)} of tools was left out"] = None
    return Raw(_encode(fields))


def _unmarked(fields: dict[str, Raw], told: dict[str, None]) -> dict[str, Raw]:
    """Without the mark for a cache."""
    if fields.pop("cache_control", None) is not None:
        told["cache_control was left out"] = None
    return fields


def _is_text(part: Raw) -> bool:
    return bytes(_decode(part).get("type", b"")) == b'"text"'


def _words(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}
