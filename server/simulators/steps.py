"""An answer's body as steps: what to send, how long to wait, where to break off. No socket and no clock."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import cycle
from typing import NamedTuple, TypeAlias

import orjson

from server.simulators.asked import Asked
from server.simulators.errors import error_body, fault_of
from server.simulators.said import Chunk, Said, chunks
from server.simulators.script import Script

PADDING = b" " * 65536


class Piece(NamedTuple):
    """Bytes of the body. ``chunks`` is how many chunks they bring, as a script counts."""

    data: bytes
    chunks: int = 0


class Pause(NamedTuple):
    """A wait; None: for ever. Meanwhile ``beat`` is sent every ``every_s`` seconds, unless that is 0."""

    seconds: float | None
    every_s: float = 0
    beat: bytes = b""


class Cut(NamedTuple):
    """The script breaks off here. The steps that follow tell only what would have come."""


Step: TypeAlias = Piece | Pause | Cut

_LINE_ENDS = {"lf": [b"\n"], "crlf": [b"\r\n"], "cr": [b"\r"], "mixed": [b"\n", b"\r\n", b"\r"]}


class EventForm:
    """Writes events in the form that a script asks for."""

    def __init__(self, script: Script) -> None:
        self._script = script
        # Mixed: from event to event. Within one, a CR before an LF would be one line end instead of two.
        self._ends = cycle(_LINE_ENDS[script.line_end])
        self._field = b"data: " if script.space else b"data:"
        self._json_option = orjson.OPT_INDENT_2 if script.multiline else 0
        self._number = 0

    def json(self, data: object) -> bytes:
        return self.event(orjson.dumps(data, option=self._json_option))

    def event(self, data: bytes, name: str | None = None) -> bytes:
        """One event. Data of several lines becomes several fields."""
        self._number += 1
        name = self._script.event_name if name is None else name
        lines = [] if name is None else [b"event: " + name.encode()]
        if self._script.event_ids:
            lines.append(b"id: %d" % self._number)
        lines += [self._field + line for line in data.split(b"\n")]
        return self._block(lines)

    def comment(self) -> bytes:
        return self._block([b": " + self._script.comment.encode()])

    def retry(self, milliseconds: int) -> bytes:
        return self._block([b"retry: %d" % milliseconds])

    def _block(self, lines: list[bytes]) -> bytes:
        return next(self._ends).join([*lines, b"", b""])


def stream_steps(script: Script, asked: Asked, said: Said) -> Iterator[Step]:
    """The body of a streamed answer."""
    form = EventForm(script)
    return event_steps(script, form, chunks(script, asked, said), lambda: _error_event(script, form))


def event_steps(
    script: Script, form: EventForm, told: Iterable[Chunk], error: Callable[[], Piece]
) -> Iterator[Step]:
    """A stream of ``told``, with the script's troubles; ``error`` makes the piece that ends it early."""
    beat = form.comment() if script.keep_alive_ms else b""
    pieces = _told(script, told, form)
    if not script.last_blank_line:
        pieces = _without_last_line_end(pieces)
    pieces = _joined(script, pieces)
    yield from _opening_waits(script, beat)
    count = 0
    if script.error_after != 0:
        for piece in pieces:
            if piece.chunks and count and script.pace_ms:
                yield Pause(script.pace_ms / 1000, script.keep_alive_ms / 1000, beat)
            yield piece
            count += piece.chunks
            if piece.chunks and count == script.error_after:
                break
            if piece.chunks:
                yield from _breaks(script, count, beat)
        else:
            return
    yield error()


def plain_steps(script: Script, body: bytes) -> Iterator[Step]:
    """A body that comes at once: a completion, an error, or whatever the script says exactly."""
    yield from _opening_waits(script, b"\n" if script.keep_alive_ms else b"")
    whole = script.leading.encode() + body
    if whole:
        yield Piece(whole)
    left = script.body_bytes - len(whole)
    while left > 0:
        yield Piece(PADDING[:left])
        left -= len(PADDING)


def part_steps(script: Script, parts: Iterable[bytes]) -> Iterator[Step]:
    """A body that comes in parts, each of them a chunk as a script counts."""
    yield from _opening_waits(script, b"")
    for count, part in enumerate(parts, 1):
        if count > 1 and script.pace_ms:
            yield Pause(script.pace_ms / 1000)
        yield Piece(part, 1)
        yield from _breaks(script, count, b"")


def _opening_waits(script: Script, beat: bytes) -> Iterator[Step]:
    if script.first_ms:
        yield Pause(script.first_ms / 1000, script.keep_alive_ms / 1000, beat)
    yield from _breaks(script, 0, beat)


def _breaks(script: Script, told: int, beat: bytes) -> Iterator[Step]:
    if script.stall_after == told:
        seconds = None if script.stall_ms is None else script.stall_ms / 1000
        yield Pause(seconds, script.keep_alive_ms / 1000, beat)
    if script.cut_after == told:
        yield Cut()


def _error_event(script: Script, form: EventForm) -> Piece:
    _, body = error_body(fault_of(script), script)
    event = form.event(body, "error" if script.error_event else None)
    return Piece(event + (form.event(b"[DONE]") if script.error_done else b""))


def _told(script: Script, told: Iterable[Chunk], form: EventForm) -> Iterator[Piece]:
    """The whole stream without its troubles, a piece for each event and what stands around it."""
    opening = b"\xef\xbb\xbf" if script.bom else b""
    if script.retry is not None:
        opening += form.retry(script.retry)
    opening += b"".join(form.comment() for _ in range(script.comments_first))
    opening += script.inject.get(0, "").encode()
    if opening:
        yield Piece(opening)
    count = 0
    for data, counts in told:
        event = form.json(data)
        count += counts
        if counts:
            event += script.inject.get(count, "").encode()
        if script.comments_between:
            event += form.comment()
        yield Piece(event, int(counts))
    closing = b"".join(form.event(b"[DONE]") for _ in range(script.done)) + script.after_done.encode()
    if closing:
        yield Piece(closing)


def _without_last_line_end(pieces: Iterable[Piece]) -> Iterator[Piece]:
    held: Piece | None = None
    for piece in pieces:
        if held is not None:
            yield held
        held = piece
    if held is not None:
        shorter = held.data[:-2] if held.data.endswith(b"\r\n") else held.data[:-1]
        yield Piece(shorter, held.chunks)


def _joined(script: Script, pieces: Iterable[Piece]) -> Iterator[Piece]:
    """So many events in a piece; fewer where the script does something after a chunk."""
    if script.join == 1:
        yield from pieces
        return
    stops = {script.stall_after, script.cut_after, script.error_after}
    data, events, chunks_held, told = b"", 0, 0, 0
    for piece in pieces:
        data, events, chunks_held = data + piece.data, events + 1, chunks_held + piece.chunks
        told += piece.chunks
        if events == script.join or (piece.chunks and told in stops):
            yield Piece(data, chunks_held)
            data, events, chunks_held = b"", 0, 0
    if data:
        yield Piece(data, chunks_held)
