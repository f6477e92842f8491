"""One connection of a simulated upstream: requests in, bytes out exactly as told, down to the reset.

HTTP/1.1 is read by hand, for an HTTP library would not let a broken answer out. A client that leaves is
noticed at once, whatever the answer is waiting for: its task is cancelled by ``connection_lost``.
"""

from __future__ import annotations

import asyncio
import re
import socket
import struct
from collections.abc import Callable
from typing import NamedTuple, Protocol, cast

MAX_HEAD_BYTES = 64 * 1024
MAX_BODY_BYTES = 256 * 1024 * 1024

_REQUEST_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([^\x00-\x20\x7f]+) HTTP/1\.([01])")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\x00\r\n]*?)[ \t]*")
_RESET_AT_CLOSE = struct.pack("ii", 1, 0)


class BadRequest(Exception):
    """What came is not HTTP."""


class Request(NamedTuple):
    """One request, its body whole and unchunked."""

    method: str
    target: str
    keep_alive: bool
    headers: tuple[tuple[str, str], ...]  # in their order, names as they came
    body: bytes


class Owner(Protocol):
    """Who holds the connections and carries out what they ask."""

    def connected(self, connection: Connection) -> asyncio.Task[None]:
        """Take charge of a new connection; return the task that serves it, to cancel when it is lost."""

    def lost(self, connection: Connection) -> None:
        """Note that a connection ended, by whichever side."""


class Connection(asyncio.Protocol):
    """One accepted connection. ``number`` counts them from 1."""

    def __init__(self, owner: Owner, number: Callable[[], int]) -> None:
        self.number = 0
        self.gone = False  # the client has left, or we have closed
        self.closed = asyncio.get_running_loop().create_future()
        self._owner, self._next_number = owner, number
        self._received = bytearray()
        self._more: asyncio.Future[None] | None = None
        self._writable: asyncio.Future[None] | None = None

    # ── asyncio's side ──

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass of it
        self.number = self._next_number()
        if (sock := self._transport.get_extra_info("socket")) is not None:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._task = self._owner.connected(self)

    def data_received(self, data: bytes) -> None:
        self._received += data
        if len(self._received) > MAX_BODY_BYTES + MAX_HEAD_BYTES:
            self.abort()
        _wake(self._more)

    def eof_received(self) -> None:
        # A client that closed its side is taken for gone, though it might still read.
        self.abort()

    def pause_writing(self) -> None:
        self._writable = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        _wake(self._writable)
        self._writable = None

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone = True
        self._owner.lost(self)
        self._task.cancel()
        _wake(self.closed)

    # ── reading ──

    async def next_request(self) -> Request:
        """The next request; the end of the connection cancels the wait. Raises BadRequest."""
        head = await self._head()
        first, *lines = head.split(b"\r\n")
        match = _REQUEST_LINE.fullmatch(first)
        if match is None:
            raise BadRequest("malformed request line")
        headers = []
        for line in lines:
            field = _FIELD.fullmatch(line)
            if field is None:
                raise BadRequest("malformed header")
            headers.append((field[1].decode("ascii"), field[2].decode("latin-1")))
        lower = {name.lower(): value for name, value in headers}
        if lower.get("expect", "").lower() == "100-continue":
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await self._body(lower)
        wanted = lower.get("connection", "").lower()
        keep_alive = "close" not in wanted if match[3] == b"1" else "keep-alive" in wanted
        return Request(match[1].decode(), match[2].decode("latin-1"), keep_alive, tuple(headers), body)

    async def some(self) -> bytes:
        """Whatever has come, at least a byte; for what follows an upgrade. The end cancels the wait."""
        while not self._received:
            await self._wait_for_more()
        return self._take(len(self._received))

    async def _head(self) -> bytes:
        while self._received[:2] == b"\r\n":  # some clients end a body with a line too many
            del self._received[:2]
        while (end := self._received.find(b"\r\n\r\n")) < 0:
            if len(self._received) > MAX_HEAD_BYTES:
                raise BadRequest("the head is too long")
            await self._wait_for_more()
        return self._take(end + 4)[:-4]

    async def _body(self, headers: dict[str, str]) -> bytes:
        if "transfer-encoding" in headers:
            if headers["transfer-encoding"].lower() != "chunked" or "content-length" in headers:
                raise BadRequest("unknown or doubled framing")
            return await self._chunked_body()
        length = headers.get("content-length", "0")
        if not re.fullmatch("[0-9]{1,12}", length) or int(length) > MAX_BODY_BYTES:
            raise BadRequest("bad Content-Length")
        return await self._exactly(int(length))

    async def _chunked_body(self) -> bytes:
        body = bytearray()
        while True:
            size_line = (await self._line()).split(b";")[0].strip()
            if not re.fullmatch(rb"[0-9A-Fa-f]{1,8}", size_line):
                raise BadRequest("bad chunk size")
            size = int(size_line, 16)
            if len(body) + size > MAX_BODY_BYTES:
                raise BadRequest("the body is too large")
            if size == 0:
                while await self._line():  # trailers
                    pass
                return bytes(body)
            body += await self._exactly(size)
            if await self._line():
                raise BadRequest("no line end after a chunk")

    async def _line(self) -> bytes:
        while (end := self._received.find(b"\r\n")) < 0:
            if len(self._received) > MAX_HEAD_BYTES:
                raise BadRequest("a line is too long")
            await self._wait_for_more()
        return self._take(end + 2)[:-2]

    async def _exactly(self, size: int) -> bytes:
        while len(self._received) < size:
            await self._wait_for_more()
        return self._take(size)

    def _take(self, size: int) -> bytes:
        taken = bytes(memoryview(self._received)[:size])
        del self._received[:size]
        return taken

    async def _wait_for_more(self) -> None:
        """Wait for bytes. The end of the connection cancels the task that waits here."""
        self._more = asyncio.get_running_loop().create_future()
        await self._more

    # ── writing ──

    def write(self, data: bytes) -> None:
        """Send bytes, in a segment of their own where the kernel allows it."""
        if not self.gone:
            self._transport.write(data)

    async def drain(self) -> None:
        """Wait until a slow client has taken enough for more to be written."""
        if self._writable is not None:
            await self._writable

    def end_writing(self) -> None:
        """Say that nothing more will come, and go on reading. (TLS has no such thing.)"""
        if not self.gone and self._transport.can_write_eof():
            self._transport.write_eof()

    async def finish(self, *, reset: bool = False) -> None:
        """Close once everything written has gone to the kernel: in good order, or with a reset.

        Does not return before the connection is closed: it is ended by the cancellation of its task.
        """
        self._transport.set_write_buffer_limits(high=0)
        await self.drain()
        if reset:
            if (sock := self._transport.get_extra_info("socket")) is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_CLOSE)
            self._transport.abort()
        else:
            self._transport.close()
        await self.closed

    def abort(self) -> None:
        """Drop the connection and whatever is unsent."""
        self._transport.abort()


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)
