"""The bytes of an answer → deltas: one JSON object, or one a line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Raw

from server.deltas import (
    Delta,
    Finished,
    Opening,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    Usage,
    UsageDelta,
)
from server.errors import ServerError, UpstreamCut, UpstreamEmpty, UpstreamInvalid
from server.foreign_answer import extra, nothing_but_garbage
from server.ollama_wire.errors import ollama_error

MAX_ANSWER_BYTES = 64 * 1024 * 1024
_FIGURES = (
    "prompt_eval_count",
    "eval_count",
    "total_duration",
    "load_duration",
    "prompt_eval_duration",
    "eval_duration",
)


class _Function(msgspec.Struct):
    name: str
    arguments: Raw = Raw(b"{}")


class _Call(msgspec.Struct):
    function: _Function
    id: str | None = None


class _Message(msgspec.Struct):
    content: str | None = None
    thinking: str | None = None
    tool_calls: list[_Call] | None = None
    images: list[str] | None = None


class _Line(msgspec.Struct):
    message: _Message | None = None
    done: bool = False
    done_reason: str | None = None
    error: Any = None


_LINE = msgspec.json.Decoder(_Line)
_OBJECT = msgspec.json.Decoder(dict[str, Raw])
# Of a line what is read, and what tells of the server and not of the answer.
_KNOWN = frozenset(
    {
        *_FIGURES,
        "message",
        "done",
        "done_reason",
        "error",
        "model",
        "created_at",
        "remote_model",
        "remote_host",
    }
)
_KNOWN_MESSAGE = frozenset({"role", "content", "thinking", "tool_calls", "images"})
# Why an answer ends; of any other reason nobody knows what it means, so it is told, and taken for the first.
_REASONS = ("stop", "length", "load", "unload", None)
_NOTHING = (b"null", b"[]", b"{}", b'""')


class OllamaReader:
    """Takes the bytes of one answer as they come, and says what they mean.

    A whole answer is a stream of one line, of at most ``line_bytes``. Only the line with ``done`` makes an
    answer whole. ``answer_id`` goes into the ids of calls that came without one. ``skipped`` counts lines
    that are no JSON. ``eof`` gives the last deltas, or raises. All methods raise ``ServerError``, ``feed``
    never together with deltas that came before it.
    """

    def __init__(self, answer_id: str, *, line_bytes: int = MAX_ANSWER_BYTES) -> None:
        self.done = False
        self.quiet = True
        self.skipped = 0
        self._id = answer_id
        self._line_bytes = line_bytes
        self._rest: list[bytes] = []  # the pieces of a line that has begun: joined once, when it is whole
        self._size = 0
        self._calls = 0
        self._opened = False
        self._spoken = False
        self._unknown: dict[str, Any] = {}  # fields that nobody knows, as they came last
        self._images = 0
        self._last: tuple[str, dict[str, int]] | None = None  # the reason, and the figures
        self._failed: ServerError | None = None

    def feed(self, data: bytes) -> Sequence[Delta]:
        """The deltas that these bytes complete."""
        self.quiet = not data.strip()
        self._size = self._size + len(data) if self._rest else len(data)
        if self._size > self._line_bytes:
            raise UpstreamInvalid("The upstream sent a line that is far too long.")
        *lines, rest = data.split(b"\n")
        if not lines:
            self._rest.append(data)
            return ()
        if self._rest:
            lines[0] = b"".join((*self._rest, lines[0]))
        self._rest, self._size = [rest] if rest else [], len(rest)
        return self._take_all(lines)

    def eof(self) -> Sequence[Delta]:
        """The body ended in good order: the last deltas."""
        if self._failed is not None:
            raise self._failed
        deltas: list[Delta] = []
        if self._rest and not self.done:
            deltas += self._take_all([b"".join(self._rest)], cut=True)
            if self._failed is not None:
                raise self._failed
        if self._last is None:
            if not self._opened and self.skipped:
                raise nothing_but_garbage()
            if not self._opened:
                raise UpstreamEmpty("The upstream answered with nothing at all; try again later.")
            raise UpstreamCut("The upstream's answer was cut off before its end; try again.")
        reason, figures = self._last
        if not self._spoken and reason == "stop" and not figures.get("eval_count"):
            raise UpstreamEmpty("The upstream answered without any content; try again later.")
        self.done = True
        if self._unknown:
            deltas.append(extra({"native_fields": self._unknown}))
        deltas.append(Finished("tool_calls" if self._calls and reason == "stop" else reason))
        return [*deltas, UsageDelta(_usage(figures))] if figures else deltas

    def _take_all(self, lines: list[bytes], *, cut: bool = False) -> Sequence[Delta]:
        deltas: list[Delta] = []
        try:
            for line in lines:
                if not self.done and (line := line.strip()):
                    deltas += self._take(line, cut=cut)
        except ServerError as error:
            self.done = True
            if not deltas:
                raise
            self._failed = error  # what was said before it is said
        return deltas

    def _take(self, data: bytes, *, cut: bool) -> list[Delta]:
        """``cut``: no line end came behind it, so half of one is no garbage but a cut.

        A line that is no JSON at all is passed over.
        """
        try:
            line = _LINE.decode(data)
        except msgspec.ValidationError:
            raise UpstreamInvalid("The upstream's answer is no chat of Ollama's; check base_url.") from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            if cut and data.startswith(b"{"):
                raise UpstreamCut("The upstream's answer was cut off before its end; try again.") from None
            if data.startswith(b"<"):
                raise UpstreamInvalid(
                    "The upstream answered with a web page; check base_url of the channel."
                ) from None
            self.skipped += 1
            return []
        if line.error:
            raise ollama_error(500, data)
        if line.message is None and not line.done:
            raise UpstreamInvalid("The upstream's answer is no chat of Ollama's; check base_url.")
        deltas: list[Delta] = [] if self._opened else [Opening()]
        self._opened = True
        deltas += self._said(line.message or _Message())
        self._unknown |= _unknown(data)
        if line.done:
            self.done = True
            if line.done_reason not in _REASONS:
                self._unknown["done_reason"] = line.done_reason
            self._last = ("length" if line.done_reason == "length" else "stop", _figures(data))
        return deltas

    def _said(self, message: _Message) -> list[Delta]:
        deltas: list[Delta] = []
        if message.thinking:
            deltas.append(ReasoningDelta(message.thinking))
        if message.content:
            deltas.append(TextDelta(message.content))
        for call in message.tool_calls or ():
            id = call.id or f"call_{self._id}_{self._calls}"
            arguments = bytes(call.function.arguments).decode()
            deltas.append(ToolCallDelta(self._calls, id, call.function.name, arguments))
            self._calls += 1
        if message.images:
            pictures = [
                {"index": at, "type": "image_url", "image_url": {"url": _uri(data)}}
                for at, data in enumerate(message.images, self._images)
            ]
            self._images += len(pictures)
            deltas.append(extra({"images": pictures}))
        self._spoken |= bool(deltas)
        return deltas


def _uri(data: str) -> str:
    """A picture as a data URI; its first bytes tell its type."""
    kinds = {"iVBORw0KGgo": "png", "/9j/": "jpeg", "R0lGOD": "gif", "UklGR": "webp"}
    kind = next((kind for begins, kind in kinds.items() if data.startswith(begins)), "png")
    return f"data:image/{kind};base64,{data}"


def _unknown(data: bytes) -> dict[str, Any]:
    """The fields of a line that nobody knows."""
    fields = _OBJECT.decode(data)
    more = {key: value for key, value in fields.items() if key not in _KNOWN}
    if bytes(message := fields.get("message", Raw(b"null"))).startswith(b"{"):
        more |= {key: value for key, value in _OBJECT.decode(message).items() if key not in _KNOWN_MESSAGE}
    return {key: msgspec.json.decode(value) for key, value in more.items() if bytes(value) not in _NOTHING}


def _figures(data: bytes) -> dict[str, int]:
    """What the last line counts: tokens, and durations in nanoseconds."""
    found = msgspec.json.decode(data)
    return {name: found[name] for name in _FIGURES if type(found.get(name)) is int and found[name] >= 0}


def _usage(figures: dict[str, int]) -> Usage:
    """The figures in our terms; the server's own are kept beside them. A cached prompt is counted by none."""
    prompt, completion = figures.get("prompt_eval_count", 0), figures.get("eval_count", 0)
    fields = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "native_usage": figures,
    }
    return Usage(prompt, completion, prompt + completion, raw=msgspec.json.encode(fields))
