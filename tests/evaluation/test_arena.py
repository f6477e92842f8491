from __future__ import annotations

from typing import Any

import pytest

from evaluation.arena import Result, contest
from evaluation.members import Faults, SimulatedModel
from evaluation.world import Skill, World
from server.settings import Combination, Member, Summary
from server.strategy_settings import Vote

WORLD = World("arena", 0.2)
NAMES = ("m1", "m2", "m3")


def answers(
    count: int = 40, *, faults: Faults | None = None, accuracy: float = 0.7, **fields: Any
) -> list[Result]:
    models = [SimulatedModel(WORLD, Skill(name, accuracy), faults or Faults()) for name in NAMES]
    models.append(SimulatedModel(WORLD, Skill("writer", 0.8), Faults()))
    fields.setdefault("members", tuple(Member(model=name) for name in NAMES))
    settings = Combination(name="panel", summary=Summary(model="writer"), vote=Vote(type="number"), **fields)
    return contest(WORLD, models, settings, range(count))


def test_a_vote_is_what_most_members_say() -> None:
    skills = [Skill(name, 0.7) for name in NAMES]
    for one in answers(strategy="vote", quorum=3, deadline_s=1000.0, grace_s=1000.0):
        item = WORLD.item(one.item)
        said = [WORLD.answer(item, skill, 1) for skill in skills]
        if max(map(said.count, said)) > 1:
            assert one.values == (max(said, key=said.count),)
            assert one.right == (one.values[0] == item.truth)


def test_one_model_asked_directly_is_one_call() -> None:
    results = answers(strategy="direct", model="m1", members=())
    assert {one.calls for one in results} == {1}
    assert [one.right for one in results] == [
        WORLD.answer(WORLD.item(number), Skill("m1", 0.7), 1) == WORLD.item(number).truth
        for number in range(40)
    ]


@pytest.mark.parametrize(
    ("strategy", "calls"),
    [("vote", 3), ("best_of", 9), ("synthesize", 4), ("critique", 5), ("moa", 7), ("council", 7), ("all", 3)],
)
def test_calls_are_counted(strategy: str, calls: int) -> None:
    results = answers(10, strategy=strategy, quorum=3, deadline_s=1000.0, grace_s=1000.0)
    # Council: a ranking that is settled waits for no further one, but all were asked.
    assert {one.calls for one in results} == {calls}
    assert {one.level for one in results} == {"none"}


def test_every_choice_of_all_is_heard() -> None:
    results = answers(strategy="all", accuracy=2.0, quorum=3, deadline_s=1000.0, grace_s=1000.0)
    assert {len(one.values) for one in results} == {3}
    assert all(one.right for one in results)


def test_time_is_virtual_and_the_first_word_comes_before_the_last() -> None:
    (one, *_) = answers(1, strategy="synthesize")
    assert one.first_s is not None
    assert 1 < one.first_s < one.total_s


def test_a_run_without_any_draft_is_a_failure_with_its_code() -> None:
    for one in answers(5, strategy="vote", faults=Faults(hang=1)):
        assert (one.error, one.right, one.values) == ("all_members_failed", False, ())


def test_a_name_that_nobody_has_fails_the_run() -> None:
    (one,) = answers(1, strategy="vote", members=(Member(model="nobody"),))
    assert one.error == "all_members_failed"
