"""A line that breaks: a proxy that cuts each connection after some bytes, wherever that is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random


class Scissors:
    """Cuts by ``rng``: within the head, within a frame, between two; ``cuts`` counts what was cut so far."""

    def __init__(self, target: int, rng: Random) -> None:
        self._target = target
        self._rng = rng
        self.cuts = 0
        self._carrying: set[asyncio.Task[None]] = set()

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one more connection, in a task of its own."""
        task = asyncio.ensure_future(self._carry(reader, writer))
        self._carrying.add(task)
        task.add_done_callback(self._carrying.discard)

    async def close(self) -> None:
        """Drop all connections."""
        if tasks := set(self._carrying):
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        left = self._rng.choice((self._rng.randrange(1, 400), self._rng.randrange(400, 9000)))
        resets = self._rng.random() < 0.5
        there, back = await asyncio.open_connection("127.0.0.1", self._target)
        try:
            asking = asyncio.ensure_future(_copy(reader, back))
            try:
                while left > 0 and (data := await there.read(min(left, 4096))):
                    left -= len(data)
                    writer.write(data)
                    await writer.drain()
                if left <= 0:
                    self.cuts += 1
            finally:
                asking.cancel()
                await asyncio.wait({asking})
        except ConnectionError:
            pass
        finally:
            if resets:
                writer.transport.abort()
            for end in (writer, back):
                end.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(4096):
            writer.write(data)
            await writer.drain()
        writer.close()
    except ConnectionError:
        pass


@asynccontextmanager
async def breaking_line(target: int, rng: Random) -> AsyncIterator[tuple[Scissors, int]]:
    """The proxy in front of port ``target``, for the length of the block, and its own port."""
    scissors = Scissors(target, rng)
    server = await asyncio.start_server(scissors.accept, "127.0.0.1", 0)
    try:
        yield scissors, server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await scissors.close()
