"""What the figures have to show, whoever runs the evaluation."""

from __future__ import annotations

import msgspec

from evaluation.figures import Figures
from evaluation.statistics import Difference

MAJORITY = 0.04
WEIGHTED = -0.005
JUDGED = 0.03
P95 = 0.06
ENOUGH = 2000
"""Questions from which on a mean is held against its bound; with fewer only a certain miss counts."""


class Bar(msgspec.Struct, frozen=True):
    """One promise: what it is, what was found, and whether that is enough."""

    title: str
    bound: str
    found: str
    kept: bool


def bars(figures: Figures) -> list[Bar]:
    """Every promise, held against these figures."""
    weighted = min(figures.votes, key=lambda one: one.weighted_to_best.mean)
    changed = sum(one.permuted for one in figures.votes)
    asked = sum(one.permuted_n for one in figures.votes)
    five = [one for one in figures.votes if one.panel.startswith("5 ×") or len(one.panel.split()) == 5]
    judged = min(five, key=lambda one: one.best_of_to_best.mean)
    every, some = figures.policies[0].p95_s, figures.policies[2].p95_s
    dead = max(figures.dead, key=lambda one: one.most_added_s - one.grace_s)
    return [
        Bar(
            "5 × 0.70, s = 0.4: an equal vote against the best member, lower bound",
            f"≥ {MAJORITY:+.3f}",
            f"{figures.bar.low:+.3f}, n = {figures.bar.n}",
            figures.bar.low >= MAJORITY,
        ),
        Bar(
            f"a weighted vote against the best member, the worst of {len(figures.votes)} settings",
            f"≥ {WEIGHTED:+.3f}",
            f"{weighted.weighted_to_best.mean:+.3f} ({weighted.panel}, s = {weighted.spread:g})",
            _reaches(weighted.weighted_to_best, WEIGHTED),
        ),
        Bar(
            "answers of a vote that change with the members' order", "0", f"{changed} of {asked}", not changed
        ),
        Bar(
            "`best_of` with a judge right in 75 %, panels of five, the worst",
            f"≥ {JUDGED:+.3f}",
            f"{judged.best_of_to_best.mean:+.3f} ({judged.panel}, s = {judged.spread:g})",
            _reaches(judged.best_of_to_best, JUDGED),
        ),
        Bar(
            "p95 of 3 of 5 with grace, as a share of waiting for all",
            f"≤ {P95:.0%}",
            f"{some / every:.1%}",
            some <= P95 * every,
        ),
        Bar(
            "one dead member of 3, 4 or 5, default quorum: what it adds to a run at most",
            f"≤ {dead.grace_s:g} s",
            f"{dead.most_added_s:g} s",
            all(one.most_added_s <= one.grace_s + 0.01 and not one.failed for one in figures.dead),
        ),
    ]


def _reaches(difference: Difference, bound: float) -> bool:
    return (difference.mean if difference.n >= ENOUGH else difference.high) >= bound
