"""An upstream in bytes: a real server on loopback that does with each connection what a test says."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple

from tests.raw_http import PATIENCE_S


class Request(NamedTuple):
    head: bytes
    body: bytes


class Peer:
    """The server's side of one connection; every wait fails after ten seconds."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    async def head(self) -> bytes:
        """The next request's head."""
        async with asyncio.timeout(PATIENCE_S):
            return await self._reader.readuntil(b"\r\n\r\n")

    async def request(self) -> Request:
        """The next request, whole."""
        head = await self.head()
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        async with asyncio.timeout(PATIENCE_S):
            return Request(head, await self._reader.readexactly(length))

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        async with asyncio.timeout(PATIENCE_S):
            await self.writer.drain()

    def close(self) -> None:
        self.writer.close()

    def reset(self) -> None:
        """End the connection at once, without a farewell (a reset, or a truncated TLS stream)."""
        self.writer.transport.abort()

    async def gone(self) -> None:
        """Wait until the client has closed; what it still sends is dropped."""
        with suppress(ConnectionError):
            async with asyncio.timeout(PATIENCE_S):
                while await self._reader.read(65536):
                    pass


class RawUpstream:
    """``peers`` are the connections so far, ``open`` those that are not closed."""

    def __init__(self) -> None:
        self.port = 0
        self.peers: list[Peer] = []
        self.open: set[Peer] = set()


@asynccontextmanager
async def raw_upstream(
    serve: Callable[[Peer], Awaitable[None]], *, tls: ssl.SSLContext | None = None
) -> AsyncIterator[RawUpstream]:
    """``serve`` is awaited for each connection, which is closed when it returns. Its faults end the test."""
    upstream = RawUpstream()
    faults: list[Exception] = []
    tasks: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        peer = Peer(reader, writer)
        upstream.peers.append(peer)
        upstream.open.add(peer)
        try:
            await serve(peer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client is gone, or the test is over
        except Exception as fault:  # noqa: BLE001 - shown by the test
            faults.append(fault)
        finally:
            writer.close()
            with suppress(ConnectionError, ssl.SSLError, asyncio.CancelledError):
                await writer.wait_closed()
            upstream.open.discard(peer)
            tasks.discard(task)

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=tls)
    upstream.port = server.sockets[0].getsockname()[1]
    try:
        yield upstream
        assert not faults
    finally:
        server.close()
        for peer in upstream.open:
            peer.reset()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=PATIENCE_S)
        await server.wait_closed()
