"""What becomes of a request that comes while every channel of its model is left alone."""

from __future__ import annotations

import asyncio
import math
import random
from time import monotonic  # the event loop's clock

from server.errors import NoChannel
from server.routing.choice import Candidate, Chooser
from server.settings import Routing
from server.upstreams.base import Call

# When the only channel is just being probed, a client may come back so soon. (seconds)
PROBE_S = 1.0


class Patience:
    """Waits for the channels of one model that asked for a little time themselves.

    Where no other is left, a wait within the request is better than a refusal that the client has to wait out
    for itself: ``routing.max_backoff_s`` is the longest. Whom a breaker keeps away is not waited for, nor is
    anybody by more calls than that channel's ``max_waiting``.
    """

    def __init__(self, model: str, chooser: Chooser, rng: random.Random, routing: Routing) -> None:
        self._model = model
        self._chooser = chooser
        self._rng = rng
        self._routing = routing
        self._waiting = 0

    def helps(self, now: float, call: Call) -> bool:
        """Is there one to wait for?"""
        return self._soonest(now, now + self._routing.max_backoff_s, call) is not None

    async def ready(self, call: Call) -> Candidate:
        """The channel to ask, as soon as there is one. The wait counts as time of the call.

        Raises ``NoChannel`` when it is not worth to wait any longer.
        """
        routing = self._routing
        by = (began := monotonic()) + routing.max_backoff_s
        spread_s = routing.backoff_s
        told = False
        self._waiting += 1
        try:
            while (chosen := self._chooser.choose(now := monotonic())) is None:
                soonest = self._soonest(now, by, call)
                if soonest is None:
                    chosen = self.last(now)
                    break
                if call.observer is not None and not told:
                    call.observer.queued(soonest.state.name)
                    told = True
                # Not all at the same moment: what asked for patience would only ask again.
                late_s = self._rng.uniform(0, min(spread_s, routing.max_backoff_s))
                await asyncio.sleep(soonest.health.blocked_until - now + late_s)
                spread_s *= 2
        finally:
            self._waiting -= 1
        total_s = chosen.state.timeouts.of(call).total_s
        if call.deadline is None and total_s:
            call.deadline = began + total_s
        return chosen

    def last(self, now: float) -> Candidate:
        """Whom to ask where nobody is waited for: one whose probe is silent. Raises ``NoChannel``."""
        if (silent := self._chooser.silent(now)) is not None:
            return silent
        raise self._refusal(now)

    def _refusal(self, now: float) -> NoChannel:
        """Why nobody is asked, and for how long."""
        candidates = self._chooser.candidates
        if able := [one for one in candidates if one.state.able()]:
            soonest = min((one.health for one in able), key=lambda health: health.blocked_until)
            wait_s = PROBE_S if soonest.blocked_until == math.inf else max(soonest.blocked_until - now, 0.0)
            cause = f"after {soonest.last_code}"
            return NoChannel(
                f"Every channel of {self._model} is left alone for now, {cause}; try later.",
                retry_after_s=wait_s,
            )
        reasons = (one.state.upstream.unavailable for one in candidates)
        return NoChannel(next(reasons, None) or f"No channel serves {self._model} now; ask the operator.")

    def _soonest(self, now: float, by: float, call: Call) -> Candidate | None:
        """Who may be asked again first, if that is before ``by`` and leaves the call time enough."""
        cooling = [
            one for one in self._chooser.candidates if one.state.able() and one.health.breaker.until <= now
        ]
        if not cooling:
            return None
        one = min(cooling, key=lambda candidate: candidate.health.blocked_until)
        ready_at = one.health.blocked_until
        connect_s = one.state.timeouts.of(call).connect_s
        in_time = call.deadline is None or ready_at + connect_s <= call.deadline
        return one if ready_at <= by and in_time and self._waiting <= one.state.settings.max_waiting else None
