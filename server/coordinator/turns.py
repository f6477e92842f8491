"""Changing the turns of a conversation: each turn is JSON bytes, and what is not changed stays as it came."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Raw

from server.chat import Message

SYSTEM_ROLES = frozenset({"system", "developer"})
_json = msgspec.json.encode
_TEXT_PARTS = frozenset({"text", "input_text", "refusal", "output_text"})
IMAGE_TAKEN_OUT = "[An image stood here.]"


class Turn(msgspec.Struct, frozen=True):
    """One turn: its bytes, and the typed view of them."""

    data: bytes
    view: Message


def turns_of(data: Sequence[bytes], views: Sequence[Message]) -> list[Turn]:
    """The turns of a request, from ``raw_messages()`` and ``messages``."""
    return [Turn(one, view) for one, view in zip(data, views, strict=True)]


def join_turns(data: Sequence[bytes]) -> bytes:
    """The value of ``messages``, from each turn's JSON."""
    return b"[" + b",".join(data) + b"]"


def leading(turns: Sequence[Turn]) -> int:
    """How many system and developer turns the conversation begins with."""
    return next((at for at, turn in enumerate(turns) if turn.view.role not in SYSTEM_ROLES), len(turns))


def with_system(turns: Sequence[Turn], text: str) -> list[bytes]:
    """The turns with ``text`` added to the system text.

    It goes to the end of the last leading system turn, since strict chat templates take only one; where there
    is none it becomes the first turn.
    """
    data = [turn.data for turn in turns]
    count = leading(turns)
    if not count:
        return [_json({"role": "system", "content": text}), *data]
    last = turns[count - 1]
    content = last.view.content
    if isinstance(content, str):
        added = _json(f"{content}\n\n{text}" if content else text)
    else:
        added = _json([*raw_parts(last), {"type": "text", "text": text}])
    data[count - 1] = _edit(last.data, content=Raw(added))
    return data


def raw_parts(turn: Turn) -> list[Raw]:
    """The parts of a turn's content as they came; a plain text is one part."""
    content = turn.view.content
    if isinstance(content, str):
        return [Raw(_json({"type": "text", "text": content}))]
    if content is None:
        return []
    raw = msgspec.json.decode(turn.data, type=dict[str, Raw])["content"]
    return msgspec.json.decode(raw, type=list[Raw])


def parts_beside_text(turn: Turn, *, images: bool) -> list[Raw]:
    """Images, sounds and files of a turn as they came; without ``images`` no image is among them."""
    if not isinstance(turn.view.content, list):
        return []
    return [
        raw
        for raw, part in zip(raw_parts(turn), turn.view.content, strict=True)
        if part.type not in _TEXT_PARTS and (images or part.type != "image_url")
    ]


def without_images(turn: Turn) -> Turn:
    """The turn with each image replaced by a line that says so, for a model that cannot see."""
    if not turn.view.images or not isinstance(turn.view.content, list):
        return turn
    note: Any = {"type": "text", "text": IMAGE_TAKEN_OUT}
    parts = [
        note if part.type == "image_url" else raw
        for raw, part in zip(raw_parts(turn), turn.view.content, strict=True)
    ]
    data = _edit(turn.data, content=Raw(_json(parts)))
    return Turn(data, msgspec.json.decode(data, type=Message))


def tools_as_text(turns: Sequence[Turn]) -> list[Turn]:
    """The turns with calls of tools, and their results, told in words, for a model that gets no tools.

    Results that follow each other become one user turn, and one with the user turn behind them: roles
    alternate, as strict chat templates want it.
    """
    told: list[Turn] = []
    results: list[str] = []

    def end_results() -> None:
        if results:
            told.append(_new_turn("user", "\n\n".join(results)))
            results.clear()

    for turn in turns:
        if turn.view.role in ("tool", "function"):
            results.append(f"[Result of a tool]\n{turn.view.text}")
            continue
        if results and turn.view.role == "user":
            told.append(_behind("\n\n".join(results), turn))
            results.clear()
            continue
        end_results()
        if turn.view.tool_calls:
            calls = [f"[Call of a tool] {_call_text(call)}" for call in turn.view.tool_calls]
            turn = _new_turn(turn.view.role, "\n".join([*filter(None, [turn.view.text]), *calls]))
        told.append(turn)
    end_results()
    return told


def _behind(text: str, turn: Turn) -> Turn:
    """The turn with ``text`` before what it says."""
    content = turn.view.content
    if isinstance(content, list):
        data = _edit(turn.data, content=Raw(_json([{"type": "text", "text": text}, *raw_parts(turn)])))
    else:
        data = _edit(turn.data, content=Raw(_json(f"{text}\n\n{content or ''}".rstrip())))
    return Turn(data, msgspec.json.decode(data, type=Message))


def _call_text(call: Raw) -> str:
    """``name(arguments)`` of one call; its JSON where it has another form."""
    match msgspec.json.decode(call):
        case {"function": {"name": str(name), "arguments": str(arguments)}}:
            return f"{name}({arguments})"
    return bytes(call).decode()


def _new_turn(role: str, text: str) -> Turn:
    data = _json({"role": role, "content": text})
    return Turn(data, msgspec.json.decode(data, type=Message))


def user_turn(parts: Sequence[Raw | dict[str, str]] | str) -> bytes:
    """A user turn of text, or of parts."""
    return _json({"role": "user", "content": parts})


def _edit(data: bytes, **changes: Raw) -> bytes:
    return _json(msgspec.json.decode(data, type=dict[str, Raw]) | changes)
