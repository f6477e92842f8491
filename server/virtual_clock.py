"""An event loop whose time jumps to the next timer: nobody waits, and all happens in the same order."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable


class Stalled(RuntimeError):
    """Everybody waits for somebody else: nothing will ever happen."""


class _NoWaiting(selectors.SelectSelector):
    """Gives what is ready; in place of waiting, time passes."""

    def __init__(self, passes: Callable[[float], None]) -> None:
        super().__init__()
        self._passes = passes

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None:
            raise Stalled("nothing is left to happen")
        self._passes(timeout)
        return ready


class VirtualClockLoop(asyncio.SelectorEventLoop):
    """Its time begins at 0 and passes only while everybody sleeps; for code without sockets and threads."""

    def __init__(self) -> None:
        self._now = 0.0
        super().__init__(_NoWaiting(self._pass))

    def time(self) -> float:
        """Seconds since the loop was made."""
        return self._now

    def _pass(self, seconds: float) -> None:
        self._now += seconds
