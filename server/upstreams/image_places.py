"""So many at once, and a bounded number that waits: images cost connections, threads and memory."""

from __future__ import annotations

import asyncio

from server.errors import ImagesBusy

# When to come again; a fetch or a conversion takes about that long. (seconds)
_RETRY_AFTER_S = 1.0


class Places:
    """``at_once`` have a place, ``waiting`` more may wait for one; ``work`` says in a word what for.

    Who is cancelled while he waits leaves the queue at once.
    """

    def __init__(self, at_once: int, waiting: int, work: str) -> None:
        self._places = asyncio.Semaphore(at_once)
        self._most_waiting = waiting
        self._work = work
        self.waiting = 0

    async def take(self, until: float | None) -> None:
        """Have a place, which is to be given back by ``give``.

        Raises ``ImagesBusy`` at once when too many wait, or at ``until`` (event loop time, seconds).
        """
        if self.waiting >= self._most_waiting and self._places.locked():
            raise self.busy()
        self.waiting += 1
        try:
            async with asyncio.timeout_at(until):
                await self._places.acquire()
        except TimeoutError:
            raise self.busy() from None
        finally:
            self.waiting -= 1

    def give(self) -> None:
        """Give a place back."""
        self._places.release()

    def busy(self) -> ImagesBusy:
        """What is told to who had no place, or not for long enough."""
        return ImagesBusy(
            f"Too many images are being {self._work}; try again in a moment.", retry_after_s=_RETRY_AFTER_S
        )
