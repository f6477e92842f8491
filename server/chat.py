"""What is asked: a chat request as lossless JSON with a typed view over it.

The JSON of OpenAI's chat completions is the canonical form. The client's own bytes travel: an edit replaces,
adds or removes whole top-level values and leaves every other byte as it came, so unknown fields, big
integers, ``1.0`` against ``1``, nulls and empty lists survive. The typed view (``ChatFields``) is decoded
once, and is what an upstream of another dialect reads.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec
from msgspec import Raw

from server.errors import InvalidRequest

# Possessive, so that a key of many megabytes costs no memory for places to turn back to.
_KEY = re.compile(rb'[ \t\r\n]*"([^"\\]*+(?:\\.[^"\\]*+)*+)"[ \t\r\n]*:[ \t\r\n]*', re.DOTALL)
_AFTER = re.compile(rb"[ \t\r\n]*([,}])")
_OPEN = re.compile(rb"[ \t\r\n]*\{")
_RAW_OBJECT = msgspec.json.Decoder(dict[str, Raw])


class ImageUrl(msgspec.Struct, frozen=True):
    """Where an image is: an http(s) URL or a data URI."""

    url: str
    detail: str | None = None


class Part(msgspec.Struct, frozen=True):
    """One part of a message's content; what has no name here stays in the bytes."""

    type: str
    text: str | None = None
    image_url: ImageUrl | None = None


class Message(msgspec.Struct, frozen=True):
    """One turn. ``content`` is text, parts, or None (an assistant's turn that only calls tools)."""

    role: str
    content: str | list[Part] | None = None
    name: str | None = None
    tool_calls: list[Raw] | None = None
    tool_call_id: str | None = None

    @property
    def text(self) -> str:
        """The text of the turn, its text parts joined by newlines."""
        if isinstance(self.content, str):
            return self.content
        return "\n".join(part.text for part in self.content or () if part.text)

    @property
    def images(self) -> list[ImageUrl]:
        """The turn's images, in order."""
        if not isinstance(self.content, list):
            return []
        return [part.image_url for part in self.content if part.type == "image_url" and part.image_url]


class StreamOptions(msgspec.Struct, frozen=True):
    """``stream_options`` as far as we act on it."""

    include_usage: bool | None = None


class ChatFields(msgspec.Struct, frozen=True):
    """The known fields, their types checked; null counts as absent. Ranges are the upstream's to judge."""

    model: str | None = None
    messages: list[Message] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    stop: str | list[str] | None = None
    seed: int | float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    user: str | None = None
    tools: list[Raw] | None = None
    tool_choice: str | dict[str, Raw] | None = None
    parallel_tool_calls: bool | None = None
    response_format: dict[str, Raw] | None = None
    metadata: dict[str, Raw] | None = None
    antiphon: dict[str, Raw] | None = None
    conversation_id: str | None = None


_FIELDS = msgspec.json.Decoder(ChatFields)
_RAW_MESSAGES = msgspec.json.Decoder(list[Raw])


class JsonObject:
    """A JSON object as its bytes and the place of each top-level value.

    Raises ``msgspec.DecodeError`` if the bytes are not JSON, ``msgspec.ValidationError`` if they are not an
    object, and ``InvalidRequest`` (``duplicate_key``) if a top-level key stands twice.
    """

    __slots__ = ("_places", "_values", "data")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self._values = _RAW_OBJECT.decode(data)
        # Places are only needed for an edit. Written without blanks, as SDKs do, the pairs that the decoder
        # kept fill the whole object exactly if none stood twice.
        compact = _compact_length(self._values) == len(data)
        self._places = None if compact else _top_level(data, self._values)

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def raw(self, key: str) -> bytes | None:
        """The bytes of a value, or None if the key is absent."""
        value = self._values.get(key)
        return None if value is None else bytes(value)

    @property
    def _spans(self) -> dict[str, tuple[int, int, int]]:
        if self._places is None:
            self._places = _top_level(self.data, self._values)
        return self._places

    def edit(self, changes: Mapping[str, bytes | None]) -> bytes:
        """The object with values replaced or added (JSON) or removed (None); the rest byte for byte."""
        if any(value is None and key in self._spans for key, value in changes.items()):
            return self._rebuild(changes)
        pieces: list[bytes] = []
        at = 0
        for key, (_, start, end) in self._spans.items():
            value = changes.get(key)
            if value is not None:
                pieces += (self.data[at:start], value)
                at = end
        added = [
            msgspec.json.encode(key) + b":" + value
            for key, value in changes.items()
            if value is not None and key not in self._spans
        ]
        if not added:
            pieces.append(self.data[at:])
            return b"".join(pieces)
        close = self.data.rindex(b"}")
        pieces += (self.data[at:close], b"," if self._spans else b"", b",".join(added), self.data[close:])
        return b"".join(pieces)

    def _rebuild(self, changes: Mapping[str, bytes | None]) -> bytes:
        pairs = []
        for key, (key_start, start, end) in self._spans.items():
            if key not in changes:
                pairs.append(self.data[key_start:end])
            elif (value := changes[key]) is not None:
                pairs.append(self.data[key_start:start] + value)
        pairs += [
            msgspec.json.encode(key) + b":" + value
            for key, value in changes.items()
            if value is not None and key not in self._spans
        ]
        return b"{" + b",".join(pairs) + b"}"


def _compact_length(values: dict[str, Raw]) -> int:
    """Bytes of an object of these pairs without any blanks and with plain ASCII keys; 0 if a key is not."""
    length = 1 + len(values)  # the braces, and a comma between pairs
    for key, value in values.items():
        if not key.isascii():
            return 0
        length += len(key) + 3 + memoryview(value).nbytes
    return length


def _top_level(data: bytes, values: dict[str, Raw]) -> dict[str, tuple[int, int, int]]:
    """Key → (start of the key's pair, start of its value, end of its value), in order.

    The decoder has already checked the syntax and keeps the last value of a double key; so where the bytes do
    not go on with the value that it kept, a key stood twice. That needs no scanner of our own.
    """
    spans: dict[str, tuple[int, int, int]] = {}
    opening = _OPEN.match(data)
    assert opening is not None  # the decoder saw an object
    at = opening.end()
    while len(spans) < len(values):
        match = _KEY.match(data, at)
        if match is None:
            raise _duplicate_key()
        name = match[1]
        key: str = msgspec.json.decode(b'"' + name + b'"') if b"\\" in name else name.decode()
        value = bytes(values[key])
        start = match.end()
        if key in spans or not data.startswith(value, start):
            raise _duplicate_key(key)
        end = start + len(value)
        spans[key] = (match.start() + _leading_blanks(match[0]), start, end)
        after = _AFTER.match(data, end)
        if after is None:
            raise _duplicate_key(key)
        at = after.end()
    if values and after is not None and after[1] == b",":
        raise _duplicate_key()
    return spans


def _leading_blanks(text: bytes) -> int:
    return len(text) - len(text.lstrip(b" \t\r\n"))


def _duplicate_key(key: str | None = None) -> InvalidRequest:
    which = f"The key {key!r}" if key else "A key"
    return InvalidRequest(
        f"{which} stands twice in the request body; send it once.", param=key, code="duplicate_key"
    )


class ChatRequest:
    """One chat request. Immutable: an edit makes a new one.

    ``fields`` is the typed view, ``model`` the name that the client asked for ("" if it named none),
    ``stream`` whether it wants a stream. ``openai_wire.parse_chat`` makes one from a client's bytes, after
    checking them; building one from bytes that were not checked may raise ``msgspec.ValidationError``.
    ``wide``: it may hold fields of Anthropic's dialect, which a client of that dialect has sent;
    ``openai_wire.narrowed`` takes them out for an upstream that does not know them.
    """

    __slots__ = ("fields", "json", "model", "stream", "wide")

    def __init__(self, json: JsonObject, fields: ChatFields | None = None, *, wide: bool = False) -> None:
        self.json = json
        self.wide = wide
        self.fields = fields = _FIELDS.decode(json.data) if fields is None else fields
        self.model = fields.model or ""
        self.stream = bool(fields.stream)

    @property
    def body(self) -> bytes:
        """The request as one JSON object."""
        return self.json.data

    @property
    def messages(self) -> list[Message]:
        """The turns, oldest first."""
        return self.fields.messages or []

    @property
    def include_usage(self) -> bool:
        """Does the client want the usage chunk of a stream?"""
        options = self.fields.stream_options
        return bool(options and options.include_usage)

    @property
    def choices(self) -> int:
        """How many choices are asked for."""
        return self.fields.n or 1

    @property
    def max_tokens(self) -> int | None:
        """The client's limit for the answer, by whichever name it came."""
        fields = self.fields
        return fields.max_tokens if fields.max_completion_tokens is None else fields.max_completion_tokens

    @property
    def last_turn(self) -> Message | None:
        """The last user turn, which decides on vision; None if there is none."""
        return next((turn for turn in reversed(self.messages) if turn.role == "user"), None)

    def has(self, key: str) -> bool:
        """Did the client send this top-level field with a value other than null?"""
        value = self.json.raw(key)
        return value is not None and value != b"null"

    def raw_messages(self) -> list[bytes]:
        """Each turn's JSON, byte for byte."""
        raw = self.json.raw("messages")
        return [] if raw is None or raw == b"null" else [bytes(one) for one in _RAW_MESSAGES.decode(raw)]

    def edit(self, changes: Mapping[str, bytes | None]) -> ChatRequest:
        """A request with top-level values replaced, added (bytes of JSON) or removed (None)."""
        return ChatRequest(JsonObject(self.json.edit(changes)), wide=self.wide) if changes else self

    def with_values(self, **values: Any) -> ChatRequest:
        """A request with top-level values set; None removes a field."""
        return self.edit(
            {key: None if value is None else msgspec.json.encode(value) for key, value in values.items()}
        )

    def with_messages(self, messages: Iterable[bytes]) -> ChatRequest:
        """A request with other turns, each given as JSON."""
        return self.edit({"messages": b"[" + b",".join(messages) + b"]"})
