from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from evaluation.__main__ import FIGURES
from evaluation.bars import bars
from evaluation.figures import Figures
from evaluation.statistics import Difference

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def figures() -> Figures:
    """Those of the page in docs/."""
    return msgspec.json.decode((ROOT / FIGURES).read_bytes(), type=Figures)


def missed(figures: Figures) -> list[str]:
    return [one.title for one in bars(figures) if not one.kept]


def with_vote(figures: Figures, **changes: object) -> Figures:
    """The same, but the panel of five unequal members came out otherwise."""
    votes = [
        msgspec.structs.replace(one, **changes) if one.panel.startswith("0.80") else one
        for one in figures.votes
    ]
    return msgspec.structs.replace(figures, votes=votes)


def test_a_mean_counts_where_there_are_questions_enough(figures: Figures) -> None:
    lost = Difference(-0.006, -0.02, 0.01, 0.5, 2000)
    assert any("a weighted vote" in one for one in missed(with_vote(figures, weighted_to_best=lost)))
    few = Difference(-0.006, -0.02, 0.01, 0.5, 100)
    assert not any("a weighted vote" in one for one in missed(with_vote(figures, weighted_to_best=few)))


def test_a_certain_miss_counts_with_few_questions_too(figures: Figures) -> None:
    lost = Difference(-0.1, -0.15, -0.05, 0.001, 100)
    told = missed(with_vote(figures, weighted_to_best=lost, best_of_to_best=lost, permuted=1))
    assert any("a weighted vote" in one for one in told)
    assert any("judge right in 75 %" in one for one in told)
    assert any("members' order" in one for one in told)


def test_waiting_too_long_is_told(figures: Figures) -> None:
    slow = [msgspec.structs.replace(one, p95_s=100.0) for one in figures.policies]
    dead = [msgspec.structs.replace(one, most_added_s=20.0) for one in figures.dead]
    told = missed(msgspec.structs.replace(figures, policies=slow, dead=dead))
    assert any("p95" in one for one in told)
    assert any("one dead member" in one for one in told)


def test_an_equal_vote_that_gains_too_little_is_told(figures: Figures) -> None:
    little = Difference(0.05, 0.039, 0.06, 0.001, 5000)
    assert any("lower bound" in one for one in missed(msgspec.structs.replace(figures, bar=little)))
