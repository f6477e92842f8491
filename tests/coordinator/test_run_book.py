"""What a run as a whole tells: one beginning, one end, its level, its times, and what all of it used."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import UNSET

from server.deltas import Usage
from server.events import StageFinished
from tests.coordinator.panel import Panel, Scripted, Step, Told, broken, says

ENDS = {"run.completed", "run.incomplete", "run.failed", "run.cancelled"}


async def told(*scripts: list[Step], writer: list[Step] | None = None, **settings: Any) -> Told:
    members = [Scripted(f"m{number}", steps) for number, steps in enumerate(scripts, start=1)]
    made = Panel(members, Scripted("writer", writer or says("The end.")), **settings)
    return await made.ask()


def used(tokens: int) -> Usage:
    return Usage(tokens, tokens, 2 * tokens)


async def test_a_run_begins_and_ends_once_whatever_became_of_it() -> None:
    for run in (
        await told(says("a"), says("b")),
        await told(says("a"), [broken()], quorum=1),
        await told([broken()], [broken()]),
        await told(says("a"), says("b"), writer=[broken()]),
    ):
        assert run.types[:2] == ["run.created", "run.in_progress"]
        assert [name for name in run.types if name in ENDS] == run.types[-1:]


async def test_a_stage_that_began_ends_even_if_the_run_fails_within_it() -> None:
    run = await told(says("a"), says("b"), writer=[broken()])
    assert run.types.count("stage.started") == run.types.count("stage.finished") == 2
    assert run.types[-1] == "run.failed"


async def test_a_stage_counts_its_drafts_and_failures() -> None:
    run = await told(says("a"), says("b"), [broken()], quorum=2, grace_s=30)
    (counts,) = [event.data for event in run.events if isinstance(event.data, StageFinished)][:1]
    assert (counts.drafts, counts.partial, counts.failed, counts.cancelled) == (2, 0, 1, 0)


async def test_usage_is_the_sum_of_every_call_that_told_of_some() -> None:
    run = await told(says("a", usage=used(1)), says("b", usage=used(10)), writer=says("c", usage=used(100)))
    usage = run.data("run.completed").usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (111, 111, 222)
    assert run.run.usage is not None
    assert run.run.usage.total_tokens == 222


async def test_a_run_that_fails_still_tells_what_it_used() -> None:
    run = await told(says("a", usage=used(1)), says("b", usage=used(10)), writer=[broken()])
    assert run.data("run.failed").usage.total_tokens >= 22


@pytest.mark.parametrize("scripts", [([broken()], [broken()]), (says("a"), says("b"))])
async def test_times_are_told_where_there_was_such_a_moment(scripts: tuple[list[Step], ...]) -> None:
    run = await told(*scripts)
    timings = run.data(run.types[-1]).timings
    assert timings.total_ms >= 0
    if run.types[-1] == "run.failed":
        assert timings.first_text_ms is UNSET
    else:
        assert 0 <= timings.drafts_ms <= timings.first_text_ms <= timings.total_ms


async def test_an_answer_out_of_tokens_is_incomplete() -> None:
    run = await told(says("a"), says("b"), writer=says("c", reason="length"))
    assert run.data("run.incomplete").reason == "length"
