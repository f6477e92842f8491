"""text/event-stream, both ways: an incremental decoder over bytes, and the encoder.

The decoder follows the WHATWG's parsing rules, with one difference: at the end of the stream an event whose
blank line is missing still counts, since upstreams forget it. Lines end at LF, CRLF and CR only, and data
stays bytes, so that U+2028 is text and a split inside a character does no harm.

No socket, no task, no clock.
"""

from __future__ import annotations

import re

import msgspec

CONTENT_TYPE = "text/event-stream"
KEEP_ALIVE = b": keep-alive\n\n"
DONE = b"data: [DONE]\n\n"
MAX_EVENT_BYTES = 16 * 1024 * 1024

_BOM = b"\xef\xbb\xbf"
_LINE_END = re.compile(rb"\r\n|\r|\n")
_NOT_IN_A_FIELD = re.compile(r"[\r\n\0]")


class SSEEvent(msgspec.Struct, frozen=True, gc=False):
    """One dispatched event.

    ``data`` is its data lines joined by LF. ``event`` is its name; "" is the default, ``message``. ``id`` is
    the last event id in force, which an event inherits from those before it; None while none was sent.
    """

    data: bytes
    event: str = ""
    id: str | None = None


class EventTooLarge(ValueError):
    """One line, or the lines of one event together, are longer than the decoder's bound."""


class SSEDecoder:
    """One stream's decoder: chunks in, events out, whatever the split.

    It holds the unfinished line and the unfinished event, together at most ``max_event_bytes``. Each byte is
    searched once: a long line costs the same in many pieces as in one.
    """

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max = max_event_bytes
        self._line = bytearray()  # the unfinished line; it holds no line end
        self._data = bytearray()  # the unfinished event's data lines, each with an LF behind it
        self._event = b""
        self._id: str | None = None
        self._at_first_line = True  # only there may a byte order mark stand
        self._after_cr = False  # an LF that comes next belongs to the line end before it
        self._between_events = False  # nothing above is pending: the fast road is open

    def feed(self, chunk: bytes) -> list[SSEEvent]:
        """Return the events that ``chunk`` completes, oldest first.

        Raises EventTooLarge at the first line that goes beyond the bound, also before its end has come; the
        events that the same chunk completed are lost with it, and the decoder is of no further use.
        """
        if (
            self._between_events
            and chunk.startswith(b"data: ")
            and chunk.endswith(b"\n\n")
            and b"\r" not in chunk
            and len(chunk) <= self._max
        ):
            events = _whole_events(chunk)
            if events is not None:
                return events
        return self._feed_lines(chunk)

    def eof(self) -> list[SSEEvent]:
        """Return the event, if any, that the end of the stream left without its blank line.

        Its last line may lack its line end too. Whether the data is whole, the caller must judge.
        """
        events: list[SSEEvent] = []
        if self._line:
            self._take_line(bytes(self._line), events)
            self._line.clear()
        self._take_line(b"", events)
        return events

    def _feed_lines(self, chunk: bytes) -> list[SSEEvent]:
        if not chunk:
            return []
        if self._after_cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]
        # A CR at the chunk's end ends its line at once: no event waits for an LF that may never come.
        self._after_cr = chunk.endswith(b"\r")
        if b"\r" in chunk:
            chunk = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        first, *lines = chunk.split(b"\n")
        self._line += first
        events: list[SSEEvent] = []
        if lines:
            self._take_line(bytes(self._line), events)
            self._line.clear()
            self._line += lines.pop()
            for line in lines:
                self._take_line(line, events)
        self._check_size(len(self._line))
        self._between_events = (
            not (self._line or self._data or self._event or self._at_first_line or self._after_cr)
            and self._id is None
        )
        return events

    def _take_line(self, line: bytes, events: list[SSEEvent]) -> None:
        """Interpret one line, given without its end; append the event that it completes."""
        self._check_size(len(line))
        if self._at_first_line:
            self._at_first_line = False
            line = line.removeprefix(_BOM)
        if not line:
            if self._data:
                name = self._event.decode(errors="replace")
                events.append(SSEEvent(bytes(memoryview(self._data)[:-1]), name, self._id))
                self._data.clear()
            self._event = b""
            return
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._data += value
            self._data += b"\n"
        elif field == b"event":
            self._event = value
        elif field == b"id" and b"\0" not in value:
            self._id = value.decode(errors="replace")
        # Else a comment (no field), ``retry``, which is for browsers, or a field that nobody knows.

    def _check_size(self, line_bytes: int) -> None:
        if len(self._data) + len(self._event) + line_bytes > self._max:
            self._max = -1  # whatever comes next is refused too
            self._line.clear()
            self._data.clear()
            raise EventTooLarge("an event in the stream is longer than the limit")


def _whole_events(chunk: bytes) -> list[SSEEvent] | None:
    """Return the events of a chunk of nothing but ``data: `` lines, each with its blank line; else None.

    This is what nearly every read from an upstream brings. The chunk begins with ``data: ``, ends with a
    blank line and holds no CR.
    """
    line_ends = chunk.count(b"\n")
    if line_ends == 2:
        return [SSEEvent(chunk[6:-2])]
    blocks = chunk[:-2].split(b"\n\n")
    if line_ends != 2 * len(blocks):
        return None
    events = [SSEEvent(block[6:]) for block in blocks if block.startswith(b"data: ")]
    return events if len(events) == len(blocks) else None


def encode(data: bytes, *, event: str | None = None, id: str | None = None) -> bytes:
    """Return one event with its blank line. ``data`` of several lines becomes several data lines.

    Raises ValueError if ``event`` or ``id`` holds CR, LF or NUL.
    """
    if event is None and id is None and b"\n" not in data and b"\r" not in data:
        return b"data: %b\n\n" % data
    fields = [
        *(() if event is None else (b"event: " + _field_value("event", event),)),
        *(() if id is None else (b"id: " + _field_value("id", id),)),
        *(b"data: " + line for line in _LINE_END.split(data)),
    ]
    return b"\n".join(fields) + b"\n\n"


def comment(text: str) -> bytes:
    """Return a comment with its blank line, which no client takes for an event.

    Raises ValueError if ``text`` holds CR, LF or NUL.
    """
    return b": " + _field_value("comment", text) + b"\n\n"


def _field_value(field: str, text: str) -> bytes:
    if _NOT_IN_A_FIELD.search(text):
        raise ValueError(f"{field} must be one line without NUL")
    return text.encode()
