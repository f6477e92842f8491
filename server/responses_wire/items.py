"""Items of a response → turns of a chat.

What an assistant thought, said and called since the user's last word is one turn there. Images that the
assistant made follow in a user's turn behind it, since few upstreams see images elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec
from msgspec import Raw

from server.errors import InvalidRequest
from server.openai_wire import details_in, unsealed

_ROLES = {"user": "user", "assistant": "assistant", "system": "system", "developer": "system"}


class _Item(msgspec.Struct):
    type: str = "message"
    role: str = ""
    id: str | None = None
    content: Raw = Raw()
    call_id: str = ""
    name: str = ""
    arguments: str = ""
    output: Raw = Raw()
    summary: Raw = Raw()
    encrypted_content: str | None = None
    result: str | None = None
    output_format: str | None = None


class _Part(msgspec.Struct):
    type: str
    text: str = ""
    refusal: str = ""
    image_url: str | None = None
    detail: str | None = None
    file_data: str | None = None
    filename: str | None = None
    input_audio: Raw = Raw()


_ITEM = msgspec.json.Decoder(_Item)
_CONTENT = msgspec.json.Decoder(str | list[_Part] | None)


class Turns:
    """Takes items one by one. ``wide``: some hold what few upstreams take, signed thoughts or seen results.

    ``find`` gives an item that is only referred to; it raises ``ServerError`` if there is none.
    """

    def __init__(self, find: Callable[[str, str], bytes]) -> None:
        self.wide = False
        self._find = find
        self._made: list[dict[str, Any]] = []
        self._turn: dict[str, Any] | None = None  # the assistant's, under way
        self._thoughts: list[str] = []
        self._beside: dict[str, Any] = {}  # what a vendor had put beside a call, by the call's id
        self._shown: list[dict[str, Any]] = []
        self._open: list[str] = []  # calls whose output has not come

    def take(self, raw: bytes | Raw, param: str) -> bytes:
        """Take the next item; returns it, or the one that it refers to. Raises ``InvalidRequest``."""
        item = _read(raw, param)
        if item.type == "item_reference":
            raw = self._find(item.id or "", f"{param}.id")
            item = _read(raw, param)
        match item.type:
            case "message":
                self._message(item, param)
            case "function_call":
                self._call(item, param)
            case "function_call_output":
                self._output(item, param)
            case "reasoning":
                self._reasoning(item, param)
            case "image_generation_call":
                self._picture(item)
            case other:
                raise InvalidRequest(
                    f"{param}.type: items of type {other[:100]} are not taken here.",
                    param=f"{param}.type",
                    code="unsupported_content",
                )
        return bytes(raw)

    def end(self) -> list[dict[str, Any]]:
        """All turns. Raises ``InvalidRequest`` if a call has no output."""
        self._close()
        self._show()
        self._check_open()
        return self._made

    def _message(self, item: _Item, param: str) -> None:
        role = _ROLES.get(item.role)
        if role is None:
            raise InvalidRequest(
                f"{param}.role must be user, assistant, system or developer.", param=f"{param}.role"
            )
        parts = _parts(item.content, f"{param}.content")
        if role != "assistant":
            self._close()
            self._check_open()
            parts = self._take_shown() + parts if role == "user" else parts
            if role != "user":
                self._show()
            self._made.append({"role": role, "content": simple(parts)})
            return
        if self._turn is None:
            self._show()
        turn = self._assistant()
        if turn.get("content") is not None:
            self._close()
            turn = self._assistant()
        turn["content"] = "".join(part["text"] for part in parts if part["type"] == "text")

    def _call(self, item: _Item, param: str) -> None:
        for field in ("call_id", "name"):
            if not getattr(item, field):
                raise InvalidRequest(
                    f"{param}.{field} is missing; a call has a call_id and a name.",
                    param=f"{param}.{field}",
                    code="missing_required_parameter",
                )
        function = {"name": item.name, "arguments": item.arguments}
        call: dict[str, Any] = {"id": item.call_id, "type": "function", "function": function}
        if (extra := self._beside.get(item.call_id)) is not None:
            call["extra_content"] = extra
        self._assistant().setdefault("tool_calls", []).append(call)

    def _output(self, item: _Item, param: str) -> None:
        self._close()
        if item.call_id not in self._open:
            raise InvalidRequest(
                f"{param}: no function call before it has the call_id {item.call_id[:100]!r}.",
                param=f"{param}.call_id",
            )
        self._open.remove(item.call_id)
        parts = _parts(item.output, f"{param}.output")
        said: str | list[dict[str, Any]] = parts
        if all(part["type"] == "text" for part in parts):
            said = "\n".join(part["text"] for part in parts)
        else:
            self.wide = True
        self._made.append({"role": "tool", "tool_call_id": item.call_id, "content": said})

    def _reasoning(self, item: _Item, param: str) -> None:
        texts = _parts(item.content, f"{param}.content") or _parts(item.summary, f"{param}.summary")
        blocks = _blocks(item.encrypted_content or "", param)
        turn = self._assistant()
        spoken = turn["content"] is not None and "tool_calls" not in turn
        if spoken and not self._shown and any("type" in block for block in blocks):
            self._close()  # what a vendor signed goes back behind the words that it came behind
            turn = self._assistant()
        self._thoughts += [part["text"] for part in texts]
        for block in blocks:
            if "call" in block:
                self._beside[str(block["call"])] = block.get("extra_content")
            elif "extra_content" in block and "type" not in block:
                turn["extra_content"] = block["extra_content"]
            elif "reasoning_details" in block and "type" not in block:
                turn.setdefault("reasoning_details", []).extend(details_in([block]))
            else:
                turn.setdefault("thinking_blocks", []).append(block)
                self.wide = True

    def _picture(self, item: _Item) -> None:
        """What the assistant has drawn is shown behind its turn: few upstreams see images in what it said."""
        self._assistant()
        if item.result:
            uri = f"data:image/{item.output_format or 'png'};base64,{item.result}"
            image = {"type": "image_url", "image_url": {"url": uri}}
            self._shown += [{"type": "text", "text": "The picture that you made:"}, image]

    def _assistant(self) -> dict[str, Any]:
        if self._turn is None:
            self._check_open()
            self._show()
            self._turn = {"role": "assistant", "content": None}
        return self._turn

    def _close(self) -> None:
        """The assistant's turn is complete."""
        turn, self._turn = self._turn, None
        if turn is None:
            return
        thoughts, self._thoughts = self._thoughts, []
        if thoughts:
            turn["reasoning_content"] = "\n".join(thoughts)
        if turn["content"] is None and "tool_calls" not in turn:
            turn["content"] = ""
        self._open = [call["id"] for call in turn.get("tool_calls", ())]
        self._made.append(turn)

    def _take_shown(self) -> list[dict[str, Any]]:
        shown, self._shown = self._shown, []
        return shown

    def _show(self) -> None:
        if self._shown:
            self._made.append({"role": "user", "content": self._take_shown()})

    def _check_open(self) -> None:
        if self._open:
            raise InvalidRequest(
                f"input: the function call {self._open[0][:100]} has no output behind it.", param="input"
            )


def simple(parts: list[dict[str, Any]]) -> str | list[dict[str, Any]]:
    """One plain text as a string, which every upstream takes."""
    if len(parts) == 1 and parts[0].keys() == {"type", "text"}:
        text: str = parts[0]["text"]
        return text
    return parts


def _read(raw: bytes | Raw, param: str) -> _Item:
    try:
        return _ITEM.decode(raw)
    except msgspec.ValidationError as error:
        what, _, path = str(error).partition(" - at `$")
        raise InvalidRequest(
            f"{param} cannot be read: {what}.", param=param + path.rstrip("`"), code="invalid_type"
        ) from None


def _parts(content: Raw, param: str) -> list[dict[str, Any]]:
    try:
        found = _CONTENT.decode(content) if bytes(content) else None
    except msgspec.ValidationError as error:
        what, _, path = str(error).partition(" - at `$")
        raise InvalidRequest(
            f"{param} cannot be read: {what}.", param=param + path.rstrip("`"), code="invalid_type"
        ) from None
    if isinstance(found, str):
        return [{"type": "text", "text": found}]
    return [_part(part, f"{param}[{at}]") for at, part in enumerate(found or ())]


def _part(part: _Part, param: str) -> dict[str, Any]:
    match part.type:
        case "input_text" | "output_text" | "text" | "summary_text" | "reasoning_text":
            return {"type": "text", "text": part.text}
        case "refusal":
            return {"type": "text", "text": part.refusal}
        case "input_image" if part.image_url:
            image = {"url": part.image_url}
            return {
                "type": "image_url",
                "image_url": image | {"detail": part.detail} if part.detail else image,
            }
        case "input_file" if part.file_data:
            return {
                "type": "file",
                "file": {"filename": part.filename or "file", "file_data": part.file_data},
            }
        case "input_audio":
            return {"type": "input_audio", "input_audio": part.input_audio}
        case "input_image" | "input_file":
            raise InvalidRequest(
                f"{param}: send the data itself (image_url, file_data); no files are kept here.",
                param=param,
                code="unsupported_content",
            )
    raise InvalidRequest(
        f"{param}.type: {part.type[:100]} is not taken here.",
        param=f"{param}.type",
        code="unsupported_content",
    )


def _blocks(text: str, param: str) -> list[dict[str, Any]]:
    """What we had sealed in ``encrypted_content``; of somebody else's nothing can be read."""
    try:
        return unsealed(text) or []
    except ValueError:
        raise InvalidRequest(
            f"{param}.encrypted_content is not as it was given; send it back unchanged.",
            param=f"{param}.encrypted_content",
        ) from None


def text_item(text: str) -> bytes:
    """An input that is one text, as an item."""
    part = {"type": "input_text", "text": text}
    return msgspec.json.encode({"type": "message", "role": "user", "content": [part]})


def all_turns(
    history: Iterable[bytes], items: Iterable[tuple[bytes | Raw, str]], find: Callable[[str, str], bytes]
) -> tuple[list[dict[str, Any]], list[bytes], bool]:
    """The turns of both, the items as they are to be kept, and whether the chat is ``wide``."""
    turns = Turns(find)
    for raw in history:
        turns.take(raw, "previous_response_id")
    kept = [turns.take(raw, param) for raw, param in items]
    return turns.end(), kept, turns.wide
