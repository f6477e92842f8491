"""What one frame of Spark's holds. Lenient in shape, for the vendor's versions differ; strict in sense."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from msgspec import Raw

from server.deltas import Usage
from server.errors import UpstreamInvalid

LAST = 2


class Header(msgspec.Struct, frozen=True):
    """Who answers and how it stands. ``status``: 0 first, 1 middle, 2 last; absent in some."""

    code: int
    message: str | None = None
    sid: str | None = None
    status: int | None = None


class FunctionCall(msgspec.Struct, frozen=True):
    """A call of one function; ``arguments`` is a string of JSON, or in some versions the JSON itself."""

    name: str | None = None
    arguments: Any = None

    @property
    def text(self) -> str:
        """The arguments as a string of JSON."""
        if self.arguments is None:
            return ""
        return (
            self.arguments
            if isinstance(self.arguments, str)
            else json.dumps(self.arguments, ensure_ascii=False)
        )


class ToolCall(msgspec.Struct, frozen=True):
    """The same in the shape of the HTTP flavours."""

    function: FunctionCall | None = None


class Item(msgspec.Struct, frozen=True):
    """One piece of the answer."""

    content: str | None = None
    reasoning_content: str | None = None
    function_call: FunctionCall | None = None
    tool_calls: list[ToolCall] | ToolCall | None = None

    @property
    def calls(self) -> list[FunctionCall]:
        """The calls of this piece, whichever shape they came in."""
        found = [self.function_call] if self.function_call else []
        wrapped = self.tool_calls if isinstance(self.tool_calls, list) else [self.tool_calls]
        return found + [call.function for call in wrapped if call is not None and call.function]


class Choices(msgspec.Struct, frozen=True):
    """The answer's part of a frame."""

    status: int | None = None
    text: list[Item] | None = None


class UsageText(msgspec.Struct, frozen=True):
    """Tokens; ``question_tokens`` is the last question alone."""

    question_tokens: int | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None

    def usage(self, *, legacy: bool) -> Usage:
        """Our figures; ``legacy`` keeps ``question_tokens`` among what a client sees."""
        prompt, completion = self.prompt_tokens or 0, self.completion_tokens or 0
        total = prompt + completion if self.total_tokens is None else self.total_tokens
        if not legacy:
            return Usage(prompt, completion, total)
        fields = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": total}
        raw = msgspec.json.encode(fields | {"question_tokens": self.question_tokens or 0})
        return Usage(prompt, completion, total, raw=raw)


class UsageField(msgspec.Struct, frozen=True):
    """The wrapper of the figures."""

    text: UsageText | None = None


class PluginItem(msgspec.Struct, frozen=True):
    """What a plugin of Spark's own found; ``content`` is a string of JSON."""

    name: str | None = None
    content: str | None = None


class Plugins(msgspec.Struct, frozen=True):
    """The plugins' part of a frame."""

    text: list[PluginItem] | None = None


class Payload(msgspec.Struct, frozen=True):
    """What a frame brings. A plugin's frame has no choices, an error's nothing at all."""

    choices: Choices | None = None
    usage: UsageField | None = None
    plugins: Plugins | None = None


class Frame(msgspec.Struct, frozen=True):
    """One message of Spark's."""

    header: Header
    payload: Payload | None = None

    @property
    def is_last(self) -> bool:
        """Either status may say so."""
        choices = self.payload.choices if self.payload else None
        return self.header.status == LAST or (choices is not None and choices.status == LAST)


class _Envelope(msgspec.Struct):
    header: Header
    payload: Raw = Raw(b"null")


class Source(msgspec.Struct, frozen=True):
    """A page that the web search found; ``index`` is its number in the text's references."""

    url: str
    title: str = ""
    index: int | str | None = None


# Not strict: some versions write numbers as strings.
_ENVELOPE = msgspec.json.Decoder(_Envelope, strict=False)
_PAYLOAD = msgspec.json.Decoder(Payload | None, strict=False)
_SOURCES = msgspec.json.Decoder(list[Raw], strict=False)
_SOURCE = msgspec.json.Decoder(Source, strict=False)


def decode_frame(frame: str | bytes) -> Frame:
    """Read one frame, text or bytes. Its strings may hold halves of surrogate pairs (``PairJoiner``).

    Raises ``UpstreamInvalid`` if it is no frame of Spark's. An error's header is read even where the payload
    makes no sense.
    """
    try:
        data = frame.encode() if isinstance(frame, str) else frame
        return _decode(data)
    except (msgspec.DecodeError, UnicodeError):  # halves of pairs too, escaped or not
        return _decode_halves(frame)
    except RecursionError:
        raise _unreadable("nests too deep") from None


def _decode(data: bytes) -> Frame:
    envelope = _ENVELOPE.decode(data)
    try:
        return Frame(envelope.header, _PAYLOAD.decode(envelope.payload))
    except (msgspec.DecodeError, UnicodeDecodeError):
        if envelope.header.code == 0:
            raise
        return Frame(envelope.header)  # the code says what is wrong; what came with it is of no use


def _decode_halves(frame: str | bytes) -> Frame:
    """The same by the slower decoder, which lets half a surrogate pair stand."""
    try:
        value = json.loads(frame)
        return msgspec.convert(value, Frame, strict=False)
    except msgspec.ValidationError as error:
        raise _unreadable(f"is not in Spark's form: {error}") from None
    except (ValueError, RecursionError):
        raise _unreadable("is not JSON") from None


def _unreadable(why: str) -> UpstreamInvalid:
    return UpstreamInvalid(f"A frame of Spark's {why}; try again later.")


def decode_sources(content: str | None) -> list[Source]:
    """The sources in a plugin's ``content``; what cannot be read is passed over, for it is no answer."""
    try:
        raw = _SOURCES.decode(content or "[]")
    except (msgspec.DecodeError, UnicodeEncodeError):
        return []
    found = []
    for one in raw:
        try:
            found.append(_SOURCE.decode(one))
        except msgspec.DecodeError:
            continue  # without a URL it is no source
    return found
