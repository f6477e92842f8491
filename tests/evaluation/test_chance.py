from __future__ import annotations

from itertools import pairwise

import pytest

from evaluation.chance import Chance


def test_the_same_names_give_the_same_numbers() -> None:
    assert Chance("a", 1).uniform() == Chance("a", 1).uniform()
    # On every machine: this one was written down.
    assert Chance("antiphon", "item", 0).uniform() == pytest.approx(0.87573, abs=0.00001)


def test_names_do_not_run_into_each_other() -> None:
    assert Chance("ab", "c").uniform() != Chance("a", "bc").uniform()


def test_numbers_are_spread_evenly_and_do_not_follow_each_other() -> None:
    numbers = [Chance("even", place).uniform() for place in range(4000)]
    assert all(0 <= one < 1 for one in numbers)
    assert sum(numbers) / len(numbers) == pytest.approx(0.5, abs=0.02)
    assert sum(one < other for one, other in pairwise(numbers)) == pytest.approx(2000, abs=100)


def test_normal_numbers_have_mean_0_and_deviation_1() -> None:
    numbers = [Chance("normal", place).normal() for place in range(4000)]
    assert sum(numbers) / len(numbers) == pytest.approx(0, abs=0.06)
    assert sum(one * one for one in numbers) / len(numbers) == pytest.approx(1, abs=0.1)


def test_a_ninth_number_is_refused() -> None:
    chance = Chance("many")
    for _ in range(8):
        chance.uniform()
    with pytest.raises(IndexError):
        chance.uniform()
