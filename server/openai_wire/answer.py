"""The body of a 2xx answer → deltas, whether a stream or one JSON value came."""

from __future__ import annotations

from collections.abc import Callable

from server.deltas import Delta
from server.errors import UpstreamEmpty, UpstreamInvalid
from server.openai_wire.decoder import ChunkDecoder, completion_as_chunks, decode_completion
from server.openai_wire.errors import upstream_error
from server.sse import EventTooLarge, SSEDecoder

MAX_ANSWER_BYTES = 64 * 1024 * 1024
_BOM = b"\xef\xbb\xbf"


class AnswerReader:
    """Takes the bytes of one answer as they come, and says what they mean.

    The first byte that is not blank decides what came, whatever the content type says: a JSON value for a
    stream request is turned into a stream, and an event stream for a plain request is read as one. ``done``
    is true after ``[DONE]``; ``skipped`` counts garbage. All methods raise ``ServerError``. ``mend``, if
    given, sees each event's data first and gives what is to be read instead, or None to pass it over.
    """

    __slots__ = ("_chunks", "_json", "_mend", "_size", "_sse", "_start", "_stream")

    def __init__(self, *, stream: bool, mend: Callable[[bytes], bytes | None] | None = None) -> None:
        self._stream = stream
        self._mend = mend
        self._chunks = ChunkDecoder()
        self._sse: SSEDecoder | None = None
        self._json: list[bytes] | None = None
        self._start = b""
        self._size = 0

    @property
    def done(self) -> bool:
        """Has the stream said ``[DONE]``?"""
        return self._chunks.done

    @property
    def skipped(self) -> int:
        """Lines that could not be read and were passed over."""
        return self._chunks.skipped

    def feed(self, data: bytes) -> list[Delta]:
        """The deltas that these bytes complete."""
        if self._sse is not None:
            try:
                events = self._sse.feed(data)
            except EventTooLarge:
                raise UpstreamInvalid("The upstream sent an event that is far too long.") from None
            # Nearly every read of a paced stream brings one plain event.
            if len(events) == 1 and not events[0].event and self._mend is None:
                return self._chunks.chunk(events[0].data)
            deltas: list[Delta] = []
            for event in events:
                if event.event == "error":
                    raise upstream_error(200, event.data)
                mended = event.data if self._mend is None else self._mend(event.data)
                if mended:
                    deltas += self._chunks.chunk(mended)
            return deltas
        if self._json is not None:
            self._size += len(data)
            if self._size > MAX_ANSWER_BYTES:
                raise UpstreamInvalid("The upstream's answer is far too long.")
            self._json.append(data)
            return []
        return self._begin(data)

    def _begin(self, data: bytes) -> list[Delta]:
        self._start += data
        visible = self._start.removeprefix(_BOM).lstrip()
        if not visible:
            self._start = self._start[-len(_BOM) :]  # blank lines while the model is busy: not kept
            return []
        if visible[:1] in b'{["':
            self._json = []
            return self.feed(visible)
        if visible[:1] == b"<":
            raise UpstreamInvalid("The upstream answered with a web page; check base_url of the channel.")
        self._sse = SSEDecoder()
        return self.feed(self._start)

    def eof(self) -> list[Delta]:
        """The body ended in good order: the last deltas."""
        if self._json is not None:
            body = b"".join(self._json)
            deltas = decode_completion(body)  # raises for what is no completion
            if not self._stream:
                return deltas
            self._chunks.done = False
            made = [delta for chunk in completion_as_chunks(body) for delta in self._chunks.chunk(chunk)]
            self._chunks.done = True
            return made + self._chunks.eof()
        if self._sse is None:
            raise UpstreamEmpty("The upstream answered with nothing at all; try again later.")
        last = [delta for event in self._sse.eof() for delta in self._chunks.chunk(event.data)]
        return last + self._chunks.eof()
