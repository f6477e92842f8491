"""How sure one can be of what was counted. Everything is paired: the same questions for both sides."""

from __future__ import annotations

import math
import random
from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate

import msgspec

RESAMPLES = 2000
Z95 = 1.959964


class Share(msgspec.Struct, frozen=True):
    """A share of ``n``, with the bounds between which it lies in 95 of 100 cases (Wilson)."""

    mean: float
    low: float
    high: float
    n: int


class Difference(msgspec.Struct, frozen=True):
    """Of two shares over the same questions: a paired bootstrap's 95 % bounds, and McNemar's exact p."""

    mean: float
    low: float
    high: float
    p: float
    n: int

    @property
    def verdict(self) -> str:
        """What may be said of it: ``better``, ``worse``, or ``equal`` where nothing is certain."""
        return "better" if self.low > 0 else "worse" if self.high < 0 else "equal"


def share(right: Sequence[bool]) -> Share:
    """The share that is true. Raises ZeroDivisionError for an empty sequence."""
    n = len(right)
    mean = sum(right) / n
    centre = (mean + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    half = Z95 / (1 + Z95**2 / n) * math.sqrt(mean * (1 - mean) / n + Z95**2 / (4 * n * n))
    return Share(mean, max(0.0, centre - half), min(1.0, centre + half), n)


def difference(one: Sequence[bool], other: Sequence[bool], seed: str) -> Difference:
    """How much larger the share of ``one`` is than that of ``other``, question by question."""
    pairs = list(zip(one, other, strict=True))
    n = len(pairs)
    won = sum(mine and not theirs for mine, theirs in pairs)
    lost = sum(theirs and not mine for mine, theirs in pairs)
    low, high = _bootstrap(n, won, lost, random.Random(seed))
    return Difference((won - lost) / n, low, high, mcnemar(won, lost), n)


def mcnemar(won: int, lost: int) -> float:
    """How likely it is, two-sided, that sides which are equal part so far; exact."""
    n = won + lost
    if not n:
        return 1.0
    logs = [_log_binomial(n, k) - n * math.log(2) for k in range(min(won, lost) + 1)]
    return min(1.0, 2 * sum(map(math.exp, logs)))


def percentile(values: Sequence[float], share: float) -> float:
    """The value that ``share`` of all do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, math.ceil(share * len(ordered)) - 1))]


def _bootstrap(n: int, won: int, lost: int, rng: random.Random) -> tuple[float, float]:
    """Bounds of ``(won - lost) / n``.

    A pair is won, lost or neither, so drawing ``n`` pairs anew is drawing how many of them differ, and how
    many of those were won: two binomial numbers in place of ``n`` draws.
    """
    differ = won + lost
    if not differ:
        return 0.0, 0.0
    how_many = _Binomial(n, differ / n)
    wins: dict[int, _Binomial] = {}
    means = []
    for _ in range(RESAMPLES):
        drawn = how_many.draw(rng)
        if drawn not in wins:
            wins[drawn] = _Binomial(drawn, won / differ)
        means.append((2 * wins[drawn].draw(rng) - drawn) / n)
    return percentile(means, 0.025), percentile(means, 0.975)


class _Binomial:
    """Draws how many of ``n`` come true, each with chance ``p``, by its table of sums."""

    def __init__(self, n: int, p: float) -> None:
        centre, reach = n * p, 9 * math.sqrt(n * p * (1 - p)) + 9
        self._first = max(0, math.floor(centre - reach))
        last = min(n, math.ceil(centre + reach))
        self._sums = list(accumulate(_chance(n, k, p) for k in range(self._first, last + 1)))

    def draw(self, rng: random.Random) -> int:
        place = bisect_left(self._sums, rng.random() * self._sums[-1])
        return self._first + place


def _chance(n: int, k: int, p: float) -> float:
    if p in (0.0, 1.0):
        return float(k == n * p)
    return math.exp(_log_binomial(n, k) + k * math.log(p) + (n - k) * math.log1p(-p))


def _log_binomial(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
