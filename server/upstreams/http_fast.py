"""Our own HTTP/1.1 client: asyncio's transports, httptools as the parser, a pool of kept connections.

It costs a fourth of what aiohttp's client does. It knows POST with a body at hand, over TCP or TLS; it knows
no proxy, no cookie, no redirect.
"""

from __future__ import annotations

import asyncio
import socket
from functools import partial

from aiohappyeyeballs import start_connection

from server.errors import UpstreamUnreachable
from server.upstreams.clocks import Patrol
from server.upstreams.http import (
    KEEP_S,
    Again,
    Origin,
    Target,
    Watch,
    nobody_counts,
    nobody_watches,
    unreachable,
    watched,
)
from server.upstreams.http_connection import Connection, FastAnswer

# What one read may bring. Smaller than the event loop's own, so that a paused stream holds little. (bytes)
READ_BYTES = 64 * 1024
# Of a name's many addresses the next one is tried after so long. (seconds)
NEXT_ADDRESS_S = 0.25
# A kept connection that ends this soon after a request was put on it had been closed before. (seconds)
STALE_S = 0.5
# Connections that nobody needs any more are looked for not more often. (seconds)
SWEEP_S = 5.0


class FastClient:
    """See ``http.HttpClient``. Belongs to the event loop that it is made in.

    An idle connection is kept for ``keep_s`` seconds, and closed at most ``sweep_s`` later; ``stale_s`` is
    how soon one must end after a request to be taken for one that had been closed before.
    """

    def __init__(self, *, keep_s: float = KEEP_S, sweep_s: float = SWEEP_S, stale_s: float = STALE_S) -> None:
        self.loop = asyncio.get_running_loop()  # kept: each asking for it is a system call
        self.patrol = Patrol(self.loop)
        self._keep_s, self._sweep_s, self._stale_s = keep_s, sweep_s, stale_s
        self.buffer = memoryview(bytearray(READ_BYTES))
        self._open: set[Connection] = set()
        self._idle: dict[Origin, list[Connection]] = {}  # the last one used is at the end, and taken first
        self._sweeper: asyncio.TimerHandle | None = None
        self._closed = False
        self._all_lost = asyncio.Event()

    async def post(
        self,
        target: Target,
        body: bytes,
        *,
        connect_s: float,
        watch: Watch = nobody_watches,
        again: Again = nobody_counts,
    ) -> FastAnswer:
        """See ``http.HttpClient``.

        A kept connection that ends without one byte of an answer is replaced once by a new one: the server
        had closed it while it lay idle and never saw the request. That is not certain, so it must end at
        once (a server that dies while it works on the request does so later, and is not asked again), and
        ``again`` is told: it is an attempt like any other.
        """
        if (kept := self._take(target.origin)) is not None:
            asked = self.loop.time()
            try:
                return await kept.ask(target, body, watch)
            except UpstreamUnreachable as error:
                if kept.heard or self.loop.time() - asked > self._stale_s:
                    raise
                again(error)
        connection = await self._connect(target, connect_s, watch)
        return await connection.ask(target, body, watch)

    async def aclose(self) -> None:
        """See ``http.HttpClient``."""
        self._closed = True
        self.patrol.stop()
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for connection in self._open:
            connection.abort()
        if self._open:
            await self._all_lost.wait()

    # What connections tell.

    def free(self, connection: Connection, keep_s: float) -> None:
        """Keep it for the next request to its origin."""
        keep_s = min(keep_s, self._keep_s)
        if keep_s <= 0 or self._closed:
            connection.abort()
            return
        connection.idle_until = self.loop.time() + keep_s
        self._idle.setdefault(connection.origin, []).append(connection)
        if self._sweeper is None:
            self._sweeper = self.loop.call_later(max(self._sweep_s, keep_s), self._sweep)

    def lost(self, connection: Connection) -> None:
        """It is closed."""
        self._open.discard(connection)
        kept = self._idle.get(connection.origin)
        if kept is not None and connection in kept:
            kept.remove(connection)
        if self._closed and not self._open:
            self._all_lost.set()

    def _take(self, origin: Origin) -> Connection | None:
        if self._closed:
            raise RuntimeError("the client is closed")
        if kept := self._idle.get(origin):
            now = self.loop.time()
            while kept:
                connection = kept.pop()
                if connection.idle_until > now and connection.usable:
                    return connection
                connection.abort()
        return None

    def _sweep(self) -> None:
        """Close what lay idle for too long. One timer looks after all connections."""
        now, self._sweeper = self.loop.time(), None
        for origin, kept in list(self._idle.items()):
            for connection in kept:
                if connection.idle_until <= now:
                    connection.abort()
            kept[:] = [connection for connection in kept if connection.idle_until > now]
            if not kept:
                del self._idle[origin]
        ends = [connection.idle_until for kept in self._idle.values() for connection in kept]
        if ends:
            self._sweeper = self.loop.call_later(max(self._sweep_s, min(ends) - now), self._sweep)

    async def _connect(self, target: Target, connect_s: float, watch: Watch) -> Connection:
        try:
            connection = await watched(
                self._dial(target), watch, discard=Connection.abort, connect_s=connect_s
            )
        # A TimeoutError is the kernel's. For some addresses uvloop raises RuntimeError; a name that cannot be
        # one raises UnicodeError.
        except (OSError, RuntimeError, UnicodeError) as error:
            raise unreachable() from error
        # Not in connection_made: uvloop closes what a cancelled dial had made without telling its protocol.
        if connection.usable:
            self._open.add(connection)
        if self._closed:
            connection.abort()
        return connection

    async def _dial(self, target: Target) -> Connection:
        loop = self.loop
        host, port, tls = target.origin
        make = partial(Connection, self, target.origin)
        name = host.rstrip(".") if tls is not None else None
        if target.literal:
            _, connection = await loop.create_connection(make, host, port, ssl=tls, server_hostname=name)
            return connection
        # Not by create_connection: uvloop's tries address after address, and one dead family costs the clock.
        addresses = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        sock = await start_connection(addresses, happy_eyeballs_delay=NEXT_ADDRESS_S)
        try:
            _, connection = await loop.create_connection(make, sock=sock, ssl=tls, server_hostname=name)
        except BaseException:
            sock.close()
            raise
        return connection
