"""One call upstream that several equal requests read, each at its own place.

A task of nobody's request reads the upstream, so whoever leaves cancels no other; when the last one has left,
the task and the call end. It reads on for the fastest reader, and keeps so much for the others.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from server.answer_cache import Caching, size_of_batch
from server.deltas import Batch, Deltas
from server.errors import Overloaded, ShuttingDown
from server.tasks import TaskOwner
from server.upstreams.base import Call

# The upstream is read so far ahead of the fastest reader. (bytes)
AHEAD_BYTES = 32 * 1024
# A reader that is further behind the newest batch is given up, and nobody can join any more. (bytes)
BEHIND_BYTES = 256 * 1024


class SharedCalls:
    """The calls under way that equal requests may join."""

    def __init__(self, tasks: TaskOwner) -> None:
        self._tasks = tasks
        self._open: dict[bytes, SharedCall] = {}

    def __len__(self) -> int:
        return len(self._open)

    def join(self, key: bytes) -> SharedCall | None:
        """The call that answers a request like this one, if it still has all that came from its start on."""
        found = self._open.get(key)
        return found if found is not None and found.has_start else None

    def begin(self, key: bytes, source: Deltas, lead: Call) -> SharedCall:
        """Have ``source`` read, whose steps are noted in ``lead``. Whoever calls reads the result at once."""
        made = SharedCall(self, key, source, lead)
        self._open[key] = made
        made.task = self._tasks.create(made.carry_out(), name="shared call", awaited=True)
        return made

    def forget(self, key: bytes, call: SharedCall) -> None:
        """Nobody can join ``call`` any more."""
        if self._open.get(key) is call:
            del self._open[key]


class SharedCall:
    """One such call. ``lead`` is the call that is carried out."""

    def __init__(self, calls: SharedCalls, key: bytes, source: Deltas, lead: Call) -> None:
        self.lead = lead
        self.task: asyncio.Task[None] | None = None
        self._calls = calls
        self._key = key
        self._source = source
        self._places: dict[_Place, None] = {}  # in the order of their coming
        self._kept: list[tuple[Batch, int]] = []
        self._first = 0  # the number of the first batch that is kept
        self._read = self._dropped = 0  # bytes that have come, and of these no longer kept
        self._room = asyncio.Event()
        self._over = False
        self._failure: Exception | None = ShuttingDown("The server is shutting down; send the request again.")

    @property
    def has_start(self) -> bool:
        """Is all there that came from the start on?"""
        return self._first == 0

    async def carry_out(self) -> None:
        """Read the source to its end; what it raises is every reader's."""
        try:
            async with aclosing(self._source) as batches:
                async for batch in batches:
                    self._add(batch)
                    while self._read - self._furthest() > AHEAD_BYTES:
                        self._room.clear()
                        await self._room.wait()
            self._failure = None
        except Exception as error:  # noqa: BLE001 - raised again by each reader
            self._failure = error
        finally:
            self._over = True
            self._calls.forget(self._key, self)
            self._wake()

    async def read(self, caching: Caching) -> AsyncGenerator[Batch, None]:
        """Yield every batch from the start on. Raises what the source raises, ``Overloaded`` if too slow.

        ``caching`` hears that this is a ``miss`` after all, if the one who made the call has left.
        """
        place = _Place(caching)
        self._places[place] = None
        try:
            while True:
                while place.number < self._first + len(self._kept):
                    if place.number < self._first:
                        raise Overloaded(
                            "This client reads too slowly to share an answer; ask again.", code="slow_reader"
                        )
                    batch, size = self._kept[place.number - self._first]
                    place.number += 1
                    place.read += size
                    self._room.set()
                    yield batch
                if self._over:
                    if self._failure is not None:
                        raise self._failure
                    return
                place.news.clear()
                await place.news.wait()
        finally:
            await self._leave(place)

    def _add(self, batch: Batch) -> None:
        size = size_of_batch(batch)
        self._kept.append((batch, size))
        self._read += size
        # The fastest one has read what is dropped: alone, nobody can be too slow.
        furthest = max((one.number for one in self._places), default=0)
        drop, left = 0, self._read - self._dropped
        while left > BEHIND_BYTES and self._first + drop < furthest:
            left -= self._kept[drop][1]
            drop += 1
        if drop:
            self._first += drop
            self._dropped = self._read - left
            del self._kept[:drop]
        self._wake()

    def _furthest(self) -> int:
        """Bytes that the fastest reader has read."""
        return max((one.read for one in self._places), default=0)

    def _wake(self) -> None:
        for place in self._places:
            place.news.set()

    async def _leave(self, place: _Place) -> None:
        paid = next(iter(self._places)) is place
        del self._places[place]
        self._room.set()
        if self._over or self.task is None:
            return
        if self._places:
            if paid:
                next(iter(self._places)).caching.note("miss")
            return
        self._calls.forget(self._key, self)
        self.task.cancel()
        await asyncio.wait({self.task})


class _Place:
    """How far one reader has come: the number of its next batch, and the bytes before it."""

    __slots__ = ("caching", "news", "number", "read")

    def __init__(self, caching: Caching) -> None:
        self.caching = caching
        self.news = asyncio.Event()
        self.number = 0
        self.read = 0
