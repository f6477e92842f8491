"""The body of a 2xx answer → deltas, whether a stream or one JSON value came."""

from __future__ import annotations

from collections.abc import Callable

from server.deltas import Delta
from server.errors import ServerError, UpstreamEmpty, UpstreamInvalid
from server.openai_wire.decoder import ChunkDecoder
from server.openai_wire.errors import upstream_error
from server.openai_wire.plain import completion_as_chunks, decode_completion
from server.sse import EventTooLarge, SSEDecoder, SSEEvent

MAX_ANSWER_BYTES = 64 * 1024 * 1024
_BOM = b"\xef\xbb\xbf"


def decode_whole(body: bytes, *, stops_at_calls: bool = False) -> list[Delta]:
    """A plain answer's whole body, a JSON value, as deltas; see ``decode_completion``."""
    if not _is_text(body):
        raise UpstreamInvalid("The upstream's answer is not UTF-8; try again later.")
    return decode_completion(body, stops_at_calls=stops_at_calls)


class AnswerReader:
    """Takes the bytes of one answer as they come, and says what they mean.

    The first byte that is not blank decides what came, whatever the content type says: a JSON value for a
    stream request is turned into a stream, and an event stream for a plain request is read as one. ``done``
    is true when nothing more is to be read: ``eof`` then gives the last deltas, or raises. ``skipped`` counts
    garbage. All methods raise ``ServerError``, ``feed`` never together with deltas that came before it.
    ``mend``, if given, sees each event's data first and gives what is to be read instead, or None to pass it
    over. ``stops_at_calls``: a finish reason of ``stop`` means ``tool_calls`` where tools were called.
    """

    __slots__ = (
        "_chunks",
        "_comment",
        "_failed",
        "_json",
        "_mend",
        "_size",
        "_sse",
        "_start",
        "_stops_at_calls",
        "_stream",
        "quiet",
    )

    def __init__(
        self,
        *,
        stream: bool,
        mend: Callable[[bytes], bytes | None] | None = None,
        stops_at_calls: bool = False,
    ) -> None:
        self._stream = stream
        self._mend = mend
        self._stops_at_calls = stops_at_calls
        self._chunks = ChunkDecoder(stops_at_calls=stops_at_calls)
        self._sse: SSEDecoder | None = None
        self._json: list[bytes] | None = None
        self._start = b""
        self._size = 0
        self._failed: ServerError | None = None
        self._comment: bool | None = None  # is the line that has not ended one? None: it has not begun
        self.quiet = True
        """What ``feed`` took last was nothing but comments and blank lines."""

    @property
    def done(self) -> bool:
        """Has the stream said ``[DONE]``, or an error?"""
        return self._chunks.done or self._failed is not None

    @property
    def skipped(self) -> int:
        """Lines that could not be read and were passed over."""
        return self._chunks.skipped

    def feed(self, data: bytes) -> list[Delta]:
        """The deltas that these bytes complete."""
        if self._sse is not None:
            return self._feed_stream(self._sse, data)
        if self._json is not None:
            self.quiet = False
            self._size += len(data)
            if self._size > MAX_ANSWER_BYTES:
                raise UpstreamInvalid("The upstream's answer is far too long.")
            self._json.append(data)
            return []
        return self._begin(data)

    def eof(self) -> list[Delta]:
        """The body ended in good order: the last deltas."""
        if self._failed is not None:
            raise self._failed
        if self._json is not None:
            body = b"".join(self._json)
            deltas = decode_whole(body, stops_at_calls=self._stops_at_calls)  # raises for what is none
            if not self._stream:
                return deltas
            self._chunks.done = False
            made = [delta for chunk in completion_as_chunks(body) for delta in self._chunks.chunk(chunk)]
            self._chunks.done = True
            return made + self._chunks.eof()
        if self._sse is None:
            raise UpstreamEmpty("The upstream answered with nothing at all; try again later.")
        last: list[Delta] = []
        for event in self._sse.eof():
            self._take(event, last)
        return last + self._chunks.eof()

    def _begin(self, data: bytes) -> list[Delta]:
        self._start += data
        if len(self._start) < len(_BOM) and _BOM.startswith(self._start):
            return []
        visible = self._start.removeprefix(_BOM).lstrip()
        if not visible:
            self._start = b" "  # blank lines while the model is busy are not kept; a BOM has had its time
            return []
        self._start = b""
        if visible[:1] in b'{["':
            self._json = []
        elif visible[:1] == b"<":
            raise UpstreamInvalid("The upstream answered with a web page; check base_url of the channel.")
        else:
            self._sse = SSEDecoder()
        return self.feed(visible)

    def _feed_stream(self, sse: SSEDecoder, data: bytes) -> list[Delta]:
        try:
            events = sse.feed(data)
        except EventTooLarge:
            raise UpstreamInvalid("The upstream sent an event that is far too long.") from None
        if events:
            self.quiet = False
            self._comment = None if data.endswith(b"\n") else _ends_in_comment(data, self._comment)
        else:
            self.quiet = _only_comments(data, self._comment)
            self._comment = _ends_in_comment(data, self._comment)
        # Nearly every read of a paced stream brings one plain event.
        if len(events) == 1 and not events[0].event and self._mend is None:
            return self._chunk(events[0].data)
        deltas: list[Delta] = []
        try:
            for event in events:
                self._take(event, deltas)
        except ServerError as error:
            if not deltas:
                raise
            self._failed = error  # what was said before it is said
        return deltas

    def _take(self, event: SSEEvent, deltas: list[Delta]) -> None:
        if event.event == "error" and not self._chunks.done:
            raise upstream_error(200, event.data)
        mended = event.data if self._mend is None else self._mend(event.data)
        if mended:
            deltas += self._chunk(mended)

    def _chunk(self, data: bytes) -> list[Delta]:
        if not _is_text(data):
            self._chunks.skipped += 1
            return []
        return self._chunks.chunk(data)


def _is_text(data: bytes) -> bool:
    """Is it UTF-8? Our JSON decoder looks only at what it has a use for; a client looks at all."""
    if data.isascii():
        return True
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _only_comments(data: bytes, comment: bool | None) -> bool:
    """Do these bytes of a stream, behind a line's beginning that is a ``comment``, hold nothing else?"""
    first, *lines = data.replace(b"\r", b"\n").split(b"\n")
    begun = comment or not first or (comment is None and first.startswith(b":"))
    return begun and all(not line or line.startswith(b":") for line in lines)


def _ends_in_comment(data: bytes, comment: bool | None) -> bool | None:
    """Is the line that these bytes leave unfinished a comment? None: it has not begun."""
    start = max(data.rfind(b"\n"), data.rfind(b"\r")) + 1
    if start == len(data):
        return None if data else comment
    return data.startswith(b":", start) if start or comment is None else comment
