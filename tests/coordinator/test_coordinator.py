"""The draft stage of a run: who is asked, how long they are waited for, and that all of it is closed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from server.deltas import TextDelta
from server.errors import ServerError
from server.settings import Member
from tests.coordinator.panel import Panel, Scripted, Step, broken, never, says


def members(*scripts: Sequence[Step]) -> list[Scripted]:
    return [Scripted(f"m{number}", steps) for number, steps in enumerate(scripts, start=1)]


async def test_all_members_are_asked_at_once_with_the_same_question() -> None:
    """Each waits until the others have been asked: one after another they would never answer."""
    gate = asyncio.Event()
    asked = members([gate, *says("a")], [gate, *says("b")], [gate, *says("c")])

    async def open_gate() -> None:
        for one in asked:
            await one.started.wait()
        gate.set()

    opening = asyncio.create_task(open_gate())
    told = await Panel(asked).ask("Why is the sky blue?")
    await opening
    assert told.error is None
    questions = [one.body["messages"][-1] for one in asked]
    assert questions == [{"role": "user", "content": "Why is the sky blue?"}] * 3


async def test_once_there_are_enough_the_others_are_closed_and_told_as_cancelled() -> None:
    slow = Scripted("m3", [[TextDelta("half")], never()])
    told = await Panel([*members(says("a"), says("b")), slow], quorum=2, grace_s=0).ask()
    assert told.error is None
    assert slow.open == 0
    assert told.types[-1] == "run.completed"


async def test_with_a_quorum_of_all_nobody_is_left_out() -> None:
    told = await Panel(members(says("a"), [30, *says("b")]), quorum=2, grace_s=0).ask()
    assert told.data("run.completed").used == ("m1", "m2")


async def test_samples_of_one_member_are_told_apart() -> None:
    one = Scripted("m1", says("a"))
    told = await Panel([one], members=(Member(model="m1", samples=3),), quorum=3).ask()
    ids = {event.member.id for event in told.events if event.type == "model.started" and event.member}
    assert len(one.asked) == len(ids) == 3


@pytest.mark.parametrize("count", [1, 3])
async def test_if_all_fail_no_summary_is_asked(count: int) -> None:
    panel = Panel(members(*[[broken()]] * count))
    told = await panel.ask()
    assert isinstance(told.error, ServerError)
    assert told.error.code == "all_members_failed"
    assert not panel.writer.asked
