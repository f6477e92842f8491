"""Lists of models read in the background, and channels tried by a timer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from server.errors import ServerError, UpstreamCut, UpstreamUnreachable
from server.routing.channel import ChannelState
from server.routing.upkeep import Upkeep
from server.settings import AUTO, Channel
from server.tasks import TaskOwner
from server.upstreams.listing import Listing
from server.virtual_clock import VirtualClockLoop
from tests.channels import channel, played, says, until

SOON = 0.001
"""So short a pause, in seconds, that a test may wait for what follows it."""


class Bench:
    """Upkeep over ``lists`` that a test gives: one is listed after the other, the last for ever."""

    def __init__(self, tasks: TaskOwner, *lists: tuple[str, ...] | ServerError) -> None:
        self.lists = list(lists)
        self.asked: list[Channel] = []
        self.asked_at: list[float] = []
        self.changes = 0
        self.states: dict[str, ChannelState] = {}
        self.held = asyncio.Event()
        self.held.set()
        self.upkeep = Upkeep(tasks, self._list, self.states.get, self._changed)

    async def _list(self, channel: Channel) -> Listing | None:
        self.asked.append(channel)
        self.asked_at.append(asyncio.get_running_loop().time())
        await self.held.wait()
        found = self.lists.pop(0) if len(self.lists) > 1 else self.lists[0]
        if isinstance(found, ServerError):
            raise found
        return Listing(found, 0.1)

    def _changed(self) -> None:
        self.changes += 1

    def names(self, channel: Channel) -> list[str]:
        return list(self.upkeep.resolved(channel).served())


@asynccontextmanager
async def bench(*lists: tuple[str, ...] | ServerError) -> AsyncIterator[Bench]:
    tasks = TaskOwner()
    try:
        yield Bench(tasks, *lists)
    finally:
        await tasks.aclose()


def auto(name: str = "a", **more: Any) -> Channel:
    return Channel(name=name, kind="openai", base_url="https://a.example/v1", models=AUTO, **more)


async def test_a_channel_serves_what_its_upstream_lists_once_that_has_come() -> None:
    async with bench(("m", "n")) as b:
        assert b.names(auto()) == []
        b.upkeep.follow([auto()])
        await b.upkeep.first_lists(10)
        assert b.names(auto()) == ["m", "n"]
        assert b.changes == 1


async def test_of_the_list_only_what_fits_a_pattern_is_served() -> None:
    async with bench(("gpt-4o", "tts-1", "o3", "GPT-x")) as b:
        one = auto(list_only=("gpt-*", "o?"))
        b.upkeep.follow([one])
        await b.upkeep.first_lists(10)
        assert b.names(one) == ["gpt-4o", "o3"]


async def test_the_list_is_read_anew_and_only_a_change_is_told() -> None:
    async with bench(("m",), ("m",), ("m", "new")) as b:
        one = auto(list_every_s=SOON)
        b.upkeep.follow([one])
        await until(lambda: len(b.asked) > 4)
        assert b.names(one) == ["m", "new"]
        assert b.changes == 2


async def test_with_no_interval_it_is_read_once() -> None:
    async with bench(("m",)) as b:
        b.upkeep.follow([auto(list_every_s=0)])
        await b.upkeep.first_lists(10)
        await asyncio.sleep(10 * SOON)
        assert len(b.asked) == 1


async def test_a_list_that_does_not_come_leaves_the_one_before_in_force() -> None:
    async with bench(("m",), UpstreamUnreachable("down")) as b:
        one = auto(list_every_s=SOON)
        b.upkeep.follow([one])
        await until(lambda: len(b.asked) == 2)
        await b.upkeep.first_lists(10)
        assert b.names(one) == ["m"]


def test_a_list_that_does_not_come_is_asked_for_again_soon_and_then_ever_more_seldom() -> None:
    async def asked_at() -> list[float]:
        """When each list was asked for, on a clock of its own (seconds)."""
        async with bench(UpstreamUnreachable("down")) as b:
            b.upkeep.follow([auto(list_every_s=30)])
            await asyncio.sleep(100)
            return b.asked_at

    with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
        assert runner.run(asked_at()) == [0, 5, 15, 35, 65, 95]


async def test_a_start_does_not_wait_for_a_list_that_failed(caplog: pytest.LogCaptureFixture) -> None:
    async with bench(UpstreamUnreachable("down")) as b:
        b.upkeep.follow([auto()])
        async with asyncio.timeout(10):
            await b.upkeep.first_lists(3600)
        assert "channel a: its list of models did not come: down" in caplog.text


async def test_a_start_waits_only_so_long_for_a_list_that_is_late() -> None:
    async with bench(("m",)) as b:
        b.held.clear()
        b.upkeep.follow([auto()])
        await b.upkeep.first_lists(SOON)
        assert b.names(auto()) == []
        b.held.set()
        await until(lambda: b.changes)
        assert b.names(auto()) == ["m"], "it is served when it comes"


async def test_without_such_a_channel_nothing_is_waited_for() -> None:
    async with bench(("m",)) as b:
        b.upkeep.follow([Channel("a", "openai", ("m",)), auto("off", enabled=False)])
        async with asyncio.timeout(10):
            await b.upkeep.first_lists(3600)
        assert not b.asked


async def test_a_reload_that_changes_nothing_asks_nobody_again() -> None:
    async with bench(("m",)) as b:
        b.upkeep.follow([auto()])
        await b.upkeep.first_lists(10)
        b.upkeep.follow([auto()])
        await b.upkeep.first_lists(10)
        assert len(b.asked) == 1


async def test_a_reload_that_changes_the_channel_asks_again_and_keeps_what_was_known() -> None:
    async with bench(("m",), ("m", "new")) as b:
        b.upkeep.follow([auto()])
        await b.upkeep.first_lists(10)
        b.held.clear()
        changed = auto(weight=2)
        b.upkeep.follow([changed])
        assert b.names(changed) == ["m"]
        b.held.set()
        await until(lambda: b.names(changed) == ["m", "new"])


async def test_a_channel_that_is_gone_or_moved_is_forgotten() -> None:
    async with bench(("m",)) as b:
        b.upkeep.follow([auto()])
        await b.upkeep.first_lists(10)
        b.upkeep.follow([])
        assert b.names(auto()) == []


async def test_a_timer_tries_the_channel_and_what_was_left_alone_comes_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    async with bench(("m",)) as b:
        state = channel("a", [UpstreamCut("cut")], says("yes"), breaker={"failures": 1}, test_every_s=SOON)
        b.states["a"] = state
        b.upkeep.follow([state.settings])
        await until(lambda: len(played(state).asked) == 1)
        await until(lambda: len(played(state).asked) > 2)
        now = asyncio.get_running_loop().time()
        assert state.against(state.health.of("m"), now) is None
        assert "channel a: does not answer: upstream_cut: cut" in caplog.text
        assert "channel a: answers again" in caplog.text


async def test_one_that_stays_ill_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    async with bench(("m",)) as b:
        state = channel("a", [UpstreamCut("cut")], test_every_s=SOON)
        b.states["a"] = state
        b.upkeep.follow([state.settings])
        await until(lambda: len(played(state).asked) > 3)
        assert caplog.text.count("does not answer") == 1


async def test_a_channel_without_a_timer_is_not_tried() -> None:
    async with bench(("m",)) as b:
        state = channel("a")
        b.states["a"] = state
        b.upkeep.follow([state.settings])
        await asyncio.sleep(10 * SOON)
        assert not played(state).asked
