"""Some calls of one stage: started, waited for, given up; each has one end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from server.coordinator.ledger import Ledger
from server.coordinator.one_call import created_for
from server.coordinator.outcomes import Draft, Failure
from server.coordinator.plan import Plan, make_plan
from server.coordinator.run_book import RunBook
from server.coordinator.scatter import LATER_S, Scatter, Within
from server.coordinator.steering import Steering
from server.deltas import TextDelta
from server.price_settings import Price
from server.run_log import Run
from server.settings import Combination, Member, Summary, TimeoutsPatch
from server.upstreams.image_sharing import RunImages
from tests.coordinator.panel import PATIENCE_S, Panel, Scripted, broken, never, request, says

LONG = "word " * 60


class Stage:
    """A scatter over scripted members, within a run of its own."""

    def __init__(self, panel: Panel, run: Run, scatter: Scatter, book: RunBook, steering: Steering) -> None:
        self.panel, self.run, self.scatter, self.book, self.steering = panel, run, scatter, book, steering

    def told(self, type: str) -> list[Any]:
        return [event for event in self.run.events_after(0) if event.type == type]

    async def all_settled(self) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while self.scatter.running:
                assert await self.scatter.change(None)


def plan_of(scripted: Sequence[Scripted], **settings: Any) -> Plan:
    given = {"members": tuple(Member(model=one.name) for one in scripted), **settings}
    return make_plan(Combination(name="panel", summary=Summary(model="writer"), **given), request())


@asynccontextmanager
async def stage(
    *members: Scripted,
    name: str = "draft",
    deadline: float | None = None,
    ledger: Ledger | None = None,
    besides: int = 0,
    number: int = 1,
    **settings: Any,
) -> AsyncIterator[Stage]:
    panel = Panel(members)
    plan = plan_of(members, **settings)
    run, steering = panel.start(), Steering()
    book = RunBook(run, created_for(run, "panel", stream=True))
    book.begin()
    book.ledger = ledger
    async with asyncio.TaskGroup() as group:
        within = Within(book, plan, group, panel.find, 1, steering, RunImages())
        ref = book.begin_stage(name, [call.id for call in plan.calls], number)
        calls = [(call, request(model=call.model, max_tokens=100)) for call in plan.calls]
        scatter = Scatter(within, ref, calls, deadline=deadline, besides=besides)
        yield Stage(panel, run, scatter, book, steering)
        for member in scatter.members:
            member.give_up("client")
    panel.check_closed()


async def test_nothing_runs_before_it_is_started_and_each_is_waited_for() -> None:
    async with stage(Scripted("a", says("one")), Scripted("b", [broken()])) as one:
        scatter = one.scatter
        assert (scatter.running, len(scatter.waiting), scatter.outcomes) == ([], 2, ())
        scatter.start(scatter.members[0])
        assert (len(scatter.running), len(scatter.waiting)) == (1, 1)
        await one.all_settled()
        assert (scatter.complete, len(scatter.waiting)) == (1, 1)
        scatter.start(scatter.members[1])
        await one.all_settled()
        first, second = scatter.outcomes
        assert isinstance(first, Draft)
        assert isinstance(second, Failure)
        assert (first.text, second.code, scatter.complete) == ("one", "upstream_error", 1)


async def test_its_end_gives_up_what_runs_and_counts_everything_once() -> None:
    members = [
        Scripted("a", says("one")),
        Scripted("b", [broken()]),
        Scripted("c", [[TextDelta(LONG)], never()]),
        Scripted("d", [never()]),
        Scripted("e", says("never asked")),
    ]
    async with stage(*members) as one:
        scatter = one.scatter
        for member in scatter.members[:4]:
            scatter.start(member)
        async with asyncio.timeout(PATIENCE_S):
            while len(scatter.outcomes) < 2 or not scatter.members[2].log.said:
                await scatter.change(None)
                await asyncio.sleep(0)
        scatter.members[4].skip("not_needed")
        scatter.end("quorum", "quorum")
        assert not scatter.running
        (end,) = one.told("stage.finished")
        counts = (end.data.drafts, end.data.partial, end.data.failed, end.data.cancelled, end.data.skipped)
        assert counts == (1, 1, 1, 2, 1)
        assert end.data.ended_by == "quorum"
        assert {event.data.reason for event in one.told("model.cancelled")} == {"quorum"}
        assert scatter.over.is_set()
        before = one.run.head
        scatter.end("deadline", "deadline")  # of ends the first one counts
        assert one.run.head == before
    assert members[4].asked == []


async def test_a_call_is_told_its_time_its_tries_and_its_siblings() -> None:
    member = Scripted("a", says("one"))
    settings: dict[str, Any] = {
        "members": (Member(model="a", timeouts=TimeoutsPatch(idle_s=3), attempts=4),),
        "timeouts": TimeoutsPatch(idle_s=9, total_s=8),
    }
    deadline = asyncio.get_running_loop().time() + 30
    async with stage(member, deadline=deadline, **settings) as one:
        one.scatter.start_all()
        await one.all_settled()
        (call,) = member.calls
        assert (call.attempts, call.depth, call.siblings) == (4, 2, one.scatter)
        assert call.deadline == deadline + LATER_S
        assert call.run is one.run
        assert [part for _, part in one.book.parts] == [call]


async def test_who_waits_is_woken_by_each_outcome_or_by_the_time() -> None:
    gate = asyncio.Event()
    async with stage(Scripted("a", [gate, *says("one")])) as one:
        loop = asyncio.get_running_loop()
        one.scatter.start_all()
        assert not await one.scatter.change(loop.time() + 0.001)
        gate.set()
        assert await one.scatter.change(loop.time() + PATIENCE_S)
        assert not one.scatter.running
        one.scatter.note()
        assert await one.scatter.change(None)


@pytest.mark.parametrize(
    ("name", "besides", "min_success", "able"),
    [
        ("draft", 0, 1, True),
        ("draft", 0, 2, False),
        ("draft", 1, 2, True),
        ("step", 0, 2, True),
        ("judge", 0, 2, True),
    ],
)
async def test_there_is_enough_to_answer_from_when_drafts_are_enough(
    name: str, besides: int, min_success: int, able: bool
) -> None:
    members = [Scripted("a", says("one")), Scripted("b", [broken()]), Scripted("c", [broken()])]
    async with stage(*members, name=name, besides=besides, min_success=min_success) as one:
        one.scatter.start_all()
        await one.all_settled()
        assert one.scatter.can_answer is able


async def test_a_beginning_that_is_long_enough_is_something_to_answer_from() -> None:
    member = Scripted("a", [[TextDelta(LONG)], never()])
    async with stage(member) as one:
        one.scatter.start_all()
        assert not one.scatter.can_answer
        async with asyncio.timeout(PATIENCE_S):
            while not one.scatter.members[0].log.said:  # noqa: ASYNC110
                await asyncio.sleep(0)
        assert one.scatter.can_answer


async def test_it_can_be_steered_from_its_beginning_to_its_end() -> None:
    async with stage(Scripted("a", [never()]), Scripted("b", says("two"))) as one:
        told: list[str] = []
        one.scatter.start_all()
        async with asyncio.timeout(PATIENCE_S):
            while not one.scatter.complete:
                await one.scatter.change(None)
        over = one.steering.answer_now(lambda: told.append("now"))
        assert over is one.scatter.over
        assert one.scatter.hurried
        assert await one.scatter.change(None), "who waits sees it at once"
        one.scatter.end("answer_now", "answer_now")
        assert over.is_set()
        assert one.steering.answer_now(lambda: told.append("again")) is None
        assert told == ["now"]


async def test_a_call_for_which_no_money_is_left_is_not_made() -> None:
    price = Price(input=0, output=10)  # 100 tokens cost 0.001
    members = [Scripted(name, says("one"), price=price) for name in "abc"]
    ledger = Ledger(250_000_000)

    async with stage(*members, ledger=ledger) as one:
        (most,) = {member.log.request.max_tokens for member in one.scatter.members}
        assert most == 100
        one.scatter.start_all()
        states = [member.log.state for member in one.scatter.members]
        held = ledger.held
        assert held <= ledger.limit
        assert states.count("skipped") + len(one.scatter.running) == 3
        await one.all_settled()
        for member in one.scatter.members:
            if member.log.state == "skipped":
                assert isinstance(member.outcome, Failure)
                assert member.outcome.code == "budget"
    assert ledger.held == 0
    assert ledger.reserved == ledger.settled + ledger.refunded


async def test_a_mistake_of_ours_in_one_call_is_why_the_others_are_cancelled() -> None:
    made: list[Stage] = []

    async def run() -> None:
        async with stage(Scripted("a", [ZeroDivisionError()]), Scripted("b", [never()])) as one:
            made.append(one)
            one.scatter.start_all()
            await asyncio.Event().wait()

    with pytest.raises(BaseExceptionGroup) as caught:
        await run()
    assert isinstance(caught.value.exceptions[0], ZeroDivisionError)
    assert made[0].scatter.why() == "failed"
    assert [event.data.reason for event in made[0].told("model.cancelled")] == ["failed"]


async def test_the_quorum_is_noted_when_it_is_there() -> None:
    members = [Scripted(name, says(name)) for name in "abc"]
    async with stage(*members, quorum=2) as one:
        noted = []
        for member in one.scatter.members[:2]:
            one.scatter.start(member)
            await one.all_settled()
            noted.append((one.book.quorum_ms is not None, one.scatter.enough()))
        assert noted == [(False, False), (True, True)]


async def test_a_model_that_does_not_exist_is_a_failure_of_its_member_alone() -> None:
    async with stage(Scripted("a", says("one")), members=(Member(model="a"), Member(model="gone"))) as one:
        one.scatter.start_all()
        await one.all_settled()
        first, second = one.scatter.outcomes
        assert isinstance(first, Draft)
        assert isinstance(second, Failure)
        assert second.code == "model_not_found"
