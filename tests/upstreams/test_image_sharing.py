"""What several calls want is made once, whoever of them leaves."""

from __future__ import annotations

import asyncio

import pytest

from server.errors import InvalidRequest, ServerError, UpstreamTimeout
from server.upstreams.image_sharing import Once
from tests.raw_http import PATIENCE_S


class Maker:
    """Makes a thing when its gate opens; ``begun`` is how often it was asked."""

    def __init__(self, *outcomes: str | ServerError) -> None:
        self.gate = asyncio.Event()
        self.begun = 0
        self._outcomes = list(outcomes)

    async def make(self) -> str:
        self.begun += 1
        await self.gate.wait()
        outcome = self._outcomes.pop(0)
        if isinstance(outcome, ServerError):
            raise outcome
        return outcome


async def turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_three_at_once_and_one_later_have_it_made_once() -> None:
    once, maker = Once[str, str](), Maker("thing")
    async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as group:
        tasks = [group.create_task(once.get("a", maker.make)) for _ in range(3)]
        await turns()
        maker.gate.set()
    assert [task.result() for task in tasks] == ["thing"] * 3
    assert await once.get("a", maker.make) == "thing"
    assert maker.begun == 1


async def test_each_key_has_its_own() -> None:
    once, maker = Once[str, str](), Maker("one", "two")
    maker.gate.set()
    assert [await once.get("a", maker.make), await once.get("b", maker.make)] == ["one", "two"]


async def test_if_the_maker_leaves_the_next_one_makes_it() -> None:
    once, maker = Once[str, str](), Maker("thing")
    async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as group:
        first = group.create_task(once.get("a", maker.make))
        await turns()
        others = [group.create_task(once.get("a", maker.make)) for _ in range(2)]
        await turns()
        first.cancel()
        await turns()
        assert maker.begun == 2
        maker.gate.set()
    assert [task.result() for task in others] == ["thing"] * 2


async def test_a_failure_of_the_makers_own_is_nobody_elses() -> None:
    once, maker = Once[str, str](), Maker(UpstreamTimeout("total", 1), "thing")
    maker.gate.set()
    with pytest.raises(UpstreamTimeout):
        await once.get("a", maker.make)
    assert await once.get("a", maker.make) == "thing"


async def test_what_is_wrong_with_the_thing_is_wrong_for_all() -> None:
    once, maker = Once[str, str](), Maker(InvalidRequest("It is no picture."))
    maker.gate.set()
    for _ in range(3):
        with pytest.raises(InvalidRequest, match="no picture"):
            await once.get("a", maker.make)
    assert maker.begun == 1
