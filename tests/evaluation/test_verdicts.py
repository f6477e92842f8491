from __future__ import annotations

import msgspec
import pytest

from evaluation.reading import read, said, value_in
from evaluation.verdicts import reply
from evaluation.world import Skill, World
from server.coordinator.judging import PAIR, PICK, SCORE
from server.coordinator.rounds import FAULTS
from tests.evaluation.members import asked, drafts

WORLD = World("verdicts", 0.0)
SURE, LOST = Skill("judge", 0.5, discernment=1.0), Skill("judge", 0.5, discernment=0.0)
ITEMS = range(1, 400)


def told(skill: Skill, rules: str, number: int, *values: int, notes: str = "") -> str:
    blocks = [said(value, place) for place, value in enumerate(values)]
    prompt = read(asked(drafts(*blocks, notes=notes, number=number), rules=rules))
    return reply(WORLD, skill, prompt, 1)


def winner(skill: Skill, number: int, *values: int) -> str:
    word: str = msgspec.json.decode(told(skill, PAIR, number, *values))["winner"]
    return word


def test_a_judge_that_sees_everything_picks_the_right_one_wherever_it_stands() -> None:
    for number in ITEMS:
        item = WORLD.item(number)
        assert winner(SURE, number, item.truth, item.lure) == "A"
        assert winner(SURE, number, item.lure, item.truth) == "B"
        assert winner(LOST, number, item.truth, item.lure) == "B"
        assert winner(SURE, number, item.truth, item.truth) == "tie"


def test_a_judge_says_the_same_when_the_places_are_changed() -> None:
    skill = Skill("judge", 0.5, discernment=0.6)
    for number in ITEMS:
        item = WORLD.item(number)
        one = read(asked(drafts(said(item.truth, 1), said(item.lure, 2), number=number), rules=PAIR))
        other = read(asked(drafts(said(item.lure, 2), said(item.truth, 1), number=number), rules=PAIR))
        assert {reply(WORLD, skill, one, 1), reply(WORLD, skill, other, 2)} == {
            '{"winner":"A"}',
            '{"winner":"B"}',
        }


def test_a_judge_is_right_as_often_as_its_discernment_says() -> None:
    skill = Skill("judge", 0.5, discernment=0.75)
    right = 0
    for number in ITEMS:
        item = WORLD.item(number)
        right += winner(skill, number, item.truth, item.lure) == "A"
    assert right / len(ITEMS) == pytest.approx(0.75, abs=0.07)


@pytest.mark.parametrize(("bias", "label"), [(1.0, "A"), (-1.0, "B")])
def test_a_biased_judge_takes_what_stands_first_or_last(bias: float, label: str) -> None:
    skill = Skill("judge", 0.5, discernment=1.0, bias=bias)
    item = WORLD.item(1)
    assert winner(skill, 1, item.truth, item.lure) == winner(skill, 1, item.lure, item.truth) == label


def test_a_ranking_names_every_draft_with_an_answer_the_right_ones_first() -> None:
    item = WORLD.item(3)
    ranking = msgspec.json.decode(told(SURE, PICK, 3, item.lure, item.truth, 11111))["ranking"]
    assert ranking[0] == "B"
    assert sorted(ranking) == ["A", "B", "C"]


def test_points_part_right_from_wrong() -> None:
    item = WORLD.item(4)
    assert msgspec.json.decode(told(SURE, SCORE, 4, item.truth))["score"] >= 6
    assert msgspec.json.decode(told(SURE, SCORE, 4, item.lure))["score"] < 6


def test_a_critic_names_the_wrong_ones() -> None:
    item = WORLD.item(5)
    assert told(SURE, FAULTS, 5, item.lure, item.truth) == "Draft A is wrong."
    assert told(SURE, FAULTS, 5, item.truth) == "No faults."


def test_a_writer_that_sees_takes_the_right_answer_and_a_lost_one_what_most_say_or_its_own() -> None:
    item = WORLD.item(6)
    assert value_in(told(SURE, "", 6, item.lure, item.lure, item.truth)) == item.truth
    ignorant = Skill("writer", 0.0, discernment=0.0)
    found = set()
    for number in ITEMS:
        item = WORLD.item(number)
        own = WORLD.answer(item, ignorant, 1)
        written = value_in(told(ignorant, "", number, 22222, 22222, item.truth))
        assert written in (22222, own)
        found.add(written == 22222)
    assert found == {True, False}


def test_a_writer_leaves_out_what_notes_call_wrong_and_follows_a_ranking() -> None:
    stupid = Skill("writer", 0.0, discernment=0.0)
    for number in ITEMS:
        own = WORLD.answer(WORLD.item(number), stupid, 1)
        assert value_in(told(stupid, "", number, 22222, 33333, notes="Draft A is wrong.")) in (33333, own)
        assert value_in(told(stupid, "", number, 22222, 33333, notes="best first: B, A.")) in (33333, own)
