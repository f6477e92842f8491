"""One HTTP/1.1 answer: bytes in, head and body out. No socket, no task, no clock.

httptools (the C parser llhttp) reads the bytes; here stands what an answer's parts mean to a client: interim
answers, where the body ends, its encoding, whether the connection can be used again, and the limits.
"""

from __future__ import annotations

import re
import zlib

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from server.errors import ServerError
from server.upstreams.http import (
    KEEP_S,
    MAX_HEAD_BYTES,
    MAX_HEADERS,
    cut,
    not_http,
    unanswered,
    unreadable,
)

# A piece of an inflated body. (bytes)
MAX_INFLATED = 64 * 1024
_NO_BODY = (204, 304)
_FRAMING = frozenset({b"content-length", b"transfer-encoding", b"content-encoding", b"keep-alive"})
_FRAMING_LENGTHS = frozenset(len(name) for name in _FRAMING)
_KEEP_TIMEOUT = re.compile(r"\btimeout\s*=\s*(\d{1,9})\b")


class AnswerDecoder:
    """The answer to one request that was not HEAD.

    ``feed`` and ``eof`` take what the connection brings and never raise; what came of it stands here:
    ``head_done`` (``status`` and ``headers`` are known), ``complete`` (the body's end has come), ``fault``
    (it never will), ``queued`` (bytes of the body that were not taken yet), ``heard`` (any byte has come),
    ``reusable`` (once complete: another request may follow on the connection).
    """

    __slots__ = (
        "_bare",
        "_chunks",
        "_framed",
        "_headers",
        "_inflater",
        "_lines",
        "_parser",
        "_readable",
        "_until_close",
        "complete",
        "fault",
        "head_done",
        "heard",
        "queued",
        "reusable",
        "status",
    )

    def __init__(self) -> None:
        self.status = 0
        self._headers: dict[str, str] | None = None
        self._framed = False  # the head says more of the body or the connection than a length
        self.head_done = self.complete = self.reusable = self.heard = False
        self.fault: ServerError | None = None
        self.queued = 0
        self._bare = 0  # bytes since the last of the body: head, trailers, sizes of chunks
        self._chunks: list[bytes] = []
        self._inflater: Inflater | None = None
        self._lines: list[tuple[bytes, bytes]] = []
        self._readable = True  # the body's encoding is known
        self._until_close = False
        # Dropped at the end: the parser holds our methods, and a circle would wait for the collector.
        self._parser: HttpResponseParser | None = _new_parser(self)

    @property
    def at_end(self) -> bool:
        """The whole body has come and was taken."""
        return self.complete and not self._chunks and (self._inflater is None or self._inflater.at_end)

    @property
    def headers(self) -> dict[str, str]:
        """The head's fields, once it is done: names in lower case, values of a name given twice joined.

        Made when somebody asks: of an answer that is in order, nearly nobody does.
        """
        if self._headers is None:
            headers = self._headers = {}
            for raw_name, raw_value in self._lines:
                name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1").rstrip(" \t")
                headers[name] = f"{headers[name]}, {value}" if name in headers else value
        return self._headers

    @property
    def keep_s(self) -> float:
        """How long the connection may be kept idle, in seconds; a little less than the server said."""
        if (
            self._framed
            and (said := self.headers.get("keep-alive"))
            and (timeout := _KEEP_TIMEOUT.search(said))
        ):
            return min(KEEP_S, int(timeout[1]) - 1.0)
        return KEEP_S

    def feed(self, data: bytes | memoryview) -> None:
        """Take what has come."""
        if self._parser is None:
            self.reusable = False  # nobody asked for more
            return
        self.heard = True
        self._bare += len(data)
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade):
            if self.complete:
                self.reusable = False  # the answer is whole; what follows it is not ours
            elif self.fault is None:
                self.fault = cut() if self.head_done else not_http()
            self._parser = None
            return
        if self.complete:
            self._parser = None
        elif self._bare > MAX_HEAD_BYTES:
            self.fault = cut() if self.head_done else not_http()
            self._parser = None

    def eof(self, *, in_order: bool) -> None:
        """Note the connection's end; ``in_order`` if the server closed it, and nothing broke it."""
        self.reusable = False
        self._parser = None
        if self.complete or self.fault is not None:
            return
        if not self.head_done:
            self.fault = unanswered()
        elif self._until_close and in_order:
            self.complete = True
        else:
            self.fault = cut()

    def stop(self) -> None:
        """Let go of everything; the answer is no longer wanted."""
        self._parser = None
        self._chunks.clear()

    def take(self) -> bytes:
        """Return what has come of the body, of an inflated one at most 64 KiB; b"" if there is nothing now.

        Raises UpstreamInvalid or UpstreamCut for a body whose encoding is unknown, broken or unfinished.
        """
        chunks = self._chunks
        if not chunks:
            if self._inflater is None:
                return b""
            data = b""
        elif not self._readable:
            raise unreadable()
        else:
            data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
            chunks.clear()
            self.queued = 0
        if self._inflater is None:
            return data
        inflated = self._inflater.inflate(data)
        self.queued = self._inflater.waiting
        if not inflated and self.complete and not self._inflater.at_end:
            raise cut()
        return inflated

    # What the parser calls. A raised _Stop ends its work; ``feed`` then looks at what is known.

    def on_message_begin(self) -> None:
        if self.complete:
            raise _Stop

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.head_done:
            return  # a trailer, which nobody asks for; ``_bare`` bounds them
        if len(self._lines) == MAX_HEADERS:
            raise _Stop
        self._lines.append((name, value))

    def on_headers_complete(self) -> None:
        assert self._parser is not None  # it is calling
        status = self._parser.get_status_code()
        if 100 <= status < 200 and status != 101:
            return
        if status < 200 or self._bare > MAX_HEAD_BYTES < sum(len(n) + len(v) + 4 for n, v in self._lines):
            raise _Stop
        self.status = status
        has_length = False
        for name, _ in self._lines:
            # Few fields matter here: their lengths tell most others apart at a fifth of what decoding costs.
            if len(name) in _FRAMING_LENGTHS and (lower := name.lower()) in _FRAMING:
                has_length = True
                self._framed = self._framed or lower != b"content-length"
        self._until_close = not has_length and status not in _NO_BODY
        if self._framed:
            self._read_framing(self.headers)
        self.head_done = True

    def _read_framing(self, headers: dict[str, str]) -> None:
        if (coding := headers.get("transfer-encoding")) is not None:
            if coding.lower() != "chunked":
                raise _Stop
        else:
            self._until_close = "content-length" not in headers and self.status not in _NO_BODY
        if encoding := headers.get("content-encoding"):
            self._set_encoding(encoding.lower())

    def on_body(self, body: bytes) -> None:
        self._bare = 0
        self._chunks.append(body)
        self.queued += len(body)

    def on_message_complete(self) -> None:
        if not self.head_done:
            self._lines.clear()  # an interim answer; the real one follows
            return
        assert self._parser is not None  # it is calling
        self.complete = True
        self.reusable = self._parser.should_keep_alive()

    def _set_encoding(self, encoding: str) -> None:
        if encoding in ("gzip", "x-gzip", "deflate"):
            self._inflater = Inflater(encoding)
        else:
            self._readable = encoding == "identity"


class Inflater:
    """A gzip or deflate body, inflated in pieces: whatever it grows to, one piece at a time is held."""

    __slots__ = ("_any", "_encoding", "_inflate", "_more", "_tail")

    def __init__(self, encoding: str) -> None:
        self._encoding = encoding
        self._inflate: zlib._Decompress | None = None
        self._tail = b""
        self._any = False  # anything has come
        self._more = False  # the piece was full: there may be more without further input

    @property
    def at_end(self) -> bool:
        """All that has come was inflated, and its own end mark was seen (or nothing ever came)."""
        ended = self._inflate is None or self._inflate.eof
        return ended and not self._tail and not self._more

    @property
    def waiting(self) -> int:
        """Bytes that have come and were not inflated yet."""
        return len(self._tail)

    def inflate(self, data: bytes) -> bytes:
        """Return the next piece, at most MAX_INFLATED bytes; b"" if more input is needed.

        Raises UpstreamInvalid for what is not in the encoding.
        """
        data = self._tail + data
        self._tail = b""
        while data or self._more:
            if self._inflate is None or self._inflate.eof:  # the first stream, or a further one behind it
                if not data:
                    break
                self._inflate = zlib.decompressobj(self._window(data[0]))
            try:
                piece = self._inflate.decompress(data, MAX_INFLATED)
            except zlib.error as error:
                raise unreadable() from error
            data = self._inflate.unused_data if self._inflate.eof else self._inflate.unconsumed_tail
            self._more = len(piece) == MAX_INFLATED and not self._inflate.eof
            if piece:
                self._tail = data
                return piece
        self._more = False
        return b""

    def _window(self, first: int) -> int:
        """zlib's ``wbits``: gzip's head, zlib's, or none (some servers send bare deflate under its name)."""
        if self._encoding != "deflate":
            return 16 + zlib.MAX_WBITS
        return zlib.MAX_WBITS if first & 0x0F == 8 else -zlib.MAX_WBITS


class _Stop(Exception):
    """Ends the parser's work from within one of its calls."""


def _new_parser(decoder: AnswerDecoder) -> HttpResponseParser:
    """A parser as forgiving as aiohttp's is for answers: in a client nothing can be smuggled behind it."""
    parser = HttpResponseParser(decoder)
    parser.set_dangerous_leniencies(
        lenient_headers=True, lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True
    )
    return parser
