"""The events of one stream, kept so that readers may come, go, and come back: each from its own place."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from server.errors import Gone, InvalidRequest

MAX_BYTES = 4 * 1024 * 1024
"""Of one stream; beyond it the oldest events go."""


class KeptStream:
    """A log of whole server-sent events, numbered from 0. One writer; readers are never waited for."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self.ended = False
        self.size = 0
        self._max = max_bytes
        self._first = 0
        self._events: list[bytes] = []
        self._news = asyncio.Event()

    def append(self, data: bytes) -> None:
        """Add whole events, each with its blank line; none for b""."""
        events = [event + b"\n\n" for event in data.split(b"\n\n")[:-1]]
        if not events:
            return
        self._events += events
        self.size += len(data)
        gone = 0
        while self.size > self._max:
            self.size -= len(self._events[gone])
            gone += 1
        del self._events[:gone]
        self._first += gone
        self._wake()

    def end(self) -> None:
        """There will be no more."""
        self.ended = True
        self._wake()

    def check(self, number: int) -> None:
        """Raise ``Gone`` if some of the events behind ``number`` are no longer kept.

        Raises ``InvalidRequest`` for a number that no event has yet: nobody can have seen that one.
        """
        last = self._first + len(self._events) - 1
        if number > last:
            raise InvalidRequest(
                f"starting_after is {number}, the last event up to now is {last}; name one that you saw.",
                param="starting_after",
            )
        if number + 1 < self._first:
            raise Gone(
                f"Events up to {self._first - 1} are no longer kept; take the response as it stands.",
                param="starting_after",
            )

    async def after(self, number: int) -> AsyncGenerator[bytes, None]:
        """The events behind ``number`` as they come, what is there together at once, up to the last.

        Raises ``Gone`` when the reader's place is no longer kept, and as ``check`` at the beginning.
        """
        place = number + 1
        while True:
            self.check(place - 1)
            news = self._news
            ready = self._events[max(place - self._first, 0) :]
            if ready:
                place += len(ready)
                yield b"".join(ready)
            elif self.ended:
                return
            else:
                await news.wait()

    async def wait_ended(self) -> None:
        """Return when there will be no more."""
        while not self.ended:
            await self._news.wait()

    def _wake(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()
