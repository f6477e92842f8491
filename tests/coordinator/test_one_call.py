"""A run of one call that nobody watches tells, once it is read, what it would have told all along."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.bus import ALL, topic_of
from server.coordinator.one_call import OneCall
from server.deltas import (
    Batch,
    Finished,
    Opening,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    Usage,
    UsageDelta,
)
from server.errors import RateLimited, UpstreamCut
from server.events import encode
from server.price_settings import Price
from server.prices import Prices, Rate
from server.run_check import check_run
from server.run_log import Run, Runs
from server.settings import Runs as RunsSettings
from server.upstreams.base import Call
from tests.coordinator.panel import Owner, request
from tests.run_clock import types

PRICES = Prices.of(
    [("channel", Rate.of(Price(input=1, output=2))), ("another", Rate.of(Price(input=3, output=4)))]
)
USED = UsageDelta(Usage(5, 7, 12))


class Reader:
    """Somebody who sleeps until there is news."""

    def wake(self) -> None:
        pass


class World:
    """Runs by a clock that each step moves on by 10 ms."""

    def __init__(self, *, watched: bool, **settings: Any) -> None:
        self.now = 1000.0
        self.runs = Runs(RunsSettings(**settings), wall=lambda: 1.75e9, monotonic=lambda: self.now)
        self.watched = watched
        self.watch()
        self.run = self.runs.start(model="public", principal=Owner(), run_id="run_" + "a" * 32)

    def watch(self) -> None:
        if self.watched:
            self.runs.bus.topic(ALL).sleepers.add(Reader())

    def told(self) -> list[bytes]:
        return [encode(event) for event in self.run.events_after(0)]


def batch(*deltas: Any) -> Callable[[OneCall], None]:
    return lambda one: one.take(deltas)


def queued(one: OneCall) -> None:
    one.queued("channel")


def retried(one: OneCall) -> None:
    error = RateLimited("Wait.", upstream_status=429)
    one.retrying(error, delay_s=0.5, next_attempt=2, same_channel=False)
    one.attempt(2, "another")


def complete(one: OneCall) -> None:
    one.complete(Call())


def cut(one: OneCall) -> None:
    one.broke_off(UpstreamCut("It broke."))


def left(one: OneCall) -> None:
    one.broke_off(GeneratorExit())


def bug(one: OneCall) -> None:
    one.broke_off(ZeroDivisionError())


SAYS = {
    "text": [batch(Opening(), TextDelta("héllo")), batch(TextDelta(" you")), batch(Finished("stop"), USED)],
    "one batch": [batch(TextDelta("all of it"), Finished("stop"), USED)],
    "cut short by its limit": [batch(TextDelta("all of"), Finished("length"), USED)],
    "reasoning": [batch(ReasoningDelta("hm")), batch(TextDelta("so")), batch(Finished("stop"), USED)],
    "a tool": [batch(ToolCallDelta(0, "call_1", "look", "{}")), batch(Finished("tool_calls"), USED)],
    "no usage": [batch(TextDelta("some words"), Finished("stop"))],
    "nothing": [],
}
STARTS = {
    "at once": [lambda one: one.attempt(1, "channel")],
    "after a queue": [queued, lambda one: one.attempt(1, "channel")],
    "after a retry": [lambda one: one.attempt(1, "channel"), retried],
    "never told": [],
}
ENDS = {"complete": complete, "cut": cut, "left": left, "bug": bug}


def carried_out(world: World, steps: list[Callable[[OneCall], None]], read_before: int | None) -> None:
    one = OneCall(world.run, "theirs", request("Why?"), prices=PRICES)
    for place, step in enumerate(steps):
        if place == read_before:
            world.run.snapshot()
        world.now += 0.01
        world.watch()
        step(one)


@given(
    start=st.sampled_from(list(STARTS)),
    says=st.sampled_from(list(SAYS)),
    end=st.sampled_from(list(ENDS)),
    read_before=st.integers(0, 8),
)
def test_a_quiet_run_tells_when_it_is_read_what_a_watched_one_tells_as_it_goes(
    start: str, says: str, end: str, read_before: int
) -> None:
    steps = [*STARTS[start], *SAYS[says], ENDS[end]]
    watched, quiet, late = World(watched=True), World(watched=False), World(watched=False)
    carried_out(watched, steps, None)
    carried_out(quiet, steps, None)
    carried_out(late, steps, read_before)
    for world in (watched, quiet, late):
        assert check_run(world.run.events_after(0)) == []
        assert world.run.ended
    assert quiet.told() == watched.told() == late.told()
    for world in (quiet, late):
        assert world.run.snapshot() | {"epoch": 0} == watched.run.snapshot() | {"epoch": 0}
        assert (world.run.status, world.run.strategy) == (watched.run.status, watched.run.strategy)
        assert world.run.usage == watched.run.usage
        for name in (ALL, topic_of("me")):
            topic = world.runs.bus.topic(name)
            assert [encode(event) for event in topic.after(0, 100) or ()] == watched.told()
            assert topic.head == len(watched.told())


def ended_well(world: World, run: Run | None = None) -> None:
    one = OneCall(run or world.run, "theirs", request("Why?"))
    one.attempt(1, "channel")
    one.take([TextDelta("hi"), Finished("stop"), USED])
    one.complete(Call())


def test_a_quiet_run_makes_no_event() -> None:
    world = World(watched=False)
    ended_well(world)
    assert world.run._head == 0
    assert world.run.head == 8


@pytest.mark.parametrize("settings", [{"keep_text": True}, {"max_events": 4}])
def test_where_texts_are_kept_or_few_events_are_every_run_tells_as_it_goes(settings: dict[str, Any]) -> None:
    world = World(watched=False, **settings)
    ended_well(world)
    assert world.run._head == 8
    assert world.run.snapshot()["status"] == "completed"


def test_a_topic_tells_quiet_runs_in_the_order_of_their_ends_behind_what_was_told_before() -> None:
    world = World(watched=False)
    first, second = (world.runs.start(model="m", principal=Owner()) for _ in range(2))
    failing = OneCall(first, "theirs", request("Why?"))
    ended_well(world, second)
    failing.broke_off(UpstreamCut("It broke."))  # this one speaks
    told = [event.run_id for event in world.runs.bus.topic(ALL).after(0, 100) or ()]
    assert told == [second.id] * 8 + [first.id] * (len(told) - 8)
    assert len(told) > 8


def test_runs_that_nobody_read_fall_out_of_a_topic_as_their_events_would() -> None:
    world = World(watched=False, max_topic_events=16)
    runs = [world.runs.start(model="m", principal=Owner()) for _ in range(20)]
    for run in runs:
        ended_well(world, run)
    topic = world.runs.bus.topic(ALL)
    kept = topic.after(topic.first - 1, 100)
    assert kept is not None
    assert [event.run_id for event in kept] == [runs[-2].id] * 8 + [runs[-1].id] * 8
    assert topic.after(topic.first - 2, 100) is None
    assert topic.head >= 20 * 7


@pytest.mark.parametrize("end", ["cut", "left", "complete"])
def test_a_run_that_waits_for_its_first_slot_is_queued_until_its_call_begins_or_ends(end: str) -> None:
    world = World(watched=False)
    one = OneCall(world.run, "theirs", request("Why?"))
    assert world.run.status == "queued"
    world.now += 0.01
    one.queued("channel")
    one.queued("another")
    assert types(world.run) == ["run.created", "run.queued"]
    assert b'"waiting_for":"channel"}' in world.told()[-1]
    assert world.run.snapshot()["status"] == "queued"
    world.now += 0.01
    if end == "complete":
        one.attempt(1, "another")
        one.take([TextDelta("hi"), Finished("stop"), USED])
    ENDS[end](one)
    assert types(world.run)[2:4] == ["run.in_progress", "stage.started"]
    times = [event.elapsed_ms for event in world.run.events_after(0)]
    assert times[0] < times[1] < times[2] == times[3]
    assert ("model.started" in types(world.run)) == (end == "complete")
    assert world.run.status == {"cut": "failed", "left": "cancelled", "complete": "completed"}[end]
    assert check_run(world.run.events_after(0)) == []


def test_a_run_that_has_told_of_its_channel_is_under_way_and_its_call_waits() -> None:
    world = World(watched=False)
    one = OneCall(world.run, "theirs", request("Why?"))
    one.noted("one", "passed_over", reason="breaker")
    one.queued("two")
    assert types(world.run)[3:] == ["model.channel", "model.queued"]
    complete(one)
    assert check_run(world.run.events_after(0)) == []


async def test_somebody_who_comes_while_a_quiet_run_is_under_way_sees_its_text_grow() -> None:
    world = World(watched=False)
    one = OneCall(world.run, "theirs", request("Why?"))
    one.attempt(1, "channel")
    one.take([TextDelta("before ")])
    world.run.watch_text()
    waiting = asyncio.ensure_future(world.run.news())
    await asyncio.sleep(0)
    one.take([TextDelta("after"), Finished("stop"), USED])
    lane = world.run.lanes["m1"]
    assert (lane.chars["text"], lane.since("text", 0)) == (12, (7, "after"))
    one.complete(Call())
    await waiting
    assert msgspec.json.decode(world.told()[-1])["type"] == "run.completed"


async def test_whoever_waits_for_the_end_of_a_quiet_run_is_woken_by_it() -> None:
    world = World(watched=False)
    one = OneCall(world.run, "theirs", request("Why?"))
    waiting = asyncio.ensure_future(world.run.wait_ended())
    await asyncio.sleep(0)
    one.attempt(1, "channel")
    one.take([TextDelta("hi"), Finished("stop"), USED])
    one.complete(Call())
    await waiting


def test_batches_are_counted_as_they_are() -> None:
    world = World(watched=False)
    one = OneCall(world.run, "theirs", request("Why?"))
    batches: list[Batch] = [[TextDelta("ab")], [TextDelta("c"), TextDelta("d", 1)], [Finished("stop"), USED]]
    for each in batches:
        one.take(each)
    one.complete(Call())
    assert world.run.snapshot()["members"][0]["chars"] == 3


def test_a_quiet_run_costs_what_it_used_by_the_price_of_the_channel_that_answered() -> None:
    for start, cost in (("at once", 19), ("after a retry", 43), ("never told", None)):
        world = World(watched=False)
        carried_out(world, [*STARTS[start], *SAYS["text"], complete], None)
        assert world.run.snapshot()["cost"] == (None if cost is None else cost / 10**6)
