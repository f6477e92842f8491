"""A run may cost only so much: who is asked within the limit, who is not, and what is told of it."""

from __future__ import annotations

import random
from typing import Any

import pytest

from server.deltas import Usage
from server.errors import InvalidRequest
from server.price_settings import Price
from server.settings import Member
from server.strategy_settings import Accept, Cascade, Judge, Steps
from tests.coordinator.panel import Panel, Scripted, Step, Told, broken, never, says

FREE_INPUT = Price(input=0, output=1)
LIMIT = 1000
EACH = LIMIT / 10**6  # what a call with this limit costs at most


def used(tokens: int) -> Usage:
    return Usage(10, tokens, 10 + tokens)


def answers(*texts: str, tokens: int = 10) -> list[Step]:
    return says(*texts, usage=used(tokens))


def panel(
    *scripts: list[Step], writer: list[Step] | None = None, price: Price | None = FREE_INPUT, **settings: Any
) -> Panel:
    members = [Scripted(f"m{number}", steps, price=price) for number, steps in enumerate(scripts, start=1)]
    return Panel(members, Scripted("writer", writer or answers("The end."), price=FREE_INPUT), **settings)


def three(**settings: Any) -> Panel:
    return panel(answers("a"), answers("b"), answers("c"), **settings)


async def ask(made: Panel, **fields: Any) -> Told:
    return await made.ask(max_tokens=LIMIT, **fields)


def skipped(told: Told) -> list[str]:
    return [event.member.id for event in told.events if event.type == "model.skipped" and event.member]


async def test_the_ceiling_is_told_where_all_prices_and_limits_are_known() -> None:
    told = await ask(three())
    assert told.data("run.created").cost_ceiling == pytest.approx(4 * EACH)
    assert skipped(told) == []
    assert (await three().ask()).data("run.created").cost_ceiling is None  # no limit of tokens
    unpriced = await ask(panel(answers("a"), answers("b"), price=None))
    assert unpriced.data("run.created").cost_ceiling is None


async def test_the_context_of_a_model_is_a_limit_too() -> None:
    member = Scripted("m1", answers("a"), price=FREE_INPUT, context=500)
    told = await Panel([member], strategy="race").ask()
    prompt = 5
    assert told.data("run.created").cost_ceiling == (500 - prompt) / 10**6


async def test_members_are_left_out_from_the_end_until_the_rest_fits() -> None:
    told = await ask(three(max_cost=3.5 * EACH))
    assert skipped(told) == ["m3"]
    assert told.data("model.skipped", "m3").reason == "budget"
    assert told.data("run.created").cost_ceiling == pytest.approx(3 * EACH)
    degraded = told.data("run.degraded")
    assert (degraded.level, degraded.reason, degraded.members) == ("quorum", "budget", ("m3",))
    assert told.text == "The end."
    assert told.call.answer is not None
    assert told.call.answer.level == told.run.level == "quorum"
    assert [one.state for one in told.call.answer.members] == ["finished", "finished", "skipped", "finished"]


async def test_where_one_is_left_its_draft_is_the_answer_and_no_summary_is_paid() -> None:
    made = three(max_cost=2.5 * EACH)
    told = await ask(made)
    assert skipped(told) == ["m2", "m3"]
    assert (told.text, told.run.level, made.writer.asked) == ("a", "lone", [])


async def test_where_too_few_would_be_left_nothing_is_asked() -> None:
    for settings in ({"max_cost": EACH / 2}, {"max_cost": 3.5 * EACH, "min_success": 3, "quorum": 3}):
        made = three(**settings)
        told = await ask(made)
        assert isinstance(told.error, InvalidRequest)
        assert (told.error.status, told.error.code) == (400, "cost_limit_exceeded")
        assert told.types == ["run.created", "run.failed"]
        assert not any(one.asked for one in made.members)


async def test_with_refuse_nobody_is_left_out() -> None:
    told = await ask(three(max_cost=3.5 * EACH, over_budget="refuse"))
    assert isinstance(told.error, InvalidRequest)
    assert told.error.code == "cost_limit_exceeded"
    assert (await ask(three(max_cost=4 * EACH, over_budget="refuse"))).text == "The end."


async def test_a_request_may_lower_the_limit_and_not_raise_it() -> None:
    told = await ask(three(), antiphon={"max_cost": 3.5 * EACH})
    assert skipped(told) == ["m3"]
    for wish in (5 * EACH, 0, -1):
        told = await ask(three(max_cost=4 * EACH), antiphon={"max_cost": wish})
        assert isinstance(told.error, InvalidRequest)
        assert told.error.param == "antiphon.max_cost"
    told = await ask(three(), antiphon={"max_cost": "little"})
    assert isinstance(told.error, InvalidRequest)
    assert told.error.code == "invalid_type"
    told = await ask(three(overridable=("quorum",)), antiphon={"max_cost": 1})
    assert isinstance(told.error, InvalidRequest)


async def test_unknown_prices_and_limits_hold_nothing_back() -> None:
    told = await three(max_cost=EACH).ask()
    assert skipped(told) == []
    told = await ask(panel(answers("a"), answers("b"), price=None, max_cost=1.5 * EACH))
    assert skipped(told) == []


async def test_a_member_that_is_a_combination_counts_with_its_own_limit() -> None:
    inner = panel(answers("a"), strategy="race", max_cost=EACH)
    outer = Panel(
        [], inner.writer, others=[*inner.members], members=(Member(model="panel"),), strategy="race"
    )
    outer.upstreams["outer"], outer.upstreams["panel"] = outer.combination, inner.combination
    told = await ask(outer, model="outer")
    assert told.data("run.created").cost_ceiling == EACH


async def test_strategies_that_ask_one_after_the_other_ask_as_long_as_there_is_money() -> None:
    made = panel([broken()], answers("b"), answers("c"), strategy="fallback", max_cost=EACH)
    told = await ask(made)
    assert told.text == "b"  # the failure cost nothing
    never_so = Cascade(accept=Accept(regex="never"))
    dear = [answers("a", tokens=900), answers("b", tokens=900), answers("c")]
    made = panel(*dear, strategy="cascade", max_cost=2 * EACH, cascade=never_so)
    told = await ask(made)
    assert (told.text, told.run.level) == ("b", "best_draft")
    assert skipped(told) == ["m3"]


async def test_a_race_whose_members_fail_tells_of_those_it_could_not_afford() -> None:
    told = await ask(panel([broken()], answers("b"), strategy="race", max_cost=EACH))
    assert told.error is not None
    assert [one.code for one in told.data("run.failed").members] == ["upstream_error", "budget"]


async def test_a_judge_that_cannot_be_afforded_is_not_asked() -> None:
    judge = Scripted("judge", says('{"winner": "B"}'), price=Price(input=10**6, output=0), context=8000)
    made = panel(
        answers("a"), answers("b"), strategy="best_of", max_cost=3 * EACH, judge=Judge(model="judge")
    )
    made.upstreams["judge"] = judge
    told = await ask(made)
    assert judge.asked == []
    assert told.text == "a"
    assert told.run.level == "best_draft"


async def test_a_step_that_cannot_be_afforded_is_not_taken_and_the_answer_comes_from_those_before() -> None:
    step = says('{"title": "t", "content": "thought", "next_action": "continue"}', usage=used(10))
    made = Panel(
        [],
        Scripted("writer", step, price=FREE_INPUT),
        members=(),
        summary=None,
        strategy="steps",
        model="writer",
        steps=Steps(step_tokens=400),
        max_cost=1.405 * EACH,
    )
    told = await ask(made)
    assert (told.error, told.run.level) == (None, "steps_cut")
    assert told.data("run.degraded").reason == "cost_limit_exceeded"


async def test_a_plain_answer_of_a_combination_is_refused_beforehand() -> None:
    for limit, refused in ((EACH / 2, True), (EACH, False)):
        one = Scripted("one", answers("a"), price=FREE_INPUT)
        made = Panel([], one, members=(), summary=None, strategy="direct", model="one", max_cost=limit)
        told = await ask(made)
        assert (told.error is not None) is refused
        assert told.data("run.created").cost_ceiling == (None if refused else EACH)


async def test_whatever_becomes_of_the_members_the_account_is_balanced_within_the_limit() -> None:
    rng = random.Random(7)
    kinds = ("answers", "fails", "hangs", "cut")
    for _ in range(150):
        scripts: list[list[Step]] = []
        for kind in rng.choices(kinds, k=rng.randint(1, 5)):
            tokens = rng.randint(0, LIMIT)
            wait = rng.randint(0, 3)
            played: dict[str, list[Step]] = {
                "answers": [wait, *answers("draft", tokens=tokens)],
                "fails": [wait, broken()],
                "hangs": [never()],
                "cut": [*says("draft")[:-1], broken()],
            }
            scripts.append(played[kind])
        strategy = rng.choice(("synthesize", "race", "fallback", "all", "moa", "council"))
        limit = rng.uniform(0.5, 8) * EACH
        made = panel(
            *scripts,
            strategy=strategy,
            max_cost=limit,
            grace_s=0,
            quorum=1,
            deadline_s=0.02,
            partial_min_chars=1,
        )
        told = await ask(made)
        cost = told.events[-1].data.cost  # type: ignore[attr-defined]
        assert cost is None or cost <= limit + 1e-12
