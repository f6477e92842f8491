"""What a run as a whole tells: one beginning, one end, its level, its times, and what all of it used."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import UNSET

from server.deltas import Usage
from server.events import StageFinished
from server.price_settings import Price
from server.settings import Member, Summary
from tests.coordinator.panel import Panel, Scripted, Step, Told, broken, never, says

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


# ---- what it costs

CHEAP, DEAR = Price(input=1, output=2), Price(input=10, output=20)


def priced(*scripts: list[Step], writer: list[Step], dear: Price | None = DEAR, **settings: Any) -> Panel:
    members = [Scripted(f"m{number}", steps, price=CHEAP) for number, steps in enumerate(scripts, start=1)]
    return Panel(members, Scripted("writer", writer, price=dear), **settings)


async def test_a_run_costs_what_all_its_calls_cost_each_by_its_own_price() -> None:
    panel = priced(says("a", usage=used(1)), says("b", usage=used(10)), writer=says("c", usage=used(100)))
    run = await panel.ask()
    cost = (11 * 3 + 100 * 30) / 10**6
    assert run.data("run.completed").cost == cost
    assert run.data("model.finished", "m2").cost == 30 / 10**6
    assert run.data("summary.finished").cost == 3000 / 10**6
    assert run.call.answer is not None
    assert [one.cost for one in run.call.answer.members] == [3 / 10**6, 30 / 10**6, 3000 / 10**6]
    snapshot = run.run.snapshot()
    assert snapshot["cost"] == cost
    assert [one["cost"] for one in snapshot["members"]] == [3 / 10**6, 30 / 10**6]
    assert snapshot["summary"]["cost"] == 3000 / 10**6


async def test_where_one_price_is_unknown_so_is_the_sum_and_the_others_are_told() -> None:
    panel = priced(says("a", usage=used(1)), writer=says("c", usage=used(100)), dear=None, strategy="moa")
    run = await panel.ask()
    assert run.data("run.completed").cost == 3 / 10**6  # the lone draft: the writer was not asked
    panel = priced(
        says("a", usage=used(1)), says("b", usage=used(1)), writer=says("c", usage=used(100)), dear=None
    )
    run = await panel.ask()
    assert run.data("run.completed").cost is None
    assert run.data("model.finished", "m1").cost == 3 / 10**6
    assert run.data("summary.finished").cost is UNSET
    assert run.call.answer is not None
    assert run.call.answer.members[-1].cost is None


async def test_a_call_that_failed_without_a_word_costs_nothing() -> None:
    panel = priced(says("a", usage=used(1)), [broken()], writer=says("unused"), quorum=1)
    run = await panel.ask()
    assert run.data("model.failed", "m2").cost is UNSET
    assert run.data("run.completed").cost == 3 / 10**6


async def test_a_call_that_was_given_up_costs_what_it_had_said() -> None:
    slow: list[Step] = [*says("some words")[:-1], never()]
    panel = priced(says("a", usage=used(1)), slow, writer=says("unused"), quorum=1, grace_s=0)
    run = await panel.ask()
    given_up = run.data("model.cancelled", "m2")
    assert given_up.usage.estimated is True
    told = (given_up.usage.prompt_tokens + 2 * given_up.usage.completion_tokens) / 10**6
    assert given_up.cost == told > 0
    assert run.data("run.completed").cost == pytest.approx(told + 3 / 10**6)


async def test_a_call_that_was_given_up_costs_all_of_it_where_the_vendor_says_so() -> None:
    for limit, cost in ((50, 100), (None, None)):
        slow = Scripted("m2", [*says("some words")[:-1], never()], price=CHEAP, bills_cancelled=True)
        first = Scripted("m1", says("a", usage=used(1)), price=CHEAP)
        members = (Member(model="m1"), Member(model="m2", draft_max_tokens=limit))
        panel = Panel([first, slow], members=members, quorum=1, grace_s=0)
        run = await panel.ask()
        given_up = run.data("model.cancelled", "m2")
        if cost is None:
            assert given_up.cost is UNSET
            assert run.data("run.completed").cost is None
        else:
            assert given_up.cost == (given_up.usage.prompt_tokens + cost) / 10**6


async def test_a_combination_within_another_brings_its_own_sum() -> None:
    inner = [Scripted("i1", says("a", usage=used(5)), price=CHEAP)]
    own = Panel(inner, strategy="race")
    outer = Panel(
        [],
        Scripted("writer", says("unused"), price=DEAR),
        others=[*inner, own.combination],
        members=(Member(model="panel"),),
        summary=Summary(model="writer"),
    )
    outer.upstreams["outer"], outer.upstreams["panel"] = outer.combination, own.combination
    run = await outer.ask(model="outer")
    assert run.data("model.finished", "m1").cost == 15 / 10**6
    assert run.data("run.completed").cost == 15 / 10**6


async def test_a_run_that_fails_or_is_left_tells_its_cost_too() -> None:
    panel = priced(
        says("a", usage=used(1)),
        says("b", usage=used(1)),
        writer=[broken()],
        quorum=2,
        summary=Summary(model="writer"),
    )
    run = await panel.ask()
    assert run.data("run.failed").cost == 6 / 10**6
