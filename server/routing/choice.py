"""Which channel is asked: strict priority, then weight, least latency or least busy.

A choice among a hundred healthy channels draws one and looks at it; only when several draws meet channels
that cannot be asked are all of them looked at.
"""

from __future__ import annotations

import math
import random
from bisect import bisect
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import accumulate, groupby

from server.routing.channel import ChannelState
from server.routing.health import Health
from server.settings import ChannelModel, Policy

# So often is drawn before every channel is looked at. Rejected draws do not change the shares.
DRAWS = 4


class Candidate:
    """A channel that serves the model: ``served`` says how, ``health`` how well."""

    __slots__ = ("health", "served", "state")

    def __init__(self, state: ChannelState, served: ChannelModel, model: str) -> None:
        self.state = state
        self.served = served
        self.health: Health = state.health.of(model)

    def well(self, now: float) -> bool:
        """May it be asked at once, and is there nothing against it?"""
        state = self.state
        return self.health.avoided_until <= now and state.able() and (state.gate is None or state.gate.free())


class Chooser:
    """Chooses among the channels of one model that take calls. ``now`` is the event loop's time, seconds."""

    def __init__(self, candidates: Iterable[Candidate], policy: Policy, rng: random.Random) -> None:
        fit = [one for one in candidates if one.state.takes_calls]
        self.candidates = sorted(fit, key=lambda one: -one.state.settings.priority)
        by_priority = groupby(self.candidates, key=lambda one: one.state.settings.priority)
        self._tiers = [_Tier(list(tier), policy, rng) for _, tier in by_priority]

    def choose(self, now: float, but: Collection[Candidate] = ()) -> Candidate | None:
        """The channel to ask now, none of ``but``; None if there is none.

        Those whose key was refused, or that were limited just now, come after all others.
        """
        for tier in self._tiers:
            if (chosen := tier.choose(now, but)) is not None:
                return chosen
        for tier in self._tiers:
            if (chosen := tier.last_resort(now, but)) is not None:
                return chosen
        return None

    def apart(self, now: float, places: Mapping[str, int]) -> Candidate | None:
        """The channel to ask now, where the fewest of the calls go that ``places`` counts by place.

        Those are to fail independently of this one. Priority comes first all the same.
        """
        for tier in self._tiers:
            if (chosen := tier.apart(now, places)) is not None:
                return chosen
        return self.choose(now)

    def silent(self, now: float) -> Candidate | None:
        """The first that only a silent probe keeps away; None if there is none."""
        return next((one for one in self.candidates if one.state.able() and one.health.silent(now)), None)

    def elsewhere(self, but: Health, now: float) -> bool:
        """Is a channel well besides the one whose health this is?"""
        return any(one.well(now) for one in self.candidates if one.health is not but)

    def passed_over(self, now: float) -> list[tuple[str, str]]:
        """The channels that would not be asked now, and why: breaker, cooling, refused, unavailable."""
        return [
            (one.state.name, reason)
            for one in self.candidates
            if (reason := one.state.against(one.health, now)) is not None
        ]


class _Tier:
    """The channels of one priority."""

    def __init__(self, candidates: Sequence[Candidate], policy: Policy, rng: random.Random) -> None:
        self._all = candidates
        self._policy = policy
        self._rng = rng
        self._shares = list(accumulate(one.state.settings.weight for one in candidates))

    def choose(self, now: float, but: Collection[Candidate]) -> Candidate | None:
        if len(self._all) == 1:
            only = self._all[0]
            well = only.health.avoided_until <= now and only.state.able() and only not in but
            return only if well else None
        if self._policy == "least_busy":
            if (idlest := self._idlest(now, but)) is not None:
                return idlest
        else:
            for _ in range(DRAWS):
                drawn = self._draw(now)
                if drawn.well(now) and drawn not in but:
                    return drawn
        ready = [
            one
            for one in self._all
            if one.health.avoided_until <= now and one.state.able() and one not in but
        ]
        return self._pick([one for one in ready if one.well(now)] or ready, now)

    def apart(self, now: float, places: Mapping[str, int]) -> Candidate | None:
        ready = [one for one in self._all if one.well(now)]
        fewest = min((places.get(one.state.place, 0) for one in ready), default=0)
        return self._pick([one for one in ready if places.get(one.state.place, 0) == fewest], now)

    def last_resort(self, now: float, but: Collection[Candidate]) -> Candidate | None:
        return self._pick(
            [
                one
                for one in self._all
                if one.health.blocked_until <= now and one.state.able() and one not in but
            ],
            now,
        )

    def _idlest(self, now: float, but: Collection[Candidate]) -> Candidate | None:
        """The one with the fewest calls for its weight that is well; equals take turns by chance."""
        start = int(self._rng.random() * len(self._all))
        found, fewest = None, math.inf
        for one in (*self._all[start:], *self._all[:start]):
            load = one.state.in_use / one.state.settings.weight
            if load < fewest and one.well(now) and one not in but:
                if not load:
                    return one
                found, fewest = one, load
        return found

    def _draw(self, now: float) -> Candidate:
        if self._policy == "weight":
            shares = self._shares
            return self._all[bisect(shares, self._rng.random() * shares[-1], 0, len(shares) - 1)]
        return self._faster(self._all, now)

    def _pick(self, ready: Sequence[Candidate], now: float) -> Candidate | None:
        if len(ready) < 2:
            return ready[0] if ready else None
        if self._policy == "least_busy":
            start = self._rng.randrange(len(ready))  # equals take turns by chance
            turned = [*ready[start:], *ready[:start]]
            return min(turned, key=lambda one: one.state.in_use / one.state.settings.weight)
        if self._policy == "least_latency":
            return self._faster(ready, now)
        return self._rng.choices(ready, [one.state.settings.weight for one in ready])[0]

    def _faster(self, among: Sequence[Candidate], now: float) -> Candidate:
        """The power of two choices: of two that are drawn the one that speaks sooner.

        Its time counts once for each call that it already has, so that a crowd does not run after one number.
        """
        count = len(among)
        first = int(self._rng.random() * count)
        second = (first + 1 + int(self._rng.random() * (count - 1))) % count
        one, other = among[first], among[second]
        return one if _expected_s(one, now) <= _expected_s(other, now) else other


def _expected_s(one: Candidate, now: float) -> float:
    return one.health.speed_s(now) * (one.state.in_use + 1)
