"""The bytes of an answer → deltas, whether a stream, one object or an array of them came."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Raw

from server.deltas import Delta, Usage, UsageDelta
from server.errors import ContentFiltered, ServerError, UpstreamCut, UpstreamEmpty, UpstreamInvalid
from server.gemini_wire.candidates import Candidates
from server.gemini_wire.errors import fault_error
from server.gemini_wire.events import Said, decode_list, decode_said
from server.sse import EventTooLarge, SSEDecoder

# The service never says so; proxies that serve its dialect do.
_DONE = b"[DONE]"
MAX_ANSWER_BYTES = 64 * 1024 * 1024


class GeminiReader:
    """Takes the bytes of one answer as they come, and says what they mean.

    The first byte that is not blank decides what came, whatever was asked for. The service ends a stream by
    closing it, so ``eof`` gives the last deltas, or raises: only a finish reason makes an answer whole.
    ``done`` is true when nothing more is to be read, which is after an error. ``answer_id`` goes into the ids
    of calls that came without one. ``skipped`` counts what nobody knows. ``quiet``: what ``feed`` took last
    was no more than comments. All methods raise ``ServerError``, ``feed`` never together with deltas that
    came before it.
    """

    def __init__(self, answer_id: str) -> None:
        self.done = False
        self.quiet = True
        self._candidates = Candidates(answer_id)
        self._sse: SSEDecoder | None = None
        self._json: list[bytes] | None = None
        self._size = 0
        self._between = True  # does the decoder hold nothing of an event that has begun?
        self._heard = False
        self._usage = Raw()
        self._failed: ServerError | None = None

    @property
    def skipped(self) -> int:
        """Parts of a kind that is not known; they were passed over."""
        return self._candidates.unknown

    def feed(self, data: bytes) -> Sequence[Delta]:
        """The deltas that these bytes complete."""
        self.quiet = True
        if self._sse is None and self._json is None:
            data = data.lstrip(b" \t\r\n")
            if not data:
                return ()
            if data.startswith((b"{", b"[")):
                self._json = []
            elif data.startswith(b"<"):
                raise UpstreamInvalid("The upstream answered with a web page; check base_url of the channel.")
            else:
                self._sse = SSEDecoder()
        if self._json is not None:
            self.quiet = False
            self._size += len(data)
            if self._size > MAX_ANSWER_BYTES:
                raise UpstreamInvalid("The upstream's answer is far too long.")
            self._json.append(data)
            return ()
        return self._take_all(self._events(data))

    def eof(self) -> Sequence[Delta]:
        """The body ended in good order: the last deltas."""
        if self._failed is not None:
            raise self._failed
        deltas: list[Delta] = []
        if self._json is not None:
            for said in _read_whole(b"".join(self._json)):
                deltas += self._take(said)
        elif self._sse is not None:
            for event in self._sse.eof():
                deltas += self._last(event.data)
        self.done = True
        return [*deltas, *self._end()]

    def _events(self, data: bytes) -> list[bytes]:
        events = _whole_events(data) if self._between else None
        if events is None:
            assert self._sse is not None  # ``feed`` has seen to it
            try:
                events = [event.data for event in self._sse.feed(data)]
            except EventTooLarge:
                raise UpstreamInvalid("The upstream sent an event that is far too long.") from None
            self._between = data.endswith((b"\n\n", b"\r\n\r\n"))
        return events

    def _take_all(self, events: list[bytes]) -> Sequence[Delta]:
        deltas: list[Delta] = []
        try:
            for event in events:
                if not self.done and event != _DONE:
                    self.quiet = False
                    deltas += self._take(_read(event))
        except ServerError as error:
            self.done = True
            if not deltas:
                raise
            self._failed = error  # what was said before it is said
        return deltas

    def _last(self, data: bytes) -> Sequence[Delta]:
        """An event whose blank line is missing counts if it is whole."""
        try:
            said = _read(data)
        except UpstreamInvalid:
            return ()  # half an event: the stream was cut within it
        return self._take(said)

    def _take(self, said: Said) -> list[Delta]:
        self._heard = True
        if said.error is not None:
            raise fault_error(said.error)
        if said.usage_metadata:  # cumulative: each replaces the one before
            self._usage = said.usage_metadata
        deltas: list[Delta] = []
        for candidate in said.candidates or ():
            deltas += self._candidates.take(candidate)
        feedback = said.prompt_feedback
        if feedback is not None and feedback.block_reason and not self._candidates.begun:
            raise ContentFiltered(
                "The upstream's moderation refused the request; change what it says and send it again."
            )
        return deltas

    def _end(self) -> list[Delta]:
        candidates = self._candidates
        if not self._heard or (not candidates.begun and self._json is not None):
            raise UpstreamEmpty("The upstream answered with nothing at all; try again later.")
        if not candidates.begun:
            raise UpstreamCut("The upstream's answer was cut off before its end; try again.")
        deltas = candidates.end()
        usage = _figures(self._usage)
        if candidates.silent and not _figure(usage, "candidatesTokenCount"):
            raise UpstreamEmpty("The upstream answered without any content; try again later.")
        return [*deltas, UsageDelta(usage_of(usage))] if usage else deltas


def _read(data: bytes) -> Said:
    try:
        return decode_said(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise UpstreamInvalid("The upstream sent an event that cannot be read; try again.") from None


def _read_whole(body: bytes) -> list[Said]:
    """The object of a plain answer, or the array that a stream without events is."""
    try:
        return decode_list(body) if body.startswith(b"[") else [decode_said(body)]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise UpstreamInvalid(
            "The upstream's answer cannot be read; check base_url of the channel."
        ) from None


def _whole_events(data: bytes) -> list[bytes] | None:
    """The data of events that came whole, a line of data each; None if anything is otherwise.

    This is what nearly every read brings, with CRLF or LF, and costs a third of what lines cost.
    """
    if data.endswith(b"\r\n\r\n"):
        end = len(data) - 4
        if data.startswith(b"data: ") and data.find(b"\r") == end and data.find(b"\n") == end + 1:
            return [data[6:end]]  # one, as they come
        events, line_ends = data[:-4].split(b"\r\n\r\n"), data.count(b"\r")
    elif data.endswith(b"\n\n") and b"\r" not in data:
        events, line_ends = data[:-2].split(b"\n\n"), data.count(b"\n")
    else:
        return None
    if line_ends != 2 * len(events) or data.count(b"\n") != line_ends:
        return None
    found = [event[6:] for event in events if event.startswith(b"data: ")]
    return found if len(found) == len(events) else None


def _figures(usage: Raw) -> dict[str, Any]:
    """The usage as it came last; none where there was none, or nothing of the kind."""
    found = msgspec.json.decode(usage) if bytes(usage) else None
    return found if isinstance(found, dict) else {}


def usage_of(native: dict[str, Any]) -> Usage:
    """The figures in our terms; the upstream's own are kept beside them, under ``native_usage``."""
    prompt = _figure(native, "promptTokenCount") + _figure(native, "toolUsePromptTokenCount")
    thoughts = _figure(native, "thoughtsTokenCount")
    completion = _figure(native, "candidatesTokenCount") + thoughts
    fields: dict[str, Any] = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": _figure(native, "cachedContentTokenCount")},
        "completion_tokens_details": {"reasoning_tokens": thoughts},
        "native_usage": native,
    }
    return Usage(prompt, completion, prompt + completion, raw=msgspec.json.encode(fields))


def _figure(native: dict[str, Any], key: str) -> int:
    value = native.get(key)
    return value if type(value) is int and value > 0 else 0
