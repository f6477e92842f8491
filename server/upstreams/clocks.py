"""The clocks of one upstream call: first token, idle and total.

One timer serves them all: it is set once, looks at its expiry whether it is really time, and sets itself
anew. So a chunk costs one store, not a timer. (The connect clock is the HTTP client's own.)
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from server.errors import UpstreamTimeout
from server.settings import Timeouts

_NEVER = float("inf")


class Clocks:
    """Watches one call from its start on. All times are the event loop's, in seconds.

    ``plain`` calls run under the total clock alone, since a model may think for long before a plain answer;
    with ``head_in_time`` the first token's time is that of the answer's head.
    ``deadline`` is the caller's, if it has one. Call ``stop`` when the call is over.
    """

    __slots__ = (
        "_expired",
        "_first_by",
        "_heard",
        "_idle_s",
        "_loop",
        "_plain",
        "_spoken",
        "_timeouts",
        "_timer",
        "_total_by",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        timeouts: Timeouts,
        *,
        plain: bool,
        deadline: float | None,
        head_in_time: bool = False,
    ) -> None:
        self._loop = loop  # given, since asking for it is a system call
        now = loop.time()
        self._timeouts = timeouts
        self._total_by = min(now + (timeouts.total_s or _NEVER), _NEVER if deadline is None else deadline)
        first = timeouts.first_token_s and (head_in_time or not plain)
        self._first_by = now + timeouts.first_token_s if first else _NEVER
        self._idle_s = _NEVER if plain or not timeouts.idle_s else timeouts.idle_s
        self._plain = plain
        self._spoken = False
        self._heard = _NEVER  # when the silence began; never: it does not count now
        self._timer: asyncio.TimerHandle | None = None
        self._expired: Callable[[UpstreamTimeout], object] | None = None

    @property
    def head_by(self) -> float | None:
        """When the answer's head must have come, or None for no limit."""
        by = min(self._first_by, self._total_by)
        return None if by == _NEVER else by

    def error(self) -> UpstreamTimeout:
        """The error of the clock that runs out first."""
        _, clock = self._next()
        limits = {"first_token": self._timeouts.first_token_s, "idle": self._timeouts.idle_s}
        return UpstreamTimeout(clock, limits.get(clock, self._timeouts.total_s))

    def watch(self, expired: Callable[[UpstreamTimeout], object]) -> None:
        """Tell ``expired`` when a clock runs out, at most once, in the place of who was to be told so far.

        The first call begins the watch.
        """
        begun = self._expired is not None
        self._expired = expired
        if not begun:
            self._set()

    def head_came(self) -> None:
        """The answer's head is there: of a plain one that is all that could be timed."""
        if self._plain:
            self._first_by = _NEVER

    def spoken(self) -> None:
        """The first delta has come: the idle clock takes over, from the next ``heard`` on."""
        self._spoken = True
        self._heard = _NEVER

    def pause(self) -> None:
        """What comes is not read for now: our caller is the slow one, and no silence is the upstream's."""
        self._heard = _NEVER

    def heard(self) -> None:
        """Bytes of data have come, and more are read from now on."""
        self._heard = self._loop.time()

    def stop(self) -> None:
        """End the watch; nothing is called afterwards."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _next(self) -> tuple[float, str]:
        silent = (self._heard + self._idle_s, "idle") if self._spoken else (self._first_by, "first_token")
        return min(silent, (self._total_by, "total"))

    def _set(self) -> None:
        # Silence may begin at any moment from now on, and its end must be seen then.
        when = min(self._next()[0], self._loop.time() + self._idle_s)
        if when != _NEVER:
            self._timer = self._loop.call_at(when, self._check)

    def _check(self) -> None:
        when, _ = self._next()
        if when > self._loop.time():
            self._set()
            return
        self._timer = None
        assert self._expired is not None  # the timer is only set by watch
        self._expired(self.error())
