"""The turns of a chat → ``systemInstruction`` and ``contents``: merged, alternating, results before words."""

from __future__ import annotations

import binascii
import re
from collections.abc import Sequence
from typing import Any, TypeAlias

import msgspec
from msgspec import Raw

from server.chat import ChatRequest
from server.foreign import (
    File,
    Part,
    Turn,
    answered_twice,
    no_call,
    no_call_id,
    odd_role,
    read_arguments,
    read_data_uri,
    read_turn,
    wrong,
)

NativePart: TypeAlias = dict[str, Any]
# gif is not among what the service takes.
IMAGE_TYPES = ("image/png", "image/jpeg", "image/webp", "image/heic", "image/heif")
# Said in the user's place where a conversation begins with the model: the first turn must be the user's.
OPENING = "Hello."
# The vendor's own word for calls that none of its models made: they bear no signature to check.
NO_SIGNATURE = "skip_thought_signature_validator"
_FILE_ID = re.compile(r"(?:https://[^\s?#]+/)?files/[a-z0-9-]{1,64}")
_AUDIO_TYPES = {"wav": "audio/wav", "mp3": "audio/mp3"}
_OBJECT = msgspec.json.Decoder(dict[str, Raw])


class Content(msgspec.Struct):
    """One turn as the service takes it. ``place`` is that of the first message that went into it.

    ``calls`` are the ids of the calls in it, ``results`` those that results in it answer.
    """

    role: str
    place: int
    parts: list[NativePart] = []
    calls: list[str] = []
    results: list[str] = []


class Conversation(msgspec.Struct, frozen=True):
    """``system`` is empty if there is none. ``warnings`` say what was adapted."""

    system: list[NativePart]
    contents: list[Content]
    warnings: list[str]


def converse(chat: ChatRequest, *, signed: bool, instructed: bool = True) -> Conversation:
    """The turns as the service takes them.

    ``signed``: the model wants calls of the current turn signed. ``instructed``: it takes a system
    instruction; if not, the system prompt begins the user's first turn.
    An image's URL that is no data URI is handed on as the place of a file: whether the service may fetch it
    is for the caller to know. Raises ``InvalidRequest`` for a role, part, call or result that it cannot take,
    or if nothing is left.
    """
    system: list[NativePart] = []
    contents: list[Content] = []
    warnings: list[str] = []
    for place, raw in enumerate(chat.raw_messages()):
        turn = read_turn(raw, place)
        if turn.role in ("system", "developer"):
            texts = _parts(turn, place)
            if not contents:
                system += texts
                continue
            _add(contents, "user", place, [_text(f"<system>{part['text']}</system>") for part in texts])
        elif turn.role == "user":
            _add(contents, "user", place, _parts(turn, place))
        elif turn.role == "assistant":
            calls = _calls(turn, place)
            _add(
                contents,
                "model",
                place,
                [*_said(turn, place), *calls],
                calls=[one.id for one in turn.tool_calls or ()],
            )
        elif turn.role == "tool":
            _add_result(contents, turn, place)
        else:
            raise odd_role(place)
    if not contents:
        if not system:
            raise wrong("messages", "hold no text; send at least one message with text", "invalid_value")
        contents, system = [Content("user", 0, system)], []
    if contents[0].role == "model":
        contents.insert(0, Content("user", 0, [_text(OPENING)]))
        warnings.append("a user's turn was put before the assistant's first")
    if system and not instructed:
        contents[0].parts[:0], system = system, []
        warnings.append("the system prompt was put into the user's first turn")
    _check_results(contents)
    _order_results(contents)
    if signed and _sign(contents):
        warnings.append("a tool call came back without its thought signature")
    return Conversation(system, contents, warnings)


def _add(
    contents: list[Content], role: str, place: int, parts: Sequence[NativePart], calls: Sequence[str] = ()
) -> Content | None:
    """Add what was said; neighbours of one role are one turn."""
    if not parts:
        return None
    if not contents or contents[-1].role != role:
        contents.append(Content(role, place))
    contents[-1].parts += parts
    contents[-1].calls += calls
    return contents[-1]


def _said(turn: Turn, place: int) -> list[NativePart]:
    """What an assistant said; the signature that came with it stands on its last part.

    Pictures, and parts of kinds that nobody here knows, come back where the answer had put them.
    """
    parts = [*_parts(turn, place), *_pictures(turn), *_objects(turn.native_parts)]
    if parts and (signature := _signature(turn.extra_content)):
        parts[-1]["thoughtSignature"] = signature
    return parts


def _pictures(turn: Turn) -> list[NativePart]:
    made: list[NativePart] = []
    for image in _objects(turn.images):
        inner = image.get("image_url")
        url = inner.get("url") if isinstance(inner, dict) else None
        if isinstance(url, str) and url.startswith("data:"):
            media, data = read_data_uri(url, "images")
            made.append({"inlineData": {"mimeType": media, "data": data}})
    return made


def _objects(raw: Raw) -> list[dict[str, Any]]:
    """The objects of a list, if it is one, without their ``index``, which was ours."""
    value = msgspec.json.decode(raw) if bytes(raw) else None
    found = [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
    return [{key: value for key, value in one.items() if key != "index"} for one in found]


def _calls(turn: Turn, place: int) -> list[NativePart]:
    parts: list[NativePart] = []
    for at, call in enumerate(turn.tool_calls or ()):
        args = read_arguments(call, f"messages[{place}].tool_calls[{at}]")
        part: NativePart = {"functionCall": {"id": call.id, "name": call.function.name, "args": args}}
        if signature := _signature(call.extra_content):
            part["thoughtSignature"] = signature
        parts.append(part)
    return parts


def _signature(extra: Raw) -> str | None:
    """The thought signature in an ``extra_content``, where the answer had put it."""
    try:
        found = msgspec.json.decode(extra)["google"]["thought_signature"]
    except (msgspec.DecodeError, KeyError, TypeError, IndexError):
        return None
    return found if isinstance(found, str) and found else None


def _add_result(contents: list[Content], turn: Turn, place: int) -> None:
    id = turn.tool_call_id
    if not id:
        raise no_call_id(place)
    called = _name_of(contents, id)
    if called is None:
        raise no_call(place)
    words, others = _result(turn, place)
    part = {"functionResponse": {"id": id, "name": called, "response": words}}
    content = _add(contents, "user", place, [part, *others])
    assert content is not None  # it has a part
    content.results.append(id)


def _name_of(contents: list[Content], id: str) -> str | None:
    """The name of the function that call ``id`` of the last model's turn called."""
    for content in reversed(contents):
        if content.role == "model":
            calls = (part["functionCall"] for part in content.parts if "functionCall" in part)
            return next((str(call["name"]) for call in calls if call["id"] == id), None)
    return None


def _result(turn: Turn, place: int) -> tuple[Any, list[NativePart]]:
    """A tool's result as an object, and what in it is no text, which stands beside it."""
    if isinstance(turn.content, str):
        return _object(turn.content), []
    parts = _parts(turn, place)
    text = "\n".join(part["text"] for part in parts if "text" in part)
    return _object(text), [part for part in parts if "text" not in part]


def _object(text: str) -> Any:
    """A JSON object as it is, any other text under a name."""
    if text.lstrip().startswith("{"):
        try:
            _OBJECT.decode(text)
            return Raw(text.encode())
        except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
            pass
    return {"result": text}


def _parts(turn: Turn, place: int) -> list[NativePart]:
    """A turn's content as parts. Empty texts are left out: the service refuses a part without data."""
    content = turn.content
    if content is None:
        return []
    if isinstance(content, str):
        return [_text(content)] if content else []
    parts = (_part(one, turn.role, f"messages[{place}].content[{at}]") for at, one in enumerate(content))
    return [part for part in parts if part is not None]


def _part(part: Part, role: str, param: str) -> NativePart | None:
    if part.type in ("text", "refusal"):
        text = (part.text if part.type == "text" else part.refusal) or ""
        return _text(text) if text else None
    if role in ("user", "tool"):
        if part.type == "image_url" and part.image_url is not None:
            return _image(part.image_url.url, f"{param}.image_url.url")
        if part.type == "input_audio" and part.input_audio is not None:
            return _audio(part.input_audio.data, part.input_audio.format, f"{param}.input_audio")
        if part.type == "file":
            return _file(part.file or File(), f"{param}.file")
    raise wrong(f"{param}.type", f"is not taken from the {role}: {part.type}", "unsupported_content")


def _image(url: str, param: str) -> NativePart:
    if url[:5].lower() != "data:":
        return {"fileData": {"fileUri": url}}
    media, data = read_data_uri(url, param)
    if media not in IMAGE_TYPES:
        raise wrong(param, f"must be one of {', '.join(IMAGE_TYPES)}", "invalid_image")
    return _inline(media, data)


def _audio(data: str, form: str, param: str) -> NativePart:
    if form not in _AUDIO_TYPES:
        raise wrong(f"{param}.format", f"must be one of {', '.join(_AUDIO_TYPES)}", "unsupported_content")
    try:
        binascii.a2b_base64(data, strict_mode=True)
    except ValueError:  # binascii.Error is one
        raise wrong(f"{param}.data", "must be base64", "unsupported_content") from None
    return _inline(_AUDIO_TYPES[form], data)


def _file(file: File, param: str) -> NativePart:
    if file.file_id is not None and not file.file_data:
        if not _FILE_ID.fullmatch(file.file_id):
            raise wrong(
                f"{param}.file_id", "must be that of a file of this upstream: files/…", "invalid_value"
            )
        return {"fileData": {"fileUri": file.file_id}}
    if not file.file_data:
        raise wrong(f"{param}.file_data", "is missing; send the file as a data URI", "unsupported_content")
    return _inline(*read_data_uri(file.file_data, f"{param}.file_data"))


def _inline(media: str, data: str) -> NativePart:
    return {"inlineData": {"mimeType": media, "data": data}}


def _text(text: str) -> NativePart:
    return {"text": text}


def _check_results(contents: list[Content]) -> None:
    """Each call has one result, in the turn that follows."""
    for content, after in zip(contents, [*contents[1:], None], strict=True):
        results = after.results if after is not None else []
        if missing := set(content.calls).difference(results):
            raise wrong(
                f"messages[{content.place}].tool_calls",
                f"has {len(missing)} of its calls without a result after it",
                "invalid_value",
            )
        if len(set(content.calls)) < len(content.calls):
            raise wrong(f"messages[{content.place}].tool_calls", "has two calls of one id", "invalid_value")
        if after is not None and len(results) > len(content.calls):
            raise answered_twice(after.place)


def _order_results(contents: list[Content]) -> None:
    """Results stand before words, in the order of their calls: models that know no ids go by it."""
    asked: list[str] = []
    for content in contents:
        if content.results:
            places = {id: at for at, id in enumerate(asked)}
            content.parts.sort(
                key=lambda part, places=places: (  # type: ignore[misc]
                    places[part["functionResponse"]["id"]] if "functionResponse" in part else len(places)
                )
            )
        asked = content.calls


def _sign(contents: list[Content]) -> bool:
    """See that each model's turn since the user last spoke is signed on its first call; was any not?"""
    lacking = False
    for content in reversed(contents):
        if content.role == "user":
            if not content.results or any("text" in part for part in content.parts):
                break
            continue
        first = next((part for part in content.parts if "functionCall" in part), None)
        if first is not None and "thoughtSignature" not in first:
            first["thoughtSignature"] = NO_SIGNATURE
            lacking = True
    return lacking
