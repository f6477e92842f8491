"""Turns of Anthropic's blocks → turns of a chat.

A result of a tool is a turn of its own there, before the words of the same turn. What of a block has no place
in a chat stays beside it, as ``anthropic_block``, for upstreams of the same dialect: all of the block where
it was put into other words, else the fields that are left.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Raw

from server.errors import InvalidRequest
from server.foreign import AFTER, OWN_EXTRA, OWN_PART
from server.messages_wire.beside import UNSIGNED
from server.openai_wire import details_in, unsealed

_OBJECT = msgspec.json.Decoder(dict[str, Raw])
# What a user or a tool says that a chat has no part for; it goes as it came.
_OWN = ("container_upload", "tool_reference")
# What the service says beside words and calls, and wants back as it was.
_KEPT = ("thinking", "redacted_thinking", "container_upload", "compaction")
_MARK = (b"", b"null")
# What is sealed, by its names.
EXTRA, DETAILS = "extra_content", "reasoning_details"
# What a part says of a block; further fields stay beside it.
_SAID = {
    "text": ("type", "text", "citations", "cache_control"),
    "image": ("type", "source", "cache_control"),
}
_SAID_OF_CALL = ("type", "id", "name", "input", "cache_control")
_DIRECT = {"type": "direct"}  # the caller, where the model itself called
_SAID_OF_FILE = ("type", "source", "cache_control")


class Turn(msgspec.Struct):
    """One message."""

    role: str
    content: str | list[Raw]


class _Source(msgspec.Struct):
    type: str
    media_type: str = ""
    data: str = ""
    url: str = ""
    content: str | list[Raw] = ""


class _Block(msgspec.Struct):
    """Any block; ``content`` and ``source`` are read by those that have one."""

    type: str
    text: str = ""
    id: str = ""
    name: str = ""
    input: Raw = Raw()
    tool_use_id: str = ""
    content: Raw = Raw()
    source: Raw = Raw()
    is_error: bool | None = None
    thinking: str = ""
    signature: str | None = None
    data: str = ""
    title: str | None = None
    context: str | None = None
    citations: Raw = Raw()
    cache_control: Raw = Raw()


_BLOCK = msgspec.json.Decoder(_Block)
_SOURCE = msgspec.json.Decoder(_Source)
_CITED = msgspec.json.Decoder(list[dict[str, Any]])
_CONTENT = msgspec.json.Decoder(str | list[Raw] | None)


def chat_turns(turns: Sequence[Turn]) -> list[dict[str, Any]]:
    """The turns of a chat. Raises ``InvalidRequest`` for a role or block that cannot be taken.

    Each result answers a call of the turn before, and each call has its result in the turn behind it.
    """
    made: list[dict[str, Any]] = []
    asked: list[str] = []
    for place, turn in enumerate(turns):
        param = f"messages[{place}]"
        if turn.role == "assistant":
            said = _assistant(turn, param)
            _check_results(asked, [], param)
            asked = [call["id"] for call in said.get("tool_calls", ())]
            made.append(said)
        elif turn.role == "user":
            results, user = _user(turn, param)
            _check_results(asked, [result["tool_call_id"] for result in results], param)
            asked = []
            made += results
            made += user
        elif turn.role == "system":
            content = turn.content
            made.append(
                {
                    "role": "system",
                    "content": content if isinstance(content, str) else text_of_blocks(content, param),
                }
            )
        else:
            raise InvalidRequest(f"{param}.role must be user or assistant.", param=f"{param}.role")
    _check_results(asked, [], "messages")
    return made


def text_of_blocks(blocks: Sequence[Raw], param: str) -> str | list[dict[str, Any]]:
    """Blocks of text alone, as content."""
    parts = []
    for at, raw in enumerate(blocks):
        here = f"{param}[{at}]" if param == "system" else f"{param}.content[{at}]"
        block = _read(raw, here)
        if block.type != "text":
            raise _unknown(block, here, "system")
        parts.append(_text(block, raw))
    return _simple(parts)


def _read(raw: Raw, param: str) -> _Block:
    try:
        return _BLOCK.decode(raw)
    except msgspec.ValidationError as error:
        what, _, path = str(error).partition(" - at `$")
        raise InvalidRequest(
            f"{param} cannot be read: {what}.", param=param + path.rstrip("`"), code="invalid_type"
        ) from None


def _assistant(turn: Turn, param: str) -> dict[str, Any]:
    """Thoughts, text and calls. Thoughts without a signature are ours to name: they came under our name."""
    made: dict[str, Any] = {"role": "assistant"}
    if isinstance(turn.content, str):
        return made | {"content": turn.content}
    parts: list[dict[str, Any]] = []
    calls: list[dict[str, Any]] = []
    kept: list[Raw | dict[str, Raw]] = []
    words = 0  # texts that say something, and calls
    thoughts: list[str] = []
    beside: dict[str, Any] = {}  # what a vendor had put beside a call, by the call's id; "": beside the text
    details: list[Any] = []  # OpenRouter's
    for at, raw in enumerate(turn.content):
        here = f"{param}.content[{at}]"
        block = _read(raw, here)
        if block.type == "text":
            if block.text:
                parts.append(_text(block, raw))
                words += bool(block.text.strip())
        elif block.type == "tool_use":
            calls.append(_call(block, raw, here))
            words += 1
        elif block.type == "thinking" and (not block.signature or block.signature == UNSIGNED):
            thoughts.append(block.thinking)
        elif (things := _unsealed(block, here)) is not None:
            beside |= {str(one.get("call", "")): one["extra_content"] for one in things if EXTRA in one}
            details += details_in(things)
        elif block.type in _KEPT or block.type.endswith(("_tool_use", "_tool_result")):
            kept.append(_OBJECT.decode(raw) | {AFTER: Raw(b"%d" % words)} if words else raw)
        else:
            raise _unknown(block, here, "assistant")
    made["content"] = _simple(parts) if parts else None if calls else ""
    if "" in beside:
        made["extra_content"] = beside[""]
    if thoughts:
        made["reasoning_content"] = "".join(thoughts)
    if details:
        made[DETAILS] = details
    if calls:
        made["tool_calls"] = [
            call | {"extra_content": beside[call["id"]]} if call["id"] in beside else call for call in calls
        ]
    if kept:
        made["thinking_blocks"] = kept
    return made


def _unsealed(block: _Block, param: str) -> list[dict[str, Any]] | None:
    """What we had sealed in a block of redacted thinking; None if that is not ours."""
    if block.type != "redacted_thinking":
        return None
    try:
        things = unsealed(block.data)
        if things is not None and not all(EXTRA in one or DETAILS in one for one in things):
            raise ValueError
        return things
    except ValueError:
        raise InvalidRequest(
            f"{param}.data is not as it was given; send it back unchanged.", param=f"{param}.data"
        ) from None


def _call(block: _Block, raw: Raw, param: str) -> dict[str, Any]:
    for field in ("id", "name"):
        if not getattr(block, field):
            raise InvalidRequest(
                f"{param}.{field} is missing; a call has an id and a name.",
                param=f"{param}.{field}",
                code="missing_required_parameter",
            )
    if not bytes(block.input).startswith(b"{"):
        raise InvalidRequest(f"{param}.input must be an object.", param=f"{param}.input", code="invalid_type")
    function = {"name": block.name, "arguments": bytes(block.input).decode()}
    made: dict[str, Any] = {"id": block.id, "type": "function", "function": function}
    left = {key: one for key, one in _OBJECT.decode(raw).items() if key not in _SAID_OF_CALL}
    if left := {key: one for key, one in left.items() if msgspec.json.decode(one) not in (None, _DIRECT)}:
        made["extra_content"] = {OWN_EXTRA: left}
    return _marked(made, block)


def _user(turn: Turn, param: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The results of tools, and the user's own words if there are any."""
    if isinstance(turn.content, str):
        return [], [{"role": "user", "content": turn.content}]
    results: list[dict[str, Any]] = []
    parts: list[dict[str, Any]] = []
    for at, raw in enumerate(turn.content):
        here = f"{param}.content[{at}]"
        block = _read(raw, here)
        if block.type == "tool_result":
            results.append(_result(block, here))
        else:
            parts.append(_part(block, raw, here, "user"))
    if not results and not parts:
        raise InvalidRequest(f"{param}.content is empty.", param=f"{param}.content")
    return results, [{"role": "user", "content": _simple(parts)}] if parts else []


def _result(block: _Block, param: str) -> dict[str, Any]:
    """One result, with what is to be seen in it."""
    if not block.tool_use_id:
        raise InvalidRequest(
            f"{param}.tool_use_id is missing; it names the call that this is the result of.",
            param=f"{param}.tool_use_id",
            code="missing_required_parameter",
        )
    try:
        content = _CONTENT.decode(block.content) if bytes(block.content) else None
    except msgspec.ValidationError:
        raise InvalidRequest(
            f"{param}.content must be text or a list of blocks.",
            param=f"{param}.content",
            code="invalid_type",
        ) from None
    said: str | list[dict[str, Any]] = content if isinstance(content, str) else ""
    if isinstance(content, list):
        parts = [
            _part(_read(raw, here), raw, here, "tool_result")
            for at, raw in enumerate(content)
            for here in (f"{param}.content[{at}]",)
        ]
        plain = all(part.keys() == {"type", "text"} for part in parts)
        said = "\n".join(part["text"] for part in parts) if plain else parts
    made: dict[str, Any] = {"role": "tool", "tool_call_id": block.tool_use_id, "content": said}
    return _marked(made | {"is_error": True} if block.is_error else made, block)


def _part(block: _Block, raw: Raw, param: str, where: str) -> dict[str, Any]:
    match block.type:
        case "text":
            return _text(block, raw)
        case "image":
            if _source(block, param).type == "file":
                return _elsewhere(raw)
            return _marked({"type": "image_url", "image_url": {"url": _url(block, param)}}, block, raw)
        case "document":
            if _source(block, param).type in ("url", "file"):
                return _elsewhere(raw)
            return _marked(_document(block, param), block, raw)
        case "search_result":
            text = "\n".join(_texts(block.content, param))
            source = msgspec.json.decode(block.source) if bytes(block.source) else ""
            return _marked({"type": "text", "text": f"{block.title or ''}\n{source}\n{text}"}, block, raw)
    if block.type in _OWN:
        return _elsewhere(raw)
    raise _unknown(block, param, where)


def _elsewhere(raw: Raw) -> dict[str, Any]:
    """A block that only the service itself can look at, such as a file that it keeps."""
    return {"type": OWN_PART, "anthropic_block": raw}


def _source(block: _Block, param: str) -> _Source:
    try:
        return _SOURCE.decode(block.source)
    except msgspec.DecodeError:
        raise InvalidRequest(
            f"{param}.source must be an object with a type.", param=f"{param}.source", code="invalid_type"
        ) from None


def _url(block: _Block, param: str) -> str:
    source = _source(block, param)
    if source.type == "base64" and source.media_type and source.data:
        return f"data:{source.media_type};base64,{source.data}"
    if source.type == "url" and source.url:
        return source.url
    raise InvalidRequest(
        f"{param}.source must be of type base64 (with media_type and data), url or file.",
        param=f"{param}.source",
        code="unsupported_content",
    )


def _document(block: _Block, param: str) -> dict[str, Any]:
    """A PDF as a file; a document of text as text, under its title."""
    source = _source(block, param)
    head = "".join(f"{line}\n" for line in (block.title, block.context) if line)
    if source.type == "text":
        return {"type": "text", "text": head + source.data}
    if source.type == "content":
        if isinstance(source.content, str):
            return {"type": "text", "text": head + source.content}
        return {"type": "text", "text": head + "\n".join(_texts(msgspec.json.encode(source.content), param))}
    if source.type == "base64" and source.media_type and source.data:
        file = {"file_data": f"data:{source.media_type};base64,{source.data}"}
        return {"type": "file", "file": file | {"filename": block.title or "document.pdf"}}
    raise InvalidRequest(
        f"{param}.source must be of type base64, text, content, url or file.",
        param=f"{param}.source",
        code="unsupported_content",
    )


def _texts(content: bytes | Raw, param: str) -> list[str]:
    try:
        blocks = msgspec.json.decode(content, type=list[_Block])
    except msgspec.DecodeError:
        raise InvalidRequest(
            f"{param}.content must be a list of blocks of text.",
            param=f"{param}.content",
            code="invalid_type",
        ) from None
    return [block.text for block in blocks if block.type == "text"]


def _marked(part: dict[str, Any], block: _Block, raw: Raw | None = None) -> dict[str, Any]:
    """The part with the block's mark for a cache, and what else the part does not say of the block."""
    if raw is not None:
        said = _SAID_OF_FILE if part["type"] == "file" else _SAID.get(block.type, ())
        left = {key: one for key, one in _OBJECT.decode(raw).items() if key not in said and _asks(key, one)}
        if left:
            part = part | {"anthropic_block": left}
    return part if bytes(block.cache_control) in _MARK else part | {"cache_control": block.cache_control}


def _text(block: _Block, raw: Raw) -> dict[str, Any]:
    """A text, with the sources that the service itself had told; of ours it can make nothing."""
    part = _marked({"type": "text", "text": block.text}, block, raw)
    if not bytes(block.citations).startswith(b"["):
        return part
    told = [one for one in _CITED.decode(block.citations) if one.get("encrypted_index") != UNSIGNED]
    return part | {"citations": told} if told else part


def _asks(key: str, value: Raw) -> bool:
    """Does a block's field ask for anything?"""
    if key == "citations":
        return msgspec.json.decode(value) not in (None, [], {"enabled": False})
    return bytes(value) != b"null"


def _simple(parts: list[dict[str, Any]]) -> str | list[dict[str, Any]]:
    """One plain text as a string, which every upstream takes."""
    if len(parts) == 1 and parts[0].keys() == {"type", "text"}:
        text: str = parts[0]["text"]
        return text
    return parts


def _check_results(asked: list[str], answered: list[str], param: str) -> None:
    for id in answered:
        if id not in asked or answered.count(id) > 1:
            raise InvalidRequest(
                f"{param}: the result of {id[:100]} answers no call of the turn before, or one twice.",
                param=f"{param}.content",
            )
    if missing := [id for id in asked if id not in answered]:
        raise InvalidRequest(
            f"{param}: the call {missing[0][:100]} has no result in the turn behind it.", param=param
        )


def _unknown(block: _Block, param: str, where: str) -> InvalidRequest:
    return InvalidRequest(
        f"{param}.type: {block.type[:100]} is not taken in {where} content.",
        param=f"{param}.type",
        code="unsupported_content",
    )
