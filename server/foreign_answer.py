"""The bytes of an answer as the wires of other dialects read them: events or JSON, whichever came."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from server.deltas import Delta, Extra, Original
from server.errors import ServerError, UpstreamInvalid
from server.sse import EventTooLarge, SSEDecoder

MAX_ANSWER_BYTES = 64 * 1024 * 1024


class ForeignReader(ABC):
    """Takes the bytes of one answer as they come; a subclass for each dialect says what they mean.

    The first byte that is not blank decides what came, whatever was asked for: one of ``json_begins`` begins
    JSON, anything else but a web page a stream. Events that are no JSON are passed over: ``garbage`` counts
    them, and a stream of nothing else is no answer. ``done`` is true when nothing more is to be read.
    ``quiet``: what ``feed`` took last was no more than pings and comments. All methods raise ``ServerError``,
    ``feed`` never together with deltas that came before it.
    """

    json_begins: tuple[bytes, ...] = (b"{",)

    def __init__(self) -> None:
        self.done = False
        self.quiet = True
        self.garbage = 0
        self._sse: SSEDecoder | None = None
        self._json: list[bytes] | None = None
        self._size = 0
        self._between = True  # does the decoder hold nothing of an event that has begun?
        self._failed: ServerError | None = None

    @abstractmethod
    def _event(self, data: bytes) -> Sequence[Delta]:
        """What one event's data brings."""

    @abstractmethod
    def _whole_events(self, data: bytes) -> list[bytes] | None:
        """The data of events that came whole, in the dialect's usual form; None if anything is otherwise.

        This is what nearly every read brings, and costs a third of what the decoder's lines cost.
        """

    def feed(self, data: bytes) -> Sequence[Delta]:
        """The deltas that these bytes complete."""
        self.quiet = True
        if self._sse is None and self._json is None:
            data = data.lstrip(b" \t\r\n")
            if not data:
                return ()
            if data.startswith(self.json_begins):
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
        return self._take(self._events(data))

    def _events(self, data: bytes) -> list[bytes]:
        events = self._whole_events(data) if self._between else None
        if events is None:
            assert self._sse is not None  # ``feed`` has seen to it
            try:
                events = [event.data for event in self._sse.feed(data)]
            except EventTooLarge:
                raise UpstreamInvalid("The upstream sent an event that is far too long.") from None
            self._between = data.endswith((b"\n\n", b"\r\n\r\n"))
        return events

    def _take(self, events: list[bytes]) -> Sequence[Delta]:
        deltas: list[Delta] = []
        try:
            for event in events:
                if not self.done:
                    deltas += self._event(event)
        except ServerError as error:
            self.done = True
            if not deltas:
                raise
            self._failed = error  # what was said before it is said
        return deltas

    def _ended(self) -> list[Delta]:
        """What the end of a stream brings. Raises what ``feed`` had to keep back."""
        if self._failed is not None:
            raise self._failed
        deltas: list[Delta] = []
        if self._sse is not None and not self.done:
            for event in self._sse.eof():
                deltas += self._last(event.data)
        return deltas

    def _last(self, data: bytes) -> Sequence[Delta]:
        """An event whose blank line is missing counts if it is whole."""
        garbage = self.garbage
        try:
            return self._event(data)
        except UpstreamInvalid:
            return ()  # half an event: the stream was cut within it
        finally:
            self.garbage = garbage


def extra(delta: dict[str, Any], index: int = 0) -> Extra:
    """What has a name in no delta, as fields of the ``delta`` in a chat's chunk, of choice ``index``.

    Objects in lists have an ``index`` of their own: clients that join the pieces of a stream want one.
    """
    return Extra(chunk_of(delta, index))


def chunk_of(delta: dict[str, Any], index: int = 0, **choice: Any) -> Original:
    """A chunk of a chat whose one choice has this ``delta`` and, beside it, the fields ``choice``."""
    whole = {"index": index, "delta": delta, "finish_reason": None} | choice
    return Original("openai.chunk", msgspec.json.encode({"choices": [whole]}))


def nothing_but_garbage() -> UpstreamInvalid:
    """What a stream is that brought nothing that can be read."""
    return UpstreamInvalid("The upstream's stream held nothing that can be read; try again later.")


def figure(native: Mapping[str, Any], key: str) -> int:
    """A count in an upstream's usage; 0 for what is none."""
    value = native.get(key)
    return value if type(value) is int and value > 0 else 0
