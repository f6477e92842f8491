"""One model's answer as a run: its batches pass untouched, and the run ends as the stream does."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from server.coordinator import answer
from server.deltas import Batch, Opening, TextDelta, Usage
from server.errors import ServerError, UpstreamCut
from server.upstreams.base import Call
from tests.coordinator.panel import (
    PATIENCE_S,
    Panel,
    Scripted,
    Step,
    broken,
    check_log,
    never,
    request,
    says,
)


def panel(*steps: Step) -> Panel:
    return Panel([Scripted("m1", steps)])


async def test_every_batch_is_the_upstreams_own() -> None:
    """Neither copied, nor joined, nor held back."""
    batches: list[Batch] = [[Opening()], [TextDelta("a"), TextDelta("b")], *says("c")[1:]]  # type: ignore[list-item]
    made = panel(*batches)
    run = made.start("m1")
    with run.scope():
        async with aclosing(answer(run, made.find("m1"), request(model="m1"), Call())) as stream:
            got = [batch async for batch in stream]
    assert len(got) == len(batches)
    assert all(one is other for one, other in zip(got, batches, strict=True))
    check_log(run)


@pytest.mark.parametrize(
    ("reason", "end"),
    [("stop", "run.completed"), ("tool_calls", "run.completed"), ("length", "run.incomplete")],
)
async def test_the_run_ends_with_the_reason_of_the_answer(reason: str, end: str) -> None:
    told = await panel(*says("a", reason=reason)).ask(model="m1")
    assert told.types[-1] == end
    assert told.data(end).finish_reason == reason
    assert told.data("stage.finished").ended_by == "all"


async def test_what_it_used_is_told_to_the_run() -> None:
    told = await panel(*says("a", usage=Usage(3, 4, 7))).ask(model="m1")
    assert told.data("run.completed").usage.total_tokens == 7
    assert told.run.usage is not None
    assert told.run.usage.total_tokens == 7
    assert [(one["id"], one["state"]) for one in told.run.snapshot()["members"]] == [("m1", "finished")]


@pytest.mark.parametrize(
    "steps", [[broken()], [[Opening()], broken()], [[TextDelta("a")], UpstreamCut("Cut.")]]
)
async def test_a_failure_is_raised_as_it_is_and_told_once(steps: list[Step]) -> None:
    told = await panel(*steps).ask(model="m1")
    error = steps[-1]
    assert told.error is error
    assert isinstance(error, ServerError)
    failed = told.data("run.failed")
    assert failed.error.code == error.code
    assert [member.code for member in failed.members] == [failed.error.code]
    assert told.types.count("model.failed") == 1


async def test_a_bug_surfaces_and_the_log_does_not_repeat_its_words() -> None:
    told = await panel([TextDelta("a")], RuntimeError("secret words")).ask(model="m1")
    assert isinstance(told.error, RuntimeError)
    assert told.data("run.failed").error.code == "internal_error"
    assert "secret words" not in str(told.events)


async def test_who_stops_reading_cancels_the_run_and_closes_the_upstream() -> None:
    made = panel([TextDelta("a")], never())
    run = made.start("m1")
    with run.scope():
        async with aclosing(answer(run, made.find("m1"), request(model="m1"), Call())) as stream:
            async for _ in stream:
                break
    check_log(run)
    made.check_closed()
    assert run.events_after(0)[-1].type == "run.cancelled"


async def test_who_is_cancelled_while_it_waits_does_too() -> None:
    made = panel(never())
    run = made.start("m1")

    async def read() -> None:
        with run.scope():
            async with aclosing(answer(run, made.find("m1"), request(model="m1"), Call())) as stream:
                async for _ in stream:
                    pass

    task = asyncio.create_task(read())
    async with asyncio.timeout(PATIENCE_S):
        await made.members[0].started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    check_log(run)
    made.check_closed()
    assert run.events_after(0)[-1].type == "run.cancelled"
