from __future__ import annotations

import pytest

from evaluation.real import SAMPLES, evaluate_models, ways
from evaluation.report import real_models
from evaluation.tasks import make_tasks
from server.errors import ModelNotFound
from server.settings import Settings
from server.simulators.openai import OpenAISimulator
from server.simulators.script import Script
from tests.behaviour.running import channel

NAMES = "evaluation/"


def test_each_model_stands_alone_first_and_samples_of_the_first_have_as_many_calls() -> None:
    made = {one.name.removeprefix(NAMES): one for one in ways(["big", "small"])}
    assert list(made)[:3] == ["big alone", "small alone", "vote, 3 × big"]
    assert [one.model for one in made["synthesize"].members] == ["big", "small"]
    (sample,) = {one.name.removeprefix(NAMES): one for one in ways(["big"])}["synthesize"].members
    assert (sample.model, sample.samples) == ("big", SAMPLES)


async def test_every_way_is_asked_every_task_by_a_server_of_this_version() -> None:
    tasks = make_tasks(2, 1, ["products"])
    told: list[str] = []
    async with OpenAISimulator(default=Script(text="It is\n7")) as sim:
        settings = Settings(channels=(channel(sim, "big", "small"),))
        table, raw = await evaluate_models(settings, ["big", "small"], tasks, 1, told.append)
    assert len(told) == len(table.rows) == len(ways(["big", "small"]))
    assert len(raw) == 2 * len(told)
    assert {one.text for one in raw} == {"It is\n7"}
    assert {one.error for one in raw} == {None}
    by_label = {row.label: row for row in table.rows}
    assert by_label["big alone"].to_best is None
    assert by_label["vote"].calls == 2
    assert by_label["synthesize"].calls == 3
    assert "2 procedural tasks" in real_models(table)


async def test_a_model_that_fails_is_counted_as_such() -> None:
    tasks = make_tasks(1, 1, ["products"])
    async with OpenAISimulator(default=Script(status=400, error_message="No.")) as sim:
        settings = Settings(channels=(channel(sim, "big"),))
        table, raw = await evaluate_models(settings, ["big"], tasks, 1, lambda _: None)
    assert {row.failed for row in table.rows} == {1}
    assert not any(one.right for one in raw)
    assert all(one.error for one in raw)


async def test_a_model_that_nobody_has_is_refused_before_anything_is_asked() -> None:
    async with OpenAISimulator() as sim:
        settings = Settings(channels=(channel(sim, "big"),))
        with pytest.raises(ModelNotFound, match="bigg"):
            await evaluate_models(settings, ["bigg"], make_tasks(1, 1), 1, lambda _: None)
        assert not sim.requests


def test_nobody_judges_where_words_are_limited() -> None:
    assert "evaluation/best_of, list" in {one.name for one in ways(["big"])}
    limited = ways(["big"], 32)
    assert "evaluation/best_of, list" not in {one.name for one in limited}
    assert {one.draft_max_tokens for one in limited if one.members} == {32}
