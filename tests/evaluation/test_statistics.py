from __future__ import annotations

import random
from math import comb

import pytest

from evaluation.statistics import difference, mcnemar, percentile, share


def test_a_share_lies_within_its_bounds() -> None:
    found = share([True] * 30 + [False] * 70)
    assert (found.mean, found.n) == (0.3, 100)
    assert found.low == pytest.approx(0.219, abs=0.001)  # Wilson's, by hand
    assert found.high == pytest.approx(0.396, abs=0.001)


def test_a_share_of_nothing_or_all_stays_between_0_and_1() -> None:
    assert share([False] * 10).low == 0
    assert share([True] * 10).high == pytest.approx(1)


def test_sides_that_never_differ_are_equal_beyond_doubt() -> None:
    found = difference([True, False] * 50, [True, False] * 50, "seed")
    assert (found.mean, found.low, found.high, found.p, found.verdict) == (0, 0, 0, 1, "equal")


def test_a_clear_difference_is_told_and_its_mirror_too() -> None:
    one, other = [True] * 80 + [False] * 20, [True] * 40 + [False] * 60
    assert difference(one, other, "seed").verdict == "better"
    assert difference(other, one, "seed").verdict == "worse"
    assert difference(one, other, "seed").mean == 0.4


def test_the_bootstrap_of_counts_agrees_with_one_of_pairs() -> None:
    rng = random.Random(1)
    one = [rng.random() < 0.6 for _ in range(300)]
    other = [rng.random() < 0.5 for _ in range(300)]
    found = difference(one, other, "seed")
    deltas = [mine - theirs for mine, theirs in zip(one, other, strict=True)]
    means = [sum(rng.choices(deltas, k=300)) / 300 for _ in range(2000)]
    assert found.low == pytest.approx(percentile(means, 0.025), abs=0.01)
    assert found.high == pytest.approx(percentile(means, 0.975), abs=0.01)


def test_the_same_seed_gives_the_same_bounds() -> None:
    one, other = [True, True, False] * 20, [False, True, True] * 20
    assert difference(one, other, "a") == difference(one, other, "a")


@pytest.mark.parametrize(("won", "lost"), [(0, 0), (3, 3), (8, 2), (0, 5), (40, 12)])
def test_mcnemars_p_is_that_of_a_fair_coin(won: int, lost: int) -> None:
    n = won + lost
    tail = sum(comb(n, k) for k in range(min(won, lost) + 1)) / 2**n
    assert mcnemar(won, lost) == pytest.approx(min(1.0, 2 * tail))


def test_mcnemar_takes_many_pairs() -> None:
    assert mcnemar(3000, 2000) < 1e-30
    assert mcnemar(2500, 2500) == pytest.approx(1.0)


def test_a_percentile_is_one_of_the_values() -> None:
    assert percentile([5, 1, 3, 2, 4], 0.5) == 3
    assert percentile([5, 1, 3, 2, 4], 0.95) == 5
    assert percentile([7], 0.01) == 7


def test_pairs_must_match() -> None:
    with pytest.raises(ValueError, match="zip"):
        difference([True], [True, False], "seed")
