"""A chat's messages → the list that Spark takes.

Spark wants user and assistant in turn, the user's question last, a system prompt only first and only on some
versions, no tool turns, no empty turn, and an image as the first message. What does not fit is rewritten so
that nothing that was said is lost; what cannot be rewritten is refused with its place.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence

import msgspec

from server.chat import ChatRequest, ImageUrl, Message
from server.errors import InvalidRequest
from server.foreign import Calls, read_turn
from server.foreign import Turn as Asked
from server.spark.models import SparkModel

MAX_IMAGE_BYTES = 4 * 1024 * 1024
_IMAGE = re.compile(r"data:image/(?:jpe?g|png);base64,", re.IGNORECASE)
_TEXT_PARTS = frozenset({"text", "image_url", "refusal"})
# Between an assistant's turn and what must come from the user.
OPENING = "Hello."
GO_ON = "Continue."


class Turn(msgspec.Struct, frozen=True, omit_defaults=True):
    """One message as Spark takes it."""

    role: str
    content: str
    content_type: str | None = None


def shape(chat: ChatRequest, model: SparkModel, instruction: str = "") -> list[Turn]:
    """The turns for ``model``; ``instruction`` is added to the system prompt.

    Raises ``InvalidRequest`` for a role, part or image that this model cannot take, or if nothing is left.
    """
    for place, message in enumerate(chat.messages):
        _check_parts(message, place)
    system, turns = _read([read_turn(raw, place) for place, raw in enumerate(chat.raw_messages())])
    if not turns:
        if not system:
            raise InvalidRequest("The messages are empty; send at least one with text.", param="messages")
        turns, system = [("user", "\n\n".join(system))], []
    if turns[0][0] == "assistant":
        turns.insert(0, ("user", OPENING))
    if turns[-1][0] == "assistant":
        turns.append(("user", GO_ON))
    merged = _merge(turns)
    prompt = "\n\n".join([*system, instruction] if instruction else system)
    image = _image(chat.messages, model)
    shaped = [Turn(role, content, "text" if image else None) for role, content in merged]
    if prompt and model.system:
        shaped.insert(0, Turn("system", prompt))
    elif prompt:
        shaped[0] = msgspec.structs.replace(shaped[0], content=f"{prompt}\n\n{shaped[0].content}")
    return [Turn("user", image, "image"), *shaped] if image else shaped


def _read(messages: Sequence[Asked]) -> tuple[list[str], list[tuple[str, str]]]:
    """System prompts, and the other turns as user or assistant; empty ones are left out."""
    system: list[str] = []
    turns: list[tuple[str, str]] = []
    called = Calls()
    for place, message in enumerate(messages):
        text = _text(message)
        match message.role:
            case "system" | "developer":
                if text.strip():
                    system.append(text)
                continue
            case "user":
                turn = ("user", text)
            case "assistant":
                calls = message.tool_calls or []
                for call in calls:
                    called.made(call.id, call.function.name)
                said = [f"Call {call.function.name} with {call.function.arguments}" for call in calls]
                turn = ("assistant", "\n".join([text, *said] if text.strip() else said))
            case "tool":
                name = called.answered(message.tool_call_id, place)
                turn = ("user", f"Result of {message.name or name}: {text}")
            case "function":
                turn = ("user", f"Result of {message.name or 'the function'}: {text}")
            case _:
                raise InvalidRequest(
                    f"messages[{place}].role must be system, developer, user, assistant or tool.",
                    param=f"messages[{place}].role",
                )
        if turn[1].strip():
            turns.append(turn)
    return system, turns


def _merge(turns: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Neighbours of one role become one turn, a line each."""
    merged: list[tuple[str, list[str]]] = []
    for role, content in turns:
        if merged and merged[-1][0] == role:
            merged[-1][1].append(content)
        else:
            merged.append((role, [content]))
    return [(role, "\n".join(contents)) for role, contents in merged]


def _text(message: Asked) -> str:
    """The text of a turn, and what it refused, a line each."""
    if not isinstance(message.content, list):
        return message.content or ""
    return "\n".join(filter(None, (part.text or part.refusal for part in message.content)))


def _check_parts(message: Message, place: int) -> None:
    if not isinstance(message.content, list):
        return
    for number, part in enumerate(message.content):
        if part.type not in _TEXT_PARTS:
            param = f"messages[{place}].content[{number}].type"
            raise InvalidRequest(f"{param}: Spark takes text and images, no {part.type}.", param=param)


def _image(messages: Sequence[Message], model: SparkModel) -> str:
    """The newest image in plain base64, "" for a text model. Images of earlier turns are left out."""
    bearing = [(place, message) for place, message in enumerate(messages) if message.images]
    if not model.vision:
        if bearing:
            param = f"messages[{bearing[0][0]}].content"
            raise InvalidRequest(
                f"{model.name} takes no images; send them to a vision model.",
                param=param,
                code="unsupported_content",
            )
        return ""
    if not bearing:
        raise InvalidRequest(
            f"{model.name} needs an image; send one, or ask a text model.",
            param="messages",
            code="missing_image",
        )
    place, message = bearing[-1]
    if len(message.images) > 1:
        raise InvalidRequest(
            f"{model.name} takes one image a request, messages[{place}] has {len(message.images)}.",
            param=f"messages[{place}].content",
            code="too_many_images",
        )
    return _base64(message.images[0], f"messages[{place}].content")


def _base64(image: ImageUrl, param: str) -> str:
    match = _IMAGE.match(image.url)
    if match is None:
        raise _bad_image("the image must be a jpg or png in a base64 data URI", param)
    data = "".join(image.url[match.end() :].split())
    try:
        size = len(base64.b64decode(data, validate=True))
    except (binascii.Error, ValueError):
        raise _bad_image("the image is not base64", param) from None
    if not 0 < size <= MAX_IMAGE_BYTES:
        raise _bad_image(f"the image has {size} bytes; Spark takes 1 to {MAX_IMAGE_BYTES}", param)
    return data


def _bad_image(why: str, param: str) -> InvalidRequest:
    return InvalidRequest(f"{param}: {why}.", param=param, code="invalid_image")
