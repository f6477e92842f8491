"""One connection to an upstream, and the answers that come over it one after another."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Mapping
from typing import Protocol, cast

from server.upstreams.http import Origin, Target, Watch
from server.upstreams.http_decoder import AnswerDecoder

# So much of a body may wait for its reader; then the socket is not read from. (bytes)
HIGH_WATER = 64 * 1024
# Up to here head and body are joined, so that they leave in one packet. (bytes)
JOINED_BYTES = 32 * 1024
# A host that has vanished (its power, the way to it) closes nothing: the kernel notices it after so long.
# One that only thinks acknowledges, so this holds for whole answers too, which else wait on. (seconds)
VANISHED_S = 30


class Owner(Protocol):
    """Who keeps the connections. ``buffer`` is what all of them read into: see ``Connection.get_buffer``."""

    buffer: memoryview
    loop: asyncio.AbstractEventLoop

    def free(self, connection: Connection, keep_s: float) -> None:
        """Its answer was read to the end; another request may follow within ``keep_s`` seconds."""

    def lost(self, connection: Connection) -> None: ...


class FastAnswer:
    """See ``http.HttpAnswer``."""

    __slots__ = ("_connection", "_decoder", "_error", "_waiter", "status")

    status: int

    def __init__(self, connection: Connection, decoder: AnswerDecoder) -> None:
        self._connection: Connection | None = connection
        self._decoder = decoder
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None

    @property
    def headers(self) -> Mapping[str, str]:
        """See ``http.HttpAnswer``."""
        return self._decoder.headers

    @property
    def at_end(self) -> bool:
        """See ``http.HttpAnswer``."""
        return self._decoder.at_end

    async def head(self) -> None:
        """Wait for the head; ``status`` is set, and ``headers`` are there, when this returns."""
        decoder = self._decoder
        while not decoder.head_done:
            if self._error is not None:
                raise self._error
            if decoder.fault is not None:
                raise decoder.fault
            await self._wait()
        self.status = decoder.status

    async def read(self) -> bytes:
        """See ``http.HttpAnswer``."""
        decoder = self._decoder
        while self._error is None:
            if data := decoder.take():
                if self._connection is not None:
                    self._connection.taken(decoder.queued)
                return data
            if decoder.complete:
                return b""
            if decoder.fault is not None:
                raise decoder.fault
            await self._wait()
        raise self._error

    def fail(self, error: Exception) -> None:
        """See ``http.HttpAnswer``."""
        self._error = error
        self.wake()

    def close(self) -> None:
        """See ``http.HttpAnswer``. A second call does nothing."""
        if (connection := self._connection) is None:
            return
        self._connection = None
        connection.release(self._decoder)
        self._decoder.stop()

    def wake(self) -> None:
        """Let the reader look at what has come."""
        if (waiter := self._waiter) is not None:
            self._waiter = None
            if not waiter.done():
                waiter.set_result(None)

    async def _wait(self) -> None:
        if self._waiter is not None or self._connection is None:
            raise RuntimeError("an answer is read by one reader, until it is closed")
        waiter = self._waiter = self._connection.new_future()
        try:
            await waiter
        finally:
            self._waiter = None


class Connection(asyncio.BufferedProtocol):
    """One socket. It carries one request at a time; between two of them its owner keeps it."""

    __slots__ = (
        "_answer",
        "_decoder",
        "_ended",
        "_keep",
        "_owner",
        "_paused",
        "_transport",
        "heard",
        "idle_until",
        "origin",
    )

    def __init__(self, owner: Owner, origin: Origin) -> None:
        self.origin = origin
        self.idle_until = 0.0  # event loop time; set by the owner while it is idle
        self.heard = False  # of a request that failed: whether any byte of an answer had come
        self._owner = owner
        self._answer: FastAnswer | None = None
        self._decoder: AnswerDecoder | None = None
        self._ended = False
        self._keep = True
        self._paused = False
        self._transport: asyncio.Transport

    @property
    def usable(self) -> bool:
        """It is open, as far as is known."""
        return not self._ended and not self._transport.is_closing()

    async def ask(self, target: Target, body: bytes, watch: Watch) -> FastAnswer:
        """Send a request; return its answer when the head has come. If it raises, this is closed."""
        decoder = self._decoder = AnswerDecoder()
        answer = self._answer = FastAnswer(self, decoder)
        self._keep = target.keep
        head = b"%b%d\r\n\r\n" % (target.head, len(body))
        if len(body) <= JOINED_BYTES:
            self._transport.write(head + body)
        else:
            self._transport.writelines((head, body))
        if self._ended:  # lost while it lay idle, in this very turn of the loop
            decoder.eof(in_order=False)
        watch(answer.fail)
        try:
            await answer.head()
        except BaseException:
            self.heard = decoder.heard
            answer.close()
            raise
        return answer

    def new_future(self) -> asyncio.Future[None]:
        """A future of the connection's event loop."""
        return self._owner.loop.create_future()

    def release(self, decoder: AnswerDecoder) -> None:
        """The answer is no longer read: lie idle if it was read out and all is in order, else close."""
        self._answer = self._decoder = None
        # A server that answers before it has read the whole request would take its rest for the next one.
        if (
            decoder.reusable
            and decoder.at_end
            and self._keep
            and self.usable
            and not self._transport.get_write_buffer_size()
        ):
            self._owner.free(self, decoder.keep_s)
        else:
            self.abort()

    def taken(self, queued: int) -> None:
        """The reader has taken what was there but for ``queued`` bytes."""
        if self._paused and queued < HIGH_WATER:
            self._paused = False
            if self.usable:
                self._transport.resume_reading()

    def abort(self) -> None:
        """Close the socket now. The transport's ``close`` waits for what is unsent, or for TLS's farewell."""
        self._transport.abort()

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        _notice_vanishing(transport.get_extra_info("socket"))

    def get_buffer(self, sizehint: int) -> memoryview:
        """One buffer serves every connection of the loop: it is filled and emptied within one turn."""
        return self._owner.buffer

    def buffer_updated(self, nbytes: int) -> None:
        decoder, answer = self._decoder, self._answer
        if decoder is None or answer is None:
            self.abort()  # bytes that nobody asked for: what they mean for the next request, nobody knows
            return
        decoder.feed(self._owner.buffer[:nbytes])
        if decoder.queued >= HIGH_WATER and not self._paused and not decoder.complete:
            self._paused = True
            self._transport.pause_reading()
        if decoder.fault is not None:
            self.abort()
        answer.wake()

    def eof_received(self) -> None:
        """The server closed in good order.

        With TLS: it said so. uvloop does not call this for a truncated stream; asyncio cannot tell.
        """
        self._end(in_order=True)
        self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(in_order=False)
        self._owner.lost(self)

    def _end(self, *, in_order: bool) -> None:
        self._ended = True
        if self._decoder is not None and self._answer is not None:
            self._decoder.eof(in_order=in_order)
            self._answer.wake()


def _notice_vanishing(sock: socket.socket) -> None:
    """Have the kernel end the connection when the other host acknowledges nothing for ``VANISHED_S``."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if sys.platform == "linux":
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, VANISHED_S // 2)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, VANISHED_S // 6)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, VANISHED_S * 1000)
