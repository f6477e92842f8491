"""The circuit breaker of one channel for one model. It reads no clock: times are passed in, in seconds."""

from __future__ import annotations

import math
from collections import Counter
from typing import Literal, TypeAlias

from server.settings import Breaker as BreakerSettings

State: TypeAlias = Literal["closed", "open", "half_open"]

# A probe that has said nothing for so long keeps others away no more, where nobody else can be asked: it may
# be a question that is answered after minutes, and must not shut a model for as long. (seconds)
SILENT_S = 10.0
# So many failures of one run count: a call's and its second try's. A run may make a dozen calls at once, and
# one bad moment of one client must not shut a channel for all.
OF_ONE_RUN = 2


class Breaker:
    """Closed: calls pass. Open: none does, until its time is over. Half-open: one call passes, the probe.

    It opens on so many failures in a row, or on a share of failures among the last calls. A probe that fails
    opens it for twice as long. ``until`` is the time up to which no call may begin: 0 when closed, infinity
    while a probe is under way. ``failures`` counts those in a row. A further probe may ``begin`` beside
    one that is ``silent``. The calls of one run, as those of its judges, count for ``OF_ONE_RUN`` at most.
    """

    __slots__ = (
        "_calls",
        "_calls_before",
        "_failed",
        "_failed_before",
        "_failed_runs",
        "_probe_at",
        "_turn_at",
        "failures",
        "settings",
        "state",
        "trips",
        "until",
    )

    def __init__(self, settings: BreakerSettings) -> None:
        self.settings = settings
        self.state: State = "closed"
        self.until = 0.0
        self.failures = 0
        self.trips = 0  # openings since the last call that succeeded
        # Calls of this half of the window and of the one before: enough to know the share roughly.
        self._calls = self._failed = self._calls_before = self._failed_before = 0
        self._turn_at = self._probe_at = 0.0
        self._failed_runs: Counter[str] = Counter()  # of the failures in a row, how many are of each run

    def begin(self, now: float) -> bool:
        """A call begins, at or after ``until``, or beside a silent probe. Is it the probe?"""
        if self.state == "closed":
            return False
        self.state = "half_open"
        self.until = math.inf
        self._probe_at = now
        return True

    def silent(self, now: float) -> bool:
        """Has the last probe said nothing for ``SILENT_S``, or ``open_s`` if that is longer?"""
        return self.until == math.inf and now - self._probe_at >= max(self.settings.open_s, SILENT_S)

    def answered(self) -> None:
        """The probe has said something: calls may pass again. The next failure opens anew."""
        self.state = "closed"
        self.until = 0.0

    def succeeded(self, now: float) -> None:
        """A call's answer is whole. That of a call from before the opening closes nothing."""
        if self.until == 0:  # closed
            self.failures = self.trips = 0
            if now >= self._turn_at:
                self._turn(now)
            self._calls += 1

    def failed(self, now: float, *, probe: bool = False, run: str = "") -> bool:
        """A call, one of ``run``'s if that is named, failed by the upstream's fault. Did that open it?"""
        if self.state == "open" or (self.state == "half_open" and not probe):
            return False  # it began before the opening, and tells nothing new
        if run and self.settings.failures and not self._tells(run) and not probe:
            return False
        self.failures += 1
        if now >= self._turn_at:
            self._turn(now)
        self._calls += 1
        self._failed += 1
        trial = probe and self.state == "half_open"  # else another probe has answered meanwhile
        if not (trial or self._too_many()):
            return False
        self._open(now)
        return True

    def _tells(self, run: str) -> bool:
        """Does another failure of this run tell more than those before?"""
        if not self.failures:
            self._failed_runs.clear()  # there was a success
        if self._failed_runs[run] >= OF_ONE_RUN:
            return False
        self._failed_runs[run] += 1
        return True

    def abandoned(self, now: float) -> None:
        """The probe ended without telling anything of the upstream: the next call is the probe."""
        if self.until == math.inf:
            self.until = now

    def _open(self, now: float) -> None:
        settings = self.settings
        # The exponent is bounded, lest an outage of weeks overflow.
        open_s = min(settings.open_s * 2 ** min(self.trips, 30), settings.max_open_s)
        self.trips += 1
        self.state = "open"
        self.until = now + open_s
        self._calls = self._failed = self._calls_before = self._failed_before = 0
        self._failed_runs.clear()

    def _too_many(self) -> bool:
        settings = self.settings
        if settings.failures and (self.failures >= settings.failures or self.trips):
            return True
        calls = self._calls + self._calls_before
        failed = self._failed + self._failed_before
        return bool(settings.rate) and calls >= settings.min_calls and failed >= settings.rate * calls

    def _turn(self, now: float) -> None:
        """A half of the window is over."""
        half_s = self.settings.window_s / 2
        fresh = now < self._turn_at + half_s
        self._calls_before, self._failed_before = (self._calls, self._failed) if fresh else (0, 0)
        self._calls = self._failed = 0
        self._turn_at = now + half_s
