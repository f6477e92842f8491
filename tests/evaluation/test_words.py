from __future__ import annotations

import msgspec

from evaluation.figures import VoteCell
from evaluation.statistics import Difference, Share
from evaluation.words import against, losses, points, rivals

SAME = Difference(0.0, 0.0, 0.0, 1.0, 100)
HALF = Share(0.5, 0.4, 0.6, 100)
CELL = VoteCell(
    "3 × 0.70",
    0.4,
    100,
    best=HALF,
    equal=HALF,
    weighted=HALF,
    samples=HALF,
    stubborn_samples=HALF,
    best_of=HALF,
    oracle=HALF,
    equal_to_best=SAME,
    weighted_to_best=SAME,
    best_of_to_best=SAME,
    permuted=0,
    permuted_n=50,
)


def test_words_claim_no_more_than_the_bounds_do() -> None:
    assert against(Difference(0.05, 0.01, 0.09, 0.01, 9), "it") == "better than it by 5.0 points"
    assert against(Difference(-0.05, -0.09, -0.01, 0.01, 9), "it") == "worse than it by 5.0 points"
    assert (
        against(Difference(0.05, -0.01, 0.11, 0.1, 9), "it") == "not to be told from it (+5.0 [-1.0, +11.0])"
    )
    assert points(SAME) == "+0.0 [+0.0, +0.0]"


def test_a_loss_is_named_with_its_figures_and_a_doubt_is_no_loss() -> None:
    assert "In none of these settings" in losses([CELL])
    worse = Difference(-0.1, -0.2, -0.05, 0.001, 100)
    lost = msgspec.structs.replace(CELL, equal=Share(0.4, 0.3, 0.5, 100), equal_to_best=worse)
    said = losses([CELL, lost])
    assert "Here the combination loses" in said
    assert "In 1 of 2 settings" in said
    assert "3 × 0.70 at s = 0.4 (0.400 against 0.500)" in said


def test_rivals_are_counted_level_or_ahead() -> None:
    ahead = msgspec.structs.replace(CELL, samples=Share(0.6, 0.5, 0.7, 100))
    assert "level with or ahead of them in 1 of 2 settings" in rivals([CELL, ahead])
    assert "repeat the first one, in 2." in rivals([CELL, ahead])
