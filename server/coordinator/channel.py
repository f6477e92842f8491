"""Between a run that writes its answer and the client's stream that reads it."""

from __future__ import annotations

import asyncio
from collections import deque

from server.deltas import Batch, Delta

# Batches that may wait for the reader: a slow client slows the upstream's socket, and memory stays bounded.
SIZE = 4


class AnswerChannel:
    """One writer's batches for one reader, a few at a time. Tied to no task: both ends may go at any time."""

    def __init__(self, size: int = SIZE) -> None:
        self._batches: deque[Batch] = deque()
        self._size = size
        self._closed = False
        self._filled = asyncio.Event()
        self._room = asyncio.Event()

    async def send(self, batch: Batch) -> None:
        """Hand over a batch; waits while the reader is behind. Several may send at once."""
        while len(self._batches) >= self._size:
            self._room.clear()
            await self._room.wait()
        self._batches.append(batch)
        self._filled.set()

    def put(self, batch: Batch) -> None:
        """Hand over a batch at once, beyond the bound: for the few that end a choice."""
        self._batches.append(batch)
        self._filled.set()

    def close(self) -> None:
        """Nothing more will be sent; what waits can still be read."""
        self._closed = True
        self._filled.set()

    async def receive(self) -> Batch | None:
        """All that waits, as one batch, so that it can leave in one write; None after the end."""
        while not self._batches:
            if self._closed:
                return None
            self._filled.clear()
            await self._filled.wait()
        if len(self._batches) == 1:
            batch = self._batches.popleft()
        else:
            joined: list[Delta] = [delta for one in self._batches for delta in one]
            self._batches.clear()
            batch = joined
        self._room.set()
        return batch
