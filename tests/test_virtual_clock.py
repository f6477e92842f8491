"""Time that jumps to the next timer."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from server.virtual_clock import Stalled, VirtualClockLoop


def run(work: Coroutine[Any, Any, Any]) -> Any:
    with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
        return runner.run(work)


def test_hours_pass_at_once_and_in_order() -> None:
    async def sleepers() -> list[tuple[str, float]]:
        woken: list[tuple[str, float]] = []
        loop = asyncio.get_running_loop()

        async def sleep(name: str, seconds: float) -> None:
            await asyncio.sleep(seconds)
            woken.append((name, loop.time()))

        async with asyncio.TaskGroup() as group:
            for name, seconds in (("c", 7200.0), ("a", 0.25), ("b", 3600.0)):
                group.create_task(sleep(name, seconds))
        return woken

    assert run(sleepers()) == [("a", 0.25), ("b", 3600.0), ("c", 7200.0)]


def test_a_timeout_comes_when_it_is_due() -> None:
    async def late() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await asyncio.sleep(6)
        return asyncio.get_running_loop().time()

    assert run(late()) == 5


def test_where_nothing_is_left_to_happen_that_is_told() -> None:
    async def wait() -> None:
        await asyncio.Event().wait()

    with pytest.raises(Stalled):
        run(wait())
