"""The turns of a chat → ``system`` and ``messages``: merged, alternating, results before words."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import Any, TypeAlias

import msgspec
from msgspec import Raw

from server.anthropic_wire.citations import cited
from server.chat import ChatRequest
from server.foreign import (
    AFTER,
    OWN_EXTRA,
    File,
    Part,
    answered_twice,
    no_call,
    no_call_id,
    odd_role,
    read_arguments,
    read_data_uri,
    read_turn,
    wrong,
)
from server.foreign import Turn as Asked

Block: TypeAlias = dict[str, Any]
IMAGE_TYPES = ("image/jpeg", "image/png", "image/gif", "image/webp")
# Said in the user's place where a conversation begins with the assistant: the first turn must be the user's.
OPENING = "Hello."
_NONE = (b"", b"null", b"[]")
_ID = re.compile(r"[a-zA-Z0-9_-]+")


class Turn(msgspec.Struct):
    """One message as the service takes it. ``place`` is that of the first message that went into it."""

    role: str
    content: list[Block]
    place: int


class Conversation(msgspec.Struct, frozen=True):
    """``system`` is empty if there is none. ``warnings`` say what was adapted."""

    system: list[Block]
    turns: list[Turn]
    warnings: list[str]


def converse(chat: ChatRequest) -> Conversation:
    """The turns as the service takes them.

    Raises ``InvalidRequest`` for a role, part, call or result that it cannot take, or if nothing is left.
    """
    system: list[Block] = []
    turns: list[Turn] = []
    warnings: list[str] = []
    for place, raw in enumerate(chat.raw_messages()):
        message = read_turn(raw, place)
        if message.role in ("system", "developer"):
            blocks = _parts(message, place)
            if not turns:
                system += blocks
                continue
            for block in blocks:
                block["text"] = f"<system>{block.get('text', '')}</system>"
            _add(turns, "user", blocks, place)
        elif message.role == "user":
            _add(turns, "user", _parts(message, place), place)
        elif message.role == "assistant":
            _add(turns, "assistant", _said(message, place, warnings), place)
        elif message.role == "tool":
            _add(turns, "user", [_result(message, place)], place)
        else:
            raise odd_role(place)
    if not turns:
        if not system:
            raise wrong("messages", "hold no text; send at least one message with text", "invalid_value")
        turns, system = [Turn("user", system, 0)], []
    if turns[0].role == "assistant":
        turns.insert(0, Turn("user", [_text(OPENING)], 0))
        warnings.append("a user's turn was put before the assistant's first")
    _check_results(turns)
    _strip_prefill(turns)
    return Conversation(system, turns, warnings)


def _add(turns: list[Turn], role: str, blocks: list[Block], place: int) -> None:
    """Add what was said; neighbours of one role are one turn, in which results stand before words."""
    if not blocks:
        return
    if not turns or turns[-1].role != role:
        turns.append(Turn(role, [], place))
    content = turns[-1].content
    content += blocks
    if role == "user":
        content.sort(key=lambda block: block["type"] != "tool_result")


def _said(message: Asked, place: int, warnings: list[str]) -> list[Block]:
    """An assistant's turn: thoughts, then text, then calls; thoughts between those where it is told so."""
    kept: list[Block] = [
        {key: value for key, value in block.items() if key != "index"}  # which is ours, for clients that join
        for block in message.thinking_blocks or ()
    ]
    places = [msgspec.json.decode(block.pop(AFTER, b"0")) for block in kept]
    for at, block in enumerate(kept):
        if "type" not in block:
            raise wrong(
                f"messages[{place}].thinking_blocks[{at}].type", "is missing", "missing_required_parameter"
            )
        block["type"] = msgspec.json.decode(block["type"])
    if bytes(message.native_citations) in _NONE:
        blocks = _parts(message, place)
    elif (text := _lone_text(message.content)) is not None:
        blocks = cited(text, message.native_citations, message.annotations, f"messages[{place}]")
    else:
        blocks = _parts(message, place)
        warnings.append("native_citations of messages was left out: their text has several parts")
    for at, call in enumerate(message.tool_calls or ()):
        param = f"messages[{place}].tool_calls[{at}]"
        made: Block = {
            "type": "tool_use",
            "id": call_id(call.id),
            "name": call.function.name,
            "input": read_arguments(call, param),
        }
        blocks.append(_marked(_beside(call.extra_content) | made, call.cache_control))
    for block, after in reversed([*zip(kept, places, strict=True)]):
        blocks.insert(after if type(after) is int and after > 0 else 0, block)
    return blocks


def _beside(extra: Raw) -> Block:
    """What the service itself had put beside a call."""
    fields = msgspec.json.decode(extra) if bytes(extra).startswith(b"{") else {}
    own = fields.get(OWN_EXTRA)
    return own if isinstance(own, dict) else {}


def _lone_text(content: str | list[Part] | None) -> str | None:
    """The text of a turn that is one."""
    if isinstance(content, list) and len(content) == 1 and content[0].type == "text":
        return content[0].text
    return content if isinstance(content, str) else None


def call_id(id: str) -> str:
    """A call's id as the service takes it: the same for the same, another for others."""
    if _ID.fullmatch(id):
        return id
    return f"toolu_{hashlib.blake2s(id.encode(errors='surrogatepass'), digest_size=12).hexdigest()}"


def _result(message: Asked, place: int) -> Block:
    if not message.tool_call_id:
        raise no_call_id(place)
    block: Block = {"type": "tool_result", "tool_use_id": call_id(message.tool_call_id)}
    parts = _parts(message, place)
    if isinstance(message.content, str) and parts:
        block["content"] = message.content
    elif parts:
        block["content"] = parts
    if message.is_error:
        block["is_error"] = True
    return _marked(block, message.cache_control)


def _parts(message: Asked, place: int) -> list[Block]:
    """A message's content as blocks. Blank texts are left out: the service refuses them."""
    content = message.content
    if content is None:
        return []
    if isinstance(content, str):
        return [_text(content)] if content.strip() else []
    blocks: list[Block] = []
    for at, part in enumerate(content):
        block = _block(part, message.role, f"messages[{place}].content[{at}]")
        if block is not None:
            if message.role == "assistant" and bytes(part.citations):
                block["citations"] = part.citations
            blocks.append(_marked(block, part.cache_control))
    return blocks


def _marked(block: Block, mark: Raw) -> Block:
    """The block with its mark for a cache, if it has one."""
    if bytes(mark) not in (b"", b"null"):
        block["cache_control"] = mark
    return block


def _block(part: Part, role: str, param: str) -> Block | None:
    if part.anthropic_block is None:
        return _made(part, role, param)
    block: Block = dict(part.anthropic_block)
    if "type" in block:  # all of it
        return block | {"type": msgspec.json.decode(block["type"])}
    made = _made(part, role, param)
    return None if made is None else made | block


def _made(part: Part, role: str, param: str) -> Block | None:
    if part.type in ("text", "refusal"):
        text = (part.text if part.type == "text" else part.refusal) or ""
        return _text(text) if text.strip() else None
    if role in ("user", "tool"):
        if part.type == "image_url" and part.image_url is not None:
            return {"type": "image", "source": _image_source(part.image_url.url, f"{param}.image_url.url")}
        if part.type == "file":
            return _document(part.file or File(), f"{param}.file.file_data")
    if part.type == "input_audio":
        raise wrong(f"{param}.type", "is not taken: this model hears no audio", "unsupported_parameter")
    raise wrong(f"{param}.type", f"is not taken from the {role}: {part.type}", "unsupported_content")


def _image_source(url: str, param: str) -> Block:
    if url[:5].lower() != "data:":
        return {"type": "url", "url": url}
    media, data = read_data_uri(url, param)
    if media not in IMAGE_TYPES:
        raise wrong(param, f"must be one of {', '.join(IMAGE_TYPES)}", "invalid_image")
    return {"type": "base64", "media_type": media, "data": data}


def _document(file: File, param: str) -> Block:
    if not file.file_data:
        raise wrong(param, "is missing; files are taken as data URIs only", "unsupported_content")
    media, data = read_data_uri(file.file_data, param)
    if media != "application/pdf":
        raise wrong(param, "must be a PDF (application/pdf) as a base64 data URI", "unsupported_content")
    block: Block = {"type": "document", "source": {"type": "base64", "media_type": media, "data": data}}
    return block | {"title": file.filename} if file.filename else block


def _text(text: str) -> Block:
    return {"type": "text", "text": text}


def _check_results(turns: list[Turn]) -> None:
    """Each call has one result, in the turn that follows; a result has its call in the turn before."""
    asked: list[str] = []
    before = turns[0]
    for turn in turns:
        results = [block["tool_use_id"] for block in turn.content if block["type"] == "tool_result"]
        if turn.role == "user" and sorted(results) != sorted(asked):
            if missing := set(asked).difference(results):
                param = f"messages[{before.place}].tool_calls"
                raise wrong(
                    param, f"has {len(missing)} of its calls without a result after it", "invalid_value"
                )
            raise no_call(turn.place) if set(results).difference(asked) else answered_twice(turn.place)
        asked = [block["id"] for block in turn.content if block["type"] == "tool_use"]
        before = turn
    if asked:
        param = f"messages[{before.place}].tool_calls"
        raise wrong(param, "must be followed by a result of each", "invalid_value")


def _strip_prefill(turns: list[Turn]) -> None:
    """An answer that is to be gone on with may not end in blanks."""
    last = turns[-1]
    if last.role == "assistant" and last.content and last.content[-1]["type"] == "text":
        last.content[-1]["text"] = last.content[-1]["text"].rstrip()


def lacks_thoughts(turns: Iterable[Turn]) -> bool:
    """Do calls whose results end the conversation stand without the thoughts that led to them?"""
    *_, before, last = [None, *turns]
    if last is None or before is None or last.content[0]["type"] != "tool_result":
        return False
    return not any(block["type"] in ("thinking", "redacted_thinking") for block in before.content)
