"""An owner of tasks: what it starts, it ends."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Coroutine
from typing import Any

import pytest

from server.tasks import TaskOwner


async def fail(message: str = "bug") -> None:
    raise KeyError(message)


async def test_a_task_runs_under_its_name_and_is_forgotten_at_its_end() -> None:
    owner = TaskOwner()
    task = owner.create(asyncio.sleep(0, "done"), name="mine")
    assert (task.get_name(), len(owner)) == ("mine", 1)
    assert await task == "done"
    await asyncio.sleep(0)
    assert len(owner) == 0
    await owner.aclose()


async def test_a_task_that_fails_is_told_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    owner = TaskOwner()
    task = owner.create(fail(), name="mine")
    await asyncio.wait({task})
    await asyncio.sleep(0)
    assert caplog.messages == ["task mine failed"]
    assert caplog.records[0].exc_info is not None
    assert isinstance(caplog.records[0].exc_info[1], KeyError)
    await owner.aclose()


async def test_a_task_that_is_awaited_tells_whoever_awaits_it_alone(caplog: pytest.LogCaptureFixture) -> None:
    owner = TaskOwner()
    with pytest.raises(KeyError):
        await owner.create(fail(), name="mine", awaited=True)
    await owner.aclose()
    assert caplog.messages == []
    assert len(owner) == 0


async def test_a_cancelled_task_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    owner = TaskOwner()
    owner.create(asyncio.sleep(60), name="mine").cancel()
    await owner.aclose()
    assert caplog.messages == []


async def test_a_task_that_nobody_else_holds_is_not_collected() -> None:
    owner, done = TaskOwner(), asyncio.Event()

    async def work() -> None:
        await asyncio.sleep(0)
        done.set()

    owner.create(work(), name="mine")
    gc.collect()
    async with asyncio.timeout(10):
        await done.wait()
    await owner.aclose()


async def test_closing_cancels_what_runs_and_waits_for_its_end() -> None:
    owner, cleaned = TaskOwner(), []

    async def work(number: int) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.001 * number)
            cleaned.append(number)

    before = asyncio.all_tasks()
    for number in range(5):
        owner.create(work(number), name=f"work {number}")
    await asyncio.sleep(0)
    await owner.aclose()
    assert sorted(cleaned) == list(range(5))
    assert (len(owner), asyncio.all_tasks()) == (0, before)


async def test_a_task_that_takes_its_time_to_end_is_waited_for() -> None:
    owner, ended = TaskOwner(), asyncio.Event()

    async def stubborn() -> None:
        for _ in range(3):
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                await asyncio.sleep(0.001)
                break
        ended.set()

    owner.create(stubborn(), name="stubborn")
    await asyncio.sleep(0)
    await owner.aclose()
    assert ended.is_set()


async def test_a_failure_while_closing_is_told(caplog: pytest.LogCaptureFixture) -> None:
    owner = TaskOwner()

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            raise KeyError("bug in the cleaning up")

    owner.create(work(), name="mine")
    await asyncio.sleep(0)
    await owner.aclose()
    await asyncio.sleep(0)
    assert caplog.messages == ["task mine failed"]


@pytest.mark.parametrize("started", [False, True])
async def test_after_closing_nothing_can_be_started(started: bool) -> None:
    owner = TaskOwner()
    if started:
        await owner.create(asyncio.sleep(0), name="mine")
    await owner.aclose()
    await owner.aclose()  # idempotent
    work: Coroutine[Any, Any, None] = asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="closed"):
        owner.create(work, name="late")
    with pytest.raises(RuntimeError):  # it was closed: no warning that it was never awaited
        work.send(None)


async def test_a_task_cannot_start_others_while_its_owner_closes() -> None:
    owner, refused = TaskOwner(), asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            try:
                owner.create(asyncio.sleep(60), name="child")
            except RuntimeError:
                refused.set()

    owner.create(work(), name="mine")
    await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await owner.aclose()
    assert refused.is_set()


async def test_whoever_closes_may_be_cancelled_and_close_again() -> None:
    owner, go = TaskOwner(), asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await go.wait()

    task = owner.create(work(), name="mine")
    await asyncio.sleep(0)
    closing = asyncio.create_task(owner.aclose())
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.wait({closing})
    assert not task.done()
    go.set()
    await owner.aclose()
    assert task.done()
    assert len(owner) == 0
