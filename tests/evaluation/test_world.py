from __future__ import annotations

import pytest

from evaluation.world import Skill, World

ITEMS = range(4000)


def accuracy(world: World, skill: Skill) -> float:
    items = [world.item(number) for number in ITEMS]
    return sum(world.answer(item, skill, 1) == item.truth for item in items) / len(items)


def test_a_model_knows_as_much_as_its_accuracy_says() -> None:
    assert accuracy(World("w", 0.0), Skill("m", 0.7)) == pytest.approx(0.7, abs=0.025)


def test_hard_questions_are_hard_for_all() -> None:
    world = World("w", 0.4)
    one, other = Skill("one", 0.7), Skill("other", 0.7)
    items = [world.item(number) for number in ITEMS]
    wrong = [item for item in items if world.answer(item, one, 1) != item.truth]
    both = sum(world.answer(item, other, 1) != item.truth for item in wrong)
    assert both / len(wrong) > 0.5  # 0.34 if they knew nothing of each other


def test_two_wrong_models_agree_in_about_sixty_of_a_hundred_cases() -> None:
    world = World("w", 0.0)
    items = [world.item(number) for number in ITEMS]
    answers = [
        (world.answer(item, Skill("a", 0.3), 1), world.answer(item, Skill("b", 0.3), 1)) for item in items
    ]
    wrong = [
        (one, other)
        for item, (one, other) in zip(items, answers, strict=True)
        if item.truth not in (one, other)
    ]
    assert sum(one == other for one, other in wrong) / len(wrong) == pytest.approx(0.6, abs=0.04)


def test_samples_differ_and_stubborn_ones_repeat_the_first() -> None:
    world = World("w", 0.0)
    items = [world.item(number) for number in ITEMS]
    for stubborn, least in ((0.0, 0.0), (1.0, 1.0)):
        skill = Skill("m", 0.5, stubborn=stubborn)
        same = sum(world.answer(item, skill, 1) == world.answer(item, skill, 2) for item in items)
        assert (same / len(items) >= least) is (same == len(items) or not least)
    assert sum(
        world.answer(item, Skill("m", 0.5), 1) != world.answer(item, Skill("m", 0.5), 2) for item in items
    )


def test_the_right_answer_is_no_lure() -> None:
    world = World("w", 0.0)
    assert all(item.truth != item.lure for item in map(world.item, ITEMS))
