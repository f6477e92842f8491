"""How much a simulated Spark lets one application do at once, in a second, in a day."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from server.simulators.spark_errors import SparkFault

_DAY_S = 86400.0


@dataclass(slots=True)
class SparkLimits:
    """Limits for each AppID; None: no limit. Times are the event loop's, in seconds."""

    sessions: int | None = None  # 11203
    per_second: int | None = None  # 11202
    per_day: int | None = None  # 11201
    one_per_user: bool = True  # 10006 for a uid that is connected already
    _live: list[tuple[str, str, Callable[[], bool]]] = field(default_factory=list)
    _begun: dict[str, deque[float]] = field(default_factory=dict)

    def enter(self, app_id: str, uid: str, now: float, live: Callable[[], bool]) -> None:
        """Count a session for as long as ``live()`` says. Raises SparkFault when it is one too many."""
        self._live = [session for session in self._live if session[2]()]
        mine = [session for session in self._live if session[0] == app_id]
        if uid and self.one_per_user and any(session[1] == uid for session in mine):
            raise SparkFault(10006)
        if self.sessions is not None and len(mine) >= self.sessions:
            raise SparkFault(11203)
        begun = self._begun.setdefault(app_id, deque(maxlen=100_000))
        while begun and begun[0] <= now - _DAY_S:
            begun.popleft()
        if self.per_day is not None and len(begun) >= self.per_day:
            raise SparkFault(11201)
        last_second = sum(1 for moment in reversed(begun) if moment > now - 1.0) if self.per_second else 0
        if self.per_second is not None and last_second >= self.per_second:
            raise SparkFault(11202)
        begun.append(now)
        self._live.append((app_id, uid, live))
