"""A run that a watcher steers: calls that are ended one by one, answers from what there is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.auth import Principal
from server.coordinator.strategies import STRATEGIES
from server.deltas import TextDelta
from server.errors import AllMembersFailed, Conflict, NotFound, RunCancelled
from server.handlers import control
from server.run_log import Run
from server.settings import Strategy
from server.strategy_settings import Race
from tests.coordinator.panel import PATIENCE_S, Panel, Scripted, Told, broken, never, says
from tests.coordinator.test_combination import OUTCOMES, play
from tests.coordinator.test_every_strategy import DRAFT, GATHERING, panel

ME = Principal("me")
BOSS = Principal("boss", admin=True)
LONG = "A long beginning of an answer. " * 10


class Asked:
    """A run under way."""

    def __init__(self, made: Panel, task: asyncio.Task[Told], run: Run) -> None:
        self.made, self.task, self.run = made, task, run

    async def when(self, is_so: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not is_so():  # noqa: ASYNC110 - some of what is waited for is no event
                await asyncio.sleep(0)

    def told(self, type: str, member: str | None = None) -> bool:
        events = self.run.events_after(0)
        return any(
            one.type == type and (not member or (one.member and one.member.id == member)) for one in events
        )


@asynccontextmanager
async def asked(made: Panel) -> AsyncIterator[Asked]:
    """One request to ``panel``; the block steers its run, and may await ``task``."""
    async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as group:
        task = group.create_task(made.ask())
        while not len(made.runs):  # noqa: ASYNC110
            await asyncio.sleep(0)
        (run,) = made.runs.active(ME, everyone=True, limit=2)
        yield Asked(made, task, run)


def speaking(text: str = LONG) -> Scripted:
    return Scripted("speaking", [[TextDelta(text)], never()])


async def test_answer_now_answers_from_the_drafts_and_the_text_that_there_is() -> None:
    made = panel("synthesize", [Scripted("a", says(DRAFT)), speaking(), Scripted("c", [never()])], quorum=3)
    async with asked(made) as under_way:
        await under_way.when(
            lambda: under_way.told("model.finished", "m1") and under_way.told("model.first_token", "m2")
        )
        assert await control.answer_now(under_way.run, ME) is True
        told = await under_way.task
    assert told.error is None
    assert told.data("run.control").verb == "answer_now"
    assert told.data("model.cancelled", "m2").reason == "answer_now"
    assert told.data("model.cancelled", "m2").partial is True
    assert told.data("model.cancelled", "m3").partial is False
    assert told.types.index("run.control") < told.types.index("model.cancelled")
    ends = [event.data.ended_by for event in told.events if event.type == "stage.finished"]  # type: ignore[attr-defined]
    assert ends[0] == "answer_now"
    assert told.run.level == "partial"
    assert told.data("run.degraded").reason == "answer_now"


async def test_answer_now_with_nothing_to_answer_from_is_refused_and_the_run_goes_on() -> None:
    gate = asyncio.Event()
    made = panel(
        "synthesize",
        [Scripted("a", [gate, *says(DRAFT)]), Scripted("b", [[TextDelta("Short")], gate, *says(DRAFT)])],
    )
    async with asked(made) as under_way:
        await under_way.when(lambda: under_way.told("model.first_token", "m2"))
        with pytest.raises(Conflict) as refused:
            await control.answer_now(under_way.run, ME)
        assert refused.value.code == "nothing_to_answer"
        gate.set()
        told = await under_way.task
    assert told.error is None
    assert "run.control" not in told.types
    assert told.run.level == "none"


async def test_one_draft_is_no_answer_where_two_are_wanted() -> None:
    gate = asyncio.Event()
    made = panel(
        "synthesize", [Scripted("a", says(DRAFT)), Scripted("b", [gate, *says(DRAFT)])], min_success=2
    )
    async with asked(made) as under_way:
        await under_way.when(lambda: under_way.told("model.finished", "m1"))
        with pytest.raises(Conflict):
            await control.answer_now(under_way.run, ME)
        gate.set()
        assert (await under_way.task).error is None


async def test_many_who_want_the_answer_now_are_told_of_once() -> None:
    made = panel("synthesize", [Scripted("a", says(DRAFT)), Scripted("b", [never()])], quorum=2)
    async with asked(made) as under_way:
        await under_way.when(lambda: under_way.told("model.finished", "m1"))
        took = await asyncio.gather(*(control.answer_now(under_way.run, who) for who in (ME, BOSS, ME)))
        assert took == [True, True, True]
        told = await under_way.task
    assert told.types.count("run.control") == 1
    assert told.run.level == "lone"
    assert await control.answer_now(under_way.run, ME) is False, "it has ended"


async def test_a_member_that_a_watcher_cancels_is_missing_and_the_gathering_goes_on() -> None:
    gate = asyncio.Event()
    made = panel(
        "synthesize",
        [Scripted("a", says(DRAFT)), Scripted("b", [never()]), Scripted("c", [gate, *says(DRAFT)])],
    )
    async with asked(made) as under_way:
        await under_way.when(lambda: under_way.told("model.started", "m2"))
        assert await control.cancel_member(under_way.run, BOSS, "m2") is True
        assert await control.cancel_member(under_way.run, BOSS, "m2") is False
        await under_way.when(lambda: made.members[1].open == 0)
        assert under_way.told("stage.finished") is False
        gate.set()
        told = await under_way.task
    command = told.data("run.control")
    assert (command.verb, command.target, command.by) == ("cancel_member", "m2", "admin")
    assert told.data("model.cancelled", "m2").reason == "watcher"
    assert told.error is None
    assert (told.run.level, told.data("run.degraded").reason) == ("quorum", "cancelled")


async def test_the_last_member_that_is_cancelled_ends_the_gathering() -> None:
    made = panel("synthesize", [Scripted("a", [broken()]), Scripted("b", [never()])])
    async with asked(made) as under_way:
        await under_way.when(lambda: under_way.told("model.failed", "m1"))
        assert await control.cancel_member(under_way.run, ME, "m2") is True
        told = await under_way.task
    assert isinstance(told.error, AllMembersFailed)
    assert {one.id: one.code for one in told.data("run.failed").members} == {
        "m1": "upstream_error",
        "m2": "cancelled",
    }


async def test_the_text_of_a_cancelled_member_is_a_draft_if_it_is_long_enough() -> None:
    made = panel("synthesize", [speaking(), Scripted("b", says(DRAFT))])
    async with asked(made) as under_way:
        await under_way.when(lambda: under_way.told("model.first_token", "m1"))
        assert await control.cancel_member(under_way.run, ME, "m1") is True
        told = await under_way.task
    assert told.data("model.cancelled", "m1").partial is True
    assert (told.run.level, told.data("run.degraded").reason) == ("partial", "cancelled")


async def test_a_member_that_nobody_knows_is_not_found() -> None:
    made = panel("synthesize", [Scripted("a", [never()]), Scripted("b", says(DRAFT))])
    async with asked(made) as under_way:
        await under_way.when(lambda: under_way.told("model.started", "m1"))
        with pytest.raises(NotFound):
            await control.cancel_member(under_way.run, ME, "m9")
        assert await control.cancel_run(under_way.run, ME) is True
        assert isinstance((await under_way.task).error, RunCancelled)


async def test_a_cancelled_winner_of_a_race_leaves_no_answer_that_looks_whole() -> None:
    made = panel("race", [speaking(), Scripted("b", [never()])])
    async with asked(made) as under_way:
        await under_way.when(lambda: under_way.told("decision.made"))
        assert await control.answer_now(under_way.run, ME) is False, "the answer is on its way"
        assert await control.cancel_member(under_way.run, ME, "m1") is True
        told = await under_way.task
    assert isinstance(told.error, RunCancelled)
    assert told.run.status == "failed"


async def test_a_race_that_is_to_answer_now_is_won_by_whoever_speaks() -> None:
    gate = asyncio.Event()
    speaks = Scripted("speaks", [[TextDelta(LONG)], gate, *says("The end.")])
    made = panel("race", [Scripted("b", [never()]), speaks], race=Race(confirm_chars=10**6, confirm_ms=10**6))
    async with asked(made) as under_way:
        await under_way.when(lambda: under_way.told("model.first_token", "m2"))
        hurried = asyncio.create_task(control.answer_now(under_way.run, ME))
        await under_way.when(lambda: under_way.told("decision.made"))
        gate.set()
        assert await hurried is True
        told = await under_way.task
    assert told.text == LONG + "The end."
    assert told.data("decision.made").winner == "m2"


async def test_a_fallback_asks_the_next_member_when_one_is_cancelled() -> None:
    made = panel("fallback", [Scripted("a", [never()]), Scripted("b", says(DRAFT))])
    async with asked(made) as under_way:
        await under_way.when(lambda: under_way.told("model.started", "m1"))
        assert await control.cancel_member(under_way.run, ME, "m2") is False, "it does not run"
        assert await control.cancel_member(under_way.run, ME, "m1") is True
        told = await under_way.task
    assert told.text == DRAFT


async def test_rounds_and_judges_are_ended_too() -> None:
    """A mixture of agents in its second round: the drafts of the first are there."""
    again = Again("a", DRAFT)
    made = panel("moa", [again, Scripted("b", says(DRAFT)), Scripted("c", says(DRAFT))], quorum=3)
    async with asked(made) as under_way:
        await again.again.wait()
        assert await control.answer_now(under_way.run, ME) is True
        told = await under_way.task
    assert told.error is None
    assert [event.stage.id for event in told.events if event.type == "stage.started" and event.stage] == [
        "draft.1",
        "draft.2",
        "summary.1",
    ]


async def test_a_judge_need_not_be_waited_for() -> None:
    made = panel("best_of", [Scripted("a", says(DRAFT)), Scripted("b", says("Another"))], [never()])
    async with asked(made) as under_way:
        await under_way.when(lambda: len(made.writer.asked) > 0)
        assert await control.answer_now(under_way.run, ME) is True
        told = await under_way.task
    assert told.error is None
    assert told.text in (DRAFT, "Another")


async def test_a_thinker_answers_from_the_steps_there_are() -> None:
    step = '{"title": "One", "content": "First.", "next_action": "continue"}'
    thinker = Again("a", step, answer="Done.")
    made = panel("steps", [thinker])
    async with asked(made) as under_way:
        await thinker.again.wait()
        assert await control.answer_now(under_way.run, ME) is True
        told = await under_way.task
    assert told.error is None
    assert told.text.endswith("Done.")
    assert told.data("run.degraded").reason == "answer_now"


class Again(Scripted):
    """Answers the first time, hangs the second time (``again`` is then set), and answers the third time."""

    def __init__(self, name: str, text: str, answer: str = "") -> None:
        super().__init__(name, says(text))
        self.again = asyncio.Event()
        self.answer = answer or text

    async def stream(self, chat: Any, call: Any) -> Any:
        if len(self.asked) == 1:
            self.steps = [never()]
            self.again.set()
        elif len(self.asked) == 2:
            self.steps = says(self.answer)
        async for batch in super().stream(chat, call):
            yield batch


COMMANDS = st.lists(
    st.tuples(st.integers(0, 6), st.sampled_from(["cancel_run", "answer_now", "m1", "m2", "m3", "step.1"])),
    max_size=5,
)


@given(
    kinds=st.lists(
        st.tuples(st.integers(0, 4), st.sampled_from(sorted(OUTCOMES)), st.integers(0, 4)),
        min_size=1,
        max_size=3,
    ),
    strategy=st.sampled_from([*GATHERING, "steps"]),
    commands=COMMANDS,
)
def test_whatever_is_commanded_when_the_run_ends_in_order_and_leaves_nothing(
    kinds: list[tuple[int, str, int]], strategy: Strategy, commands: list[tuple[int, str]]
) -> None:
    async def check() -> None:
        made = panel(strategy, play(kinds), quorum=1, grace_s=0.001, deadline_s=0.05)
        async with asked(made) as under_way:
            for wait, command in [*commands, (9, "cancel_run")]:
                for _ in range(wait):
                    await asyncio.sleep(0)
                try:
                    if command == "cancel_run":
                        await control.cancel_run(under_way.run, ME)
                    elif command == "answer_now":
                        await control.answer_now(under_way.run, ME)
                    else:
                        await control.cancel_member(under_way.run, ME, command)
                except (Conflict, NotFound):
                    pass
            await under_way.task  # which checks the log, and that nothing is open
        assert under_way.run.steered is None

    asyncio.run(check())


def test_every_strategy_can_be_steered() -> None:
    assert {*GATHERING, "steps"} == set(STRATEGIES)
