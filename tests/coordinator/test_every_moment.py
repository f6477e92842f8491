"""A run that is ended at any turn of the event loop, so at each of its awaits, leaves nothing behind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

import pytest

from server.coordinator import answer
from server.coordinator.strategies import STRATEGIES
from server.deltas import TextDelta
from server.errors import RunCancelled, ShuttingDown
from server.events import RunCancelled as RunCancelledData
from server.run_log import Run
from server.settings import Strategy
from server.upstreams.base import Call
from tests.coordinator.panel import PATIENCE_S, Panel, Scripted, Step, broken, check_log, request
from tests.coordinator.test_every_strategy import DRAFT, VERDICT, panel

End = Callable[["asyncio.Task[bool]", Run], object]
ENDS: dict[str, End] = {
    "client": lambda task, run: task.cancel(),
    "watcher": lambda task, run: run.cancel("watcher"),
    "shutdown": lambda task, run: run.cancel("shutdown"),
    "impatient client": lambda task, run: (task.cancel(), asyncio.get_running_loop().call_soon(task.cancel)),
}
CALM_TURNS = {"impatient client": 5}
"""So many turns later nothing is left, else one: what only the collector closes takes longer."""


def speaking(name: str) -> Scripted:
    begin, end = DRAFT[:20], DRAFT[20:]
    steps: list[Step] = [2, [TextDelta(begin)], 2, [TextDelta(end)], 1]
    return Scripted(name, [*steps, *Scripted("", []).steps])


def the_panel(strategy: Strategy) -> Panel:
    failing = Scripted("bad", [1, broken()])
    members = [failing] if strategy == "steps" else [failing, speaking("b"), speaking("c")]
    if strategy == "steps":
        members = [speaking("a")]
    writer: list[Step] = [1, [TextDelta(VERDICT[:10])], 2, [TextDelta(VERDICT[10:])]]
    return panel(strategy, members, writer, grace_s=0)


async def read(the: Panel, run: Run) -> bool:
    """Carry the run out to its end; False if it failed."""
    try:
        with run.scope():
            async with aclosing(answer(run, the.find("panel"), request(), Call())) as batches:
                async for _batch in batches:
                    await asyncio.sleep(0)  # a client that takes its time
    except (RunCancelled, ShuttingDown):
        raise
    except Exception:  # noqa: BLE001 - how a run fails is for others to look at
        return False
    return True


def pending_timers(loop: Any) -> int:
    return sum(not timer.cancelled() for timer in loop._scheduled)


async def ended_after(turns: int, strategy: Strategy, by: str) -> tuple[Run, bool]:
    """A run that is ended so many turns after its start; did that come before its own end?"""
    loop = asyncio.get_running_loop()
    tasks, timers = asyncio.all_tasks(), pending_timers(loop)
    the = the_panel(strategy)
    run = the.start()
    task = asyncio.create_task(read(the, run))
    for _ in range(turns):
        await asyncio.sleep(0)
    in_time = not run.ended
    if not task.done():
        ENDS[by](task, run)
    await asyncio.wait({task}, timeout=PATIENCE_S)
    assert task.done(), "it goes on"
    last = run.events_after(run.head - 1)[0].data
    if isinstance(last, RunCancelledData):
        assert last.by == by.rpartition(" ")[2]
        if by.endswith("client"):
            assert task.cancelled()
        else:
            assert type(task.exception()) is (RunCancelled if by == "watcher" else ShuttingDown)
    for _ in range(CALM_TURNS.get(by, 1)):
        await asyncio.sleep(0)
    assert asyncio.all_tasks() == tasks
    assert pending_timers(loop) == timers
    the.check_closed()
    assert run.ended
    assert the.runs.in_progress == 0
    check_log(run)
    return run, in_time


@pytest.mark.parametrize("by", list(ENDS))
@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
async def test_whenever_a_run_is_ended_no_task_call_or_timer_is_left(strategy: Strategy, by: str) -> None:
    turns, moments = 1, 0  # before its first turn it is nobody's
    while turns < 500:
        run, in_time = await ended_after(turns, strategy, by)
        if not in_time:
            break
        moments += run.status == "cancelled"
        turns += 1
    assert turns < 500, "it never ended by itself"
    assert moments > 10, "it was hardly ever under way"
