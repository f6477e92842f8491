"""Plays one scripted answer on a connection: head, body, framing, faults, each byte as the script has it."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable, Iterator
from http import HTTPStatus
from itertools import pairwise
from typing import NamedTuple, assert_never

from server.simulators.connection import Connection
from server.simulators.record import RecordedRequest, Records
from server.simulators.script import Script
from server.simulators.steps import Cut, Pause, Piece, Step

TURNS_BETWEEN_PARTS = 3
"""Turns of the loop between two parts of a split write: enough for a client on the same loop to read each
part by itself."""

FAIRNESS = 64
"""After so many pieces without a pause, others have their turn."""


class Answer(NamedTuple):
    """What is to be played. ``steps`` may be called twice: once to learn the length."""

    status: int
    content_type: str | None
    headers: list[tuple[str, str]]
    steps: Callable[[], Iterator[Step]]
    streamed: bool = False


class _BrokenOff(Exception):
    """The script ends the answer here."""


class Player:
    """One answer's way out. ``play`` once."""

    def __init__(
        self, connection: Connection, record: RecordedRequest, records: Records, *, keep_alive: bool
    ) -> None:
        self._connection, self._record, self._records = connection, record, records
        self._script: Script = record.script
        self._loop = asyncio.get_running_loop()
        self._due = self._loop.time()
        self._keep_alive = keep_alive
        self._framing = "length"
        self._coder = _coder(self._script.encoding)
        self._offset = 0  # bytes of the body that left
        script = self._script
        edges = [(script.stall_at_byte, "stall"), (script.cut_at_byte, "cut")]
        self._edges = sorted(((at, kind) for at, kind in edges if at is not None), key=lambda edge: edge[0])

    async def play(self, answer: Answer) -> None:
        """Send the answer. Returns if the connection can take another request; else it does not return, but
        is cancelled by the connection's end.
        """
        script = self._script
        if script.silent:
            await _for_ever()
        await self._wait(script.delay_ms / 1000)
        cut = False
        try:
            await self._head(answer)
            await self._body(answer)
        except _BrokenOff:
            cut = True
        await self._end(cut=cut)

    async def _head(self, answer: Answer) -> None:
        script = self._script
        for status in script.interim:
            link = "link: </sim.css>; rel=preload\r\n" if status == 103 else ""
            self._connection.write(f"HTTP/1.1 {status} {_phrase(status)}\r\n{link}\r\n".encode())
        if answer.streamed:
            self._records.streaming(self._record)
        head = self._head_bytes(answer)
        kept = head if script.cut_head_at is None else head[: script.cut_head_at]
        if script.drip_ms:
            for place in range(len(kept)):
                self._connection.write(kept[place : place + 1])
                await self._wait(script.drip_ms / 1000)
        else:
            self._connection.write(kept)
        if len(kept) < len(head) or script.cut_head_at == 0:
            raise _BrokenOff

    def _head_bytes(self, answer: Answer) -> bytes:
        script = self._script
        if script.framing != "auto":
            self._framing = script.framing
        elif answer.streamed:
            self._framing = "chunked" if script.http == "1.1" else "close"
        elif script.keep_alive_ms:
            self._framing = "chunked"  # who sends signs of life does not know the length yet
        headers = dict(answer.headers)
        if answer.content_type:
            headers["content-type"] = answer.content_type
        if script.encoding != "identity":
            headers["content-encoding"] = script.encoding
        if self._framing == "chunked":
            headers["transfer-encoding"] = "chunked"
        elif self._framing == "length":
            headers["content-length"] = str(self._length(answer) + script.length_extra)
        if script.length_extra or self._framing == "close" or script.http == "1.0":
            self._keep_alive = False
        if script.connection == "close" or (not self._keep_alive and script.connection == "keep"):
            headers["connection"] = "close"
        for name, value in script.headers.items():
            headers.pop(name.lower(), None)
            if value is not None:
                headers[name] = value
        first = script.status_line
        if first is None:
            first = f"HTTP/{script.http} {answer.status} {_phrase(answer.status)}"
        lines = [first, *(f"{name}: {value}" for name, value in headers.items())]
        return "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape")

    def _length(self, answer: Answer) -> int:
        coder = _coder(self._script.encoding)
        length = 0
        for step in answer.steps():
            if isinstance(step, Piece):
                length += len(_coded(coder, step.data))
        return length + (len(coder.flush()) if coder is not None else 0)

    async def _body(self, answer: Answer) -> None:
        await self._at_edge(0)
        for count, step in enumerate(answer.steps(), 1):
            match step:
                case Piece(data, chunks):
                    await self._send(_coded(self._coder, data))
                    self._record.sent_chunks += chunks
                    self._records.changed()
                case Pause():
                    await self._pause(step)
                case Cut():
                    raise _BrokenOff
                case _:
                    assert_never(step)
            if not count % FAIRNESS:
                await asyncio.sleep(0)
        if self._coder is not None:
            await self._send(self._coder.flush())
        if not self._script.final_chunk:
            raise _BrokenOff

    async def _end(self, *, cut: bool) -> None:
        script = self._script
        reset = cut and script.cut == "rst"
        orderly = not cut or (script.cut == "clean" and self._framing == "chunked" and script.final_chunk)
        if orderly and self._framing == "chunked":
            self._connection.write(b"0\r\n\r\n")
        await self._connection.drain()
        self._records.end(self._record, "cut" if cut else "whole", self._loop.time())
        if not orderly or not self._keep_alive or script.connection != "keep":
            await self._connection.finish(reset=reset)

    # ── bytes of the body ──

    async def _send(self, data: bytes) -> None:
        for place, part in enumerate(self._parts(data)):
            if place:
                await self._between_parts()
            await self._part(part)
        await self._connection.drain()

    def _parts(self, data: bytes) -> list[bytes]:
        split_at = self._script.split_at
        if not data:
            return []
        if isinstance(split_at, int):
            size = split_at or len(data)
            return [data[start : start + size] for start in range(0, len(data), size)]
        inside = sorted(at - self._offset for at in set(split_at) if 0 < at - self._offset < len(data))
        edges = [0, *inside, len(data)]
        return [data[start:end] for start, end in pairwise(edges)]

    async def _between_parts(self) -> None:
        if self._script.split_ms:
            await self._wait(self._script.split_ms / 1000)
        else:
            for _ in range(TURNS_BETWEEN_PARTS):
                await asyncio.sleep(0)

    async def _part(self, part: bytes) -> None:
        """Send one part in one write, unless the script stops within it: then its frame stays half."""
        cut_in = self._script.cut_at_byte
        if self._script.cut == "clean" and cut_in is not None:
            part = part[: cut_in - self._offset]  # its frame is whole: the end is in good order
        front, back = (b"%x\r\n" % len(part), b"\r\n") if self._framing == "chunked" else (b"", b"")
        frame, sent = front + part + back, 0
        end_of_part = self._offset + len(part)
        start = self._offset
        while self._edges and self._edges[0][0] <= end_of_part:
            at = self._edges[0][0]
            to = len(frame) if at == end_of_part else len(front) + at - start
            self._connection.write(frame[sent:to])
            sent = to
            self._left(at)
            await self._at_edge(at)
        self._connection.write(frame[sent:])
        self._left(end_of_part)

    def _left(self, offset: int) -> None:
        self._offset = offset
        self._record.sent_bytes = offset

    async def _at_edge(self, at: int) -> None:
        while self._edges and self._edges[0][0] == at:
            _, kind = self._edges.pop(0)
            if kind == "cut":
                raise _BrokenOff
            self._records.changed()
            stall_ms = self._script.stall_ms
            await self._wait(None if stall_ms is None else stall_ms / 1000)

    # ── time ──

    async def _pause(self, pause: Pause) -> None:
        if not pause.every_s or not pause.beat:
            await self._wait(pause.seconds)
            return
        left = float("inf") if pause.seconds is None else pause.seconds
        while left > pause.every_s:
            await self._wait(pause.every_s)
            left -= pause.every_s
            await self._send(_coded(self._coder, pause.beat))
        await self._wait(left)

    async def _wait(self, seconds: float | None) -> None:
        """Wait; None: for ever. Waits follow each other without drift; one that is late is made up for."""
        if seconds is None:
            await _for_ever()
            return
        if seconds:
            self._due += seconds
            await asyncio.sleep(max(0.0, self._due - self._loop.time()))
        self._due = max(self._due, self._loop.time() - seconds)


async def _for_ever() -> None:
    """Until cancelled: the client leaves, or the simulator is closed."""
    await asyncio.get_running_loop().create_future()


def _coder(encoding: str) -> zlib._Compress | None:
    if encoding == "identity":
        return None
    return zlib.compressobj(wbits=31 if encoding == "gzip" else 15)


def _coded(coder: zlib._Compress | None, data: bytes) -> bytes:
    """``data`` compressed and flushed, so that each event can be read when it has come."""
    return data if coder is None else coder.compress(data) + coder.flush(zlib.Z_SYNC_FLUSH)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"
