"""What of a chat's turns, parts, calls and tools an upstream of another dialect has no place for.

Top-level fields are ``foreign.left_out``'s. A vendor's wire says which fields it carries beyond those that
all carry; the others are told, by name.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from msgspec import Raw

from server.chat import ChatRequest
from server.foreign import plain_key

_TURN = frozenset({"role", "content", "refusal", "tool_calls", "tool_call_id"})
_PART = frozenset({"type", "text", "refusal", "image_url", "file", "input_audio"})
_CALL = frozenset({"id", "type", "index", "function"})
_TOOL = frozenset({"type", "function"})
_FUNCTION = frozenset({"name", "description", "parameters"})
_FILE = frozenset({"file_data", "file_id"})
_SIGNED = frozenset({"thinking_blocks", "extra_content"})
# Values that ask for nothing.
_NOTHING = (b"null", b"false", b"[]", b"{}", b'""')
_decode = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_list = msgspec.json.Decoder(list[dict[str, Raw]]).decode


class Carried(msgspec.Struct, frozen=True):
    """Fields that a dialect has a place for, beyond those that all have."""

    turns: frozenset[str] = frozenset()
    parts: frozenset[str] = frozenset()
    files: frozenset[str] = frozenset()
    calls: frozenset[str] = frozenset()
    tools: frozenset[str] = frozenset()
    functions: frozenset[str] = frozenset()
    own: str = ""  # its name within ``extra_content`` of a call


def lost_fields(chat: ChatRequest, carried: Carried) -> list[str]:
    """In ASCII words, each field once, what is not ``carried``. The turns and tools can be read."""
    lost = _Lost()
    of_turns, of_calls = _TURN | carried.turns, _CALL | carried.calls
    for turn in _objects(chat.json.raw("messages")):
        calls = _objects(turn.get("tool_calls"))
        if _is_signed(turn, calls, carried):
            turn.pop("reasoning_content", None)  # what is signed stands for it
        if "native_citations" in carried.turns and bytes(turn.get("native_citations", Raw(b"[]"))) != b"[]":
            turn.pop("annotations", None)  # which say the same
        lost.note(turn, of_turns, "messages")
        for part in _objects(turn.get("content")):
            _note_part(part, carried, lost)
        for call in calls:
            if carried.own and _object(call.get("extra_content")).keys() == {carried.own}:
                del call["extra_content"]
            lost.note(call, of_calls, "tool calls")
    for tool in _objects(chat.json.raw("tools")):
        if "function" not in tool:
            continue  # it went as it came: it is no function
        lost.note(tool, _TOOL | carried.tools, "tools")
        lost.note(_object(tool.get("function")), _FUNCTION | carried.functions, "tools")
    return list(lost.told)


class _Lost:
    def __init__(self) -> None:
        self.told: dict[str, None] = {}

    def note(self, fields: dict[str, Raw], known: Iterable[str], where: str) -> None:
        for key, value in fields.items():
            if key not in known and bytes(value) not in _NOTHING:
                self.told[f"{plain_key(key)} of {where} was left out"] = None


def _note_part(part: dict[str, Raw], carried: Carried, lost: _Lost) -> None:
    lost.note(part, _PART | carried.parts, "parts")
    if bytes(_object(part.get("image_url")).get("detail", Raw(b"null"))) not in (b"null", b'"auto"'):
        lost.told["detail of images was left out"] = None
    lost.note(_object(part.get("file")), _FILE | carried.files, "files")


def _is_signed(turn: dict[str, Raw], calls: list[dict[str, Raw]], carried: Carried) -> bool:
    """Are the thoughts that led to a turn sent as the vendor had signed them?"""
    if _SIGNED & carried.turns & turn.keys():
        return True
    return any(_SIGNED & carried.calls & call.keys() for call in calls)


def _object(raw: Raw | None) -> dict[str, Raw]:
    return _decode(raw) if raw is not None and _begins(raw, b"{") else {}


def _objects(raw: Raw | bytes | None) -> list[dict[str, Raw]]:
    return _decode_list(raw) if raw is not None and _begins(raw, b"[") else []


def _begins(raw: Raw | bytes, with_: bytes) -> bool:
    return memoryview(raw)[:1] == with_  # not copied: it may be megabytes
