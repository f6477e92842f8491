from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from evaluation.arena import Result
from evaluation.lab import Lab
from evaluation.panels import Entry, Panel

PANEL = Panel("three × 0.7", (0.7, 0.7, 0.7), 0.0)
VOTE = Entry("vote, equal", "vote")


def test_every_raw_result_is_kept_as_a_line_of_json(tmp_path: Path) -> None:
    told: list[str] = []
    lab = Lab("seed", tmp_path, told.append)
    results = lab.run(PANEL, VOTE, 5)
    (path,) = tmp_path.iterdir()
    assert path.name == "three-0.7-vote-equal.jsonl"
    assert [msgspec.json.decode(line, type=Result) for line in path.read_bytes().splitlines()] == results
    assert told == ["three × 0.7: vote, equal, 5 questions"]
    assert lab.calls == 15


def test_nothing_is_asked_twice(tmp_path: Path) -> None:
    lab = Lab("seed", tmp_path, lambda _: None)
    assert lab.run(PANEL, VOTE, 5) is lab.run(PANEL, VOTE, 5)
    assert lab.calls == 15


def test_items_begin_where_they_are_to_begin(tmp_path: Path) -> None:
    lab = Lab("seed", tmp_path, lambda _: None)
    assert [one.item for one in lab.run(PANEL, VOTE, 3, first=100)] == [100, 101, 102]
    assert lab.right(PANEL, VOTE, 3) == [one.right for one in lab.run(PANEL, VOTE, 3)]


def test_another_seed_asks_other_questions(tmp_path: Path) -> None:
    one, other = (Lab(seed, tmp_path, lambda _: None).run(PANEL, VOTE, 20) for seed in ("a", "b"))
    assert [result.values for result in one] != [result.values for result in other]


def test_no_raw_results_are_written_over_by_others(tmp_path: Path) -> None:
    lab = Lab("seed", tmp_path, lambda _: None)
    lab.run(PANEL, VOTE, 2)
    with pytest.raises(ValueError, match="share a file"):
        lab.run(PANEL, Entry("vote; equal", "vote"), 2)
    assert len(list(tmp_path.iterdir())) == 1
