"""The clocks of one upstream call: first token, idle and total.

One timer serves them all: it is set once, looks at its expiry whether it is really time, and sets itself
anew. So a chunk costs one store, not a timer. While a call is far from any of its ends it has not even that:
a patrol passes by all such calls. (The connect clock is the HTTP client's own.)
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from server.errors import UpstreamTimeout
from server.settings import Timeouts

_NEVER = float("inf")
# A patrol passes by so often (seconds); a call gets a timer of its own in good time before it must end.
ROUND_S = 1.0


class Patrol:
    """Passes by the calls of one event loop that are far from any end, so that each needs no timer.

    ``aclose`` is not needed: with no call left it stops at the next round. ``stop`` ends it at once.
    """

    __slots__ = ("_calls", "_timer", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop  # kept, since asking for it is a system call
        self._calls: set[Clocks] = set()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, call: Clocks) -> None:
        """Look after ``call`` until ``discard``, or until it is handed a timer."""
        self._calls.add(call)
        if self._timer is None:
            self._timer = self.loop.call_later(ROUND_S, self._round)

    def discard(self, call: Clocks) -> None:
        """The call is over."""
        self._calls.discard(call)

    def stop(self) -> None:
        """No call is left, and none will come."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _round(self) -> None:
        self._timer = None
        soon = self.loop.time() + 2 * ROUND_S
        for call in [call for call in self._calls if call.first_end <= soon]:
            self._calls.discard(call)
            call.set_timer()
        if self._calls:
            self._timer = self.loop.call_later(ROUND_S, self._round)


class Clocks:
    """Watches one call from its start on. All times are the event loop's, in seconds.

    The first token's time begins with the call, connecting included: that is what a client waits for.

    ``patrol`` is that of the event loop.

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
        "_patrol",
        "_plain",
        "_spoken",
        "_timeouts",
        "_timer",
        "_total_by",
    )

    def __init__(
        self,
        patrol: Patrol,
        timeouts: Timeouts,
        *,
        plain: bool,
        deadline: float | None,
        head_in_time: bool = False,
    ) -> None:
        self._patrol = patrol
        self._loop = patrol.loop
        now = self._loop.time()
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
            if (end := self.first_end) <= self._loop.time() + 2 * ROUND_S:
                self.set_timer()
            elif end != _NEVER:
                self._patrol.add(self)

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
        self._patrol.discard(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _next(self) -> tuple[float, str]:
        silent = (self._heard + self._idle_s, "idle") if self._spoken else (self._first_by, "first_token")
        return min(silent, (self._total_by, "total"))

    @property
    def first_end(self) -> float:
        """When this call could have to end: at the earliest, if silence begins now or has begun."""
        # Silence may begin at any moment from now on, and its end must be seen then.
        return min(self._next()[0], self._loop.time() + self._idle_s)

    def set_timer(self) -> None:
        """Have a timer of its own from now on."""
        when = self.first_end
        if when != _NEVER:
            self._timer = self._loop.call_at(when, self._check)

    def _check(self) -> None:
        when, _ = self._next()
        if when > self._loop.time():
            self.set_timer()
            return
        self._timer = None
        assert self._expired is not None  # the timer is only set by watch
        self._expired(self.error())
