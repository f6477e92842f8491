"""A chat as the wires of other dialects read it: typed turns, tools and values, and how they refuse one.

What a dialect makes of them is its own; what a client may send, and the words for what it may not, is the
same for all.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import Raw

from server.chat import ChatRequest
from server.errors import InvalidRequest

# So many are told one by one.
MOST_WARNINGS = 16
_PLAIN_KEY = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_DATA_URI = re.compile(r"data:(?P<type>[\w.+-]+/[\w.+-]+)?(?:;[^;,]*)*?;base64,", re.IGNORECASE)


AFTER = "antiphon_after"
"""The field of a block of thoughts that tells how many texts and calls of its turn stood before it."""
FIELDS = "anthropic_fields"
"""The field of a wide chat that holds those fields of a Messages request which have no name here."""
OWN_PART = "anthropic_block"
"""The type of a part that is nothing but a block of a Messages request, as it came."""
SCHEMA = "response_format.json_schema.schema"
"""Where the schema of an answer stands."""
OWN_EXTRA = "anthropic"
"""What is Anthropic's own within the ``extra_content`` of a call."""
SERVICE_TIERS = (b'"auto"', b'"standard_only"')
"""Anthropic's, as JSON."""


class Url(msgspec.Struct):
    """Where something is: an http(s) URL or a data URI."""

    url: str


class File(msgspec.Struct):
    """A file: its data as a data URI, or the id that the upstream gave it."""

    file_data: str | None = None
    filename: str | None = None
    file_id: str | None = None


class Audio(msgspec.Struct):
    """A sound: base64, and ``wav`` or ``mp3``."""

    data: str
    format: str


class Part(msgspec.Struct):
    """One part of a turn."""

    type: str
    text: str | None = None
    refusal: str | None = None
    image_url: Url | None = None
    file: File | None = None
    input_audio: Audio | None = None
    cache_control: Raw = Raw()
    citations: Raw = Raw()
    anthropic_block: dict[str, Raw] | None = None  # it, or more of it, as a client of that dialect sent it


class Called(msgspec.Struct):
    """The function of a call; ``arguments`` is JSON in a string."""

    name: str
    arguments: str = ""


class Call(msgspec.Struct):
    """A tool call that an assistant's turn made."""

    id: str
    function: Called
    extra_content: Raw = Raw()
    cache_control: Raw = Raw()


class Turn(msgspec.Struct):
    """One message, with the fields of vendors that a client gives back."""

    role: str
    content: str | list[Part] | None = None
    name: str | None = None
    tool_calls: list[Call] | None = None
    tool_call_id: str | None = None
    thinking_blocks: list[dict[str, Raw]] | None = None
    is_error: bool | None = None
    refusal: str | None = None
    function_call: Raw = Raw()
    extra_content: Raw = Raw()
    cache_control: Raw = Raw()
    images: Raw = Raw()
    native_parts: Raw = Raw()
    annotations: Raw = Raw()
    native_citations: Raw = Raw()


class Function(msgspec.Struct):
    """A function that the model may call."""

    name: str
    description: str | None = None
    parameters: Raw = Raw()
    strict: bool | None = None


class Tool(msgspec.Struct):
    """A tool; only functions are known here."""

    function: Function


class _Kind(msgspec.Struct):
    type: str


class NativeRequest(msgspec.Struct, frozen=True):
    """The body, and in short ASCII words what was left out or changed on the way."""

    body: bytes
    warnings: tuple[str, ...]


_TURN = msgspec.json.Decoder(Turn)
_TOOL = msgspec.json.Decoder(Tool)
_KIND = msgspec.json.Decoder(_Kind)
_OBJECT = msgspec.json.Decoder(dict[str, Raw])


def read_turn(raw: bytes, place: int) -> Turn:
    """The turn at ``place``; a refusal is what was said. Raises ``InvalidRequest`` that names what is bad."""
    try:
        turn = _TURN.decode(raw)
    except msgspec.ValidationError as error:
        what, _, path = str(error).partition(" - at `$")
        raise wrong(
            f"messages[{place}]{path.rstrip('`')}", f"cannot be read: {what}", "invalid_type"
        ) from None
    if bytes(turn.function_call) not in (b"", b"null"):
        raise unsupported(f"messages[{place}].function_call", "is out of date; send tool_calls")
    if turn.content is None:
        turn.content = turn.refusal
    return turn


class Calls:
    """The calls that assistants' turns made so far, for the results that answer them."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}  # id → the function's name
        self._answered: set[str] = set()

    def made(self, id: str, name: str) -> None:
        """A turn made this call; an id of an earlier turn is one anew."""
        self._names[id] = name
        self._answered.discard(id)

    def answered(self, id: str | None, place: int) -> str:
        """The name of the function whose result the turn at ``place`` is. Raises ``InvalidRequest``."""
        if not id:
            raise no_call_id(place)
        name = self._names.get(id)
        if name is None:
            raise no_call(place)
        if id in self._answered:
            raise answered_twice(place)
        self._answered.add(id)
        return name


def no_call_id(place: int) -> InvalidRequest:
    """The refusal of a result that does not say what it is the result of."""
    what = "is missing; it names the call that this is the result of"
    return wrong(f"messages[{place}].tool_call_id", what, "missing_required_parameter")


def no_call(place: int) -> InvalidRequest:
    """The refusal of a result whose call nobody made."""
    what = "answers no call of an assistant's turn before it"
    return wrong(f"messages[{place}].tool_call_id", what, "invalid_value")


def answered_twice(place: int) -> InvalidRequest:
    """The refusal of a second result of one call."""
    return wrong(f"messages[{place}].tool_call_id", "answers a call that has its result", "invalid_value")


def odd_role(place: int) -> InvalidRequest:
    """The refusal of a turn of no role that is known."""
    return wrong(
        f"messages[{place}].role", "must be system, developer, user, assistant or tool", "invalid_value"
    )


def read_tool(raw: Raw, at: int) -> Tool:
    """Tool ``at`` of the request. Raises ``InvalidRequest`` for anything but a function."""
    try:
        if not is_function(raw):
            raise unsupported(f"tools[{at}].type", "must be function for this model")
        return _TOOL.decode(raw)
    except msgspec.ValidationError:
        raise wrong(f"tools[{at}]", "must be a function with a name", "invalid_type") from None


def is_function(tool: Raw) -> bool:
    """Is it a function, and no tool that a service itself knows? Raises ``msgspec.ValidationError``."""
    return _KIND.decode(tool).type == "function"


def tool_choice(chat: ChatRequest) -> tuple[str, str | None] | None:
    """``auto``, ``none``, ``required`` or ``function`` with its name; None if the client did not say."""
    asked = decoded(chat, "tool_choice")
    if asked is None:
        return None
    if isinstance(asked, str) and asked in ("auto", "none", "required"):
        return asked, None
    function = asked.get("function") if isinstance(asked, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str) or not name:
        raise wrong("tool_choice", "must be auto, none, required or name a function", "invalid_value")
    return "function", name


def refuse_outdated(chat: ChatRequest) -> None:
    """Raise ``InvalidRequest`` for fields that tools have replaced."""
    for key in ("functions", "function_call"):
        if chat.has(key):
            raise unsupported(key, "is out of date; send tools and tool_choice")


def refuse_two_limits(chat: ChatRequest) -> None:
    """Raise ``InvalidRequest`` for two limits of the answer that contradict each other."""
    limits = {chat.fields.max_tokens, chat.fields.max_completion_tokens} - {None}
    if len(limits) > 1:
        raise wrong(
            "max_tokens", "says something else than max_completion_tokens; send one of them", "invalid_value"
        )


def refuse_logprobs(chat: ChatRequest) -> None:
    """Raise ``InvalidRequest`` if log probabilities are asked for."""
    for key in ("logprobs", "top_logprobs"):
        if getattr(chat.fields, key):
            raise unsupported(key, "cannot be had from this model; leave it out")


def refuse_audio(chat: ChatRequest) -> None:
    """Raise ``InvalidRequest`` if a spoken answer is asked for."""
    if chat.has("audio"):
        raise unsupported("audio", "cannot be had: this model does not speak; leave it out")
    if b"audio" in (chat.json.raw("modalities") or b""):
        raise unsupported("modalities", "may name text only: this model speaks no audio")


def schema_asked(chat: ChatRequest) -> dict[str, Any] | None:
    """The schema of ``response_format``, with the description that stands beside it; None if it has none.

    Its name is a label, and a model that is held to schemas at all is held to them strictly.
    """
    asked = decoded(chat, "response_format")
    if asked is None or asked.get("type") != "json_schema":
        return None
    given = asked.get("json_schema")
    schema = given.get("schema") if isinstance(given, dict) else None
    if not isinstance(schema, dict):
        raise wrong(SCHEMA, "is missing; it is an object", "missing_required_parameter")
    told = given.get("description")
    return {"description": told} | schema if isinstance(told, str) else schema


def read_arguments(call: Call, param: str) -> Raw:
    """A call's arguments as a JSON object. Raises ``InvalidRequest`` that names ``param``."""
    arguments = call.function.arguments.strip() or "{}"
    try:
        _OBJECT.decode(arguments)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        raise wrong(
            f"{param}.function.arguments", "must be a JSON object in a string", "invalid_value"
        ) from None
    return Raw(arguments.encode())


def read_data_uri(uri: str, param: str) -> tuple[str, str]:
    """Media type and base64 data of a data URI. Raises ``InvalidRequest`` that names ``param``."""
    match = _DATA_URI.match(uri)
    data = uri[match.end() :] if match else ""
    try:
        if not match or not binascii.a2b_base64(data, strict_mode=True):
            raise ValueError
    except ValueError:  # binascii.Error is one
        raise wrong(param, "must be a data URI with base64 data", "invalid_image") from None
    media = (match["type"] or "").lower()
    return ("image/jpeg" if media == "image/jpg" else media), data


def decoded(chat: ChatRequest, key: str) -> Any:
    """A top-level value; None if it is null or absent."""
    raw = chat.json.raw(key)
    return None if raw is None else msgspec.json.decode(raw)


def left_out(chat: ChatRequest, known: Iterable[str]) -> list[str]:
    """A warning for each field that the client sent and that nobody here knows."""
    return [f"{plain_key(key)} was left out" for key in chat.json if key not in known and chat.has(key)]


def shortened(warnings: list[str]) -> tuple[str, ...]:
    """The warnings, or the first of them and how many more there are."""
    more = len(warnings) - MOST_WARNINGS
    return (*warnings[:MOST_WARNINGS], f"and {more} more") if more > 0 else tuple(warnings)


def plain_key(key: str) -> str:
    """A field's name, if it can stand in a log and in a header."""
    return key if _PLAIN_KEY.fullmatch(key) else "a field of an odd name"


def wrong(param: str, what: str, code: str) -> InvalidRequest:
    """The refusal of what a client sent."""
    return InvalidRequest(f"{param} {what}.", param=param, code=code)


def unsupported(param: str, what: str) -> InvalidRequest:
    """The refusal of what may be sent, but not to this model."""
    return wrong(param, what, "unsupported_parameter")
