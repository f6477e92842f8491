"""A channel's slots, its bounded queue, and what is left behind by whoever leaves."""

from __future__ import annotations

import asyncio
import random
from contextlib import aclosing

import pytest

from server.errors import (
    Overloaded,
    RateLimited,
    UpstreamUnreachable,
)
from server.routing.channel import ChannelState
from server.routing.health import NoRoom, QueueFull
from server.upstreams.base import Call
from tests.channels import (
    Eager,
    Listener,
    Script,
    answer,
    channel,
    chat,
    failure,
    model,
    played,
    says,
    until,
)


def waiting(state: ChannelState) -> int:
    assert state.gate is not None
    return state.gate.waiting


def down() -> Script:
    return [UpstreamUnreachable("down")]


async def test_a_channel_answers_so_many_at_a_time_and_the_others_wait_in_order() -> None:
    go = asyncio.Event()
    a, listener = channel("a", [go, *says("hello")], max_concurrency=2), Listener()
    routed = model(a)
    tasks = [asyncio.create_task(answer(routed, Call(observer=listener))) for _ in range(5)]
    await until(lambda: waiting(a) == 3)
    assert played(a).open == 2
    assert listener.heard.count(("queued", "a")) == 3
    go.set()
    assert await asyncio.gather(*tasks) == ["hello"] * 5
    assert a.idle.is_set()


async def test_when_too_many_wait_the_next_one_is_refused_at_once() -> None:
    a = channel("a", [asyncio.Event()], max_concurrency=1, max_waiting=1)
    routed = model(a)
    tasks = [asyncio.create_task(answer(routed)) for _ in range(2)]
    await until(lambda: waiting(a) == 1)
    listener = Listener()
    error = await failure(routed, Call(observer=listener))
    assert (type(error), error.status, error.code, error.retry_after_s) == (
        QueueFull,
        429,
        "rate_limit_exceeded",
        1,
    )
    assert listener.heard == []  # no attempt, no back-off
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def test_a_full_queue_moves_on_to_another_channel_and_does_not_cool_its_own() -> None:
    go = asyncio.Event()
    a, b = channel("a", [go, *says("a")], max_concurrency=1, max_waiting=0, priority=1), channel("b")
    routed = model(a, b)
    busy = asyncio.create_task(answer(routed))
    await until(lambda: played(a).open)
    assert await answer(routed) == "hello"
    go.set()
    assert await busy == "a"
    assert await answer(routed) == "a"


async def test_waiting_for_a_slot_ends_with_the_calls_time() -> None:
    a = channel("a", [asyncio.Event()], max_concurrency=1)
    routed = model(a)
    busy = asyncio.create_task(answer(routed))
    await until(lambda: played(a).open)
    error = await failure(routed, Call(deadline=asyncio.get_running_loop().time() + 0.02))
    assert (type(error), error.status) == (NoRoom, 503)
    assert waiting(a) == 0
    busy.cancel()
    await asyncio.wait({busy})
    assert await slot_is_free(a)


async def slot_is_free(state: ChannelState) -> bool:
    played(state).scripts = [says("hello")]
    return await answer(model(state)) == "hello" and state.idle.is_set()


async def test_a_failure_gives_the_slot_back() -> None:
    a = channel("a", down(), max_concurrency=1, max_waiting=0)
    await failure(model(a))
    assert await slot_is_free(a)


async def test_a_bug_in_an_upstream_gives_the_slot_back() -> None:
    a = channel("a", [KeyError("bug")], max_concurrency=1, max_waiting=0)  # type: ignore[list-item]
    with pytest.raises(TypeError):
        await answer(model(a))
    assert await slot_is_free(a)


async def test_whoever_stops_listening_gives_the_slot_back_and_closes_the_call() -> None:
    a = channel("a", says("he", "llo"), max_concurrency=1, max_waiting=0)
    async with aclosing(model(a).stream(chat(), Call())) as batches:
        await anext(batches)
        assert played(a).open == 1
    assert played(a).open == 0
    assert await slot_is_free(a)


@pytest.mark.parametrize("seed", range(20))
async def test_cancelled_at_any_moment_no_slot_no_call_and_no_task_is_left(seed: int) -> None:
    rng = random.Random(seed)
    before = asyncio.all_tasks()
    script: Script = [UpstreamUnreachable("down")] if seed % 3 == 0 else says("he", "llo")
    a = channel("a", script, says("hello"), max_concurrency=2, max_waiting=10)
    b = channel("b", says("hello"), max_concurrency=1, max_waiting=10)
    routed = model(a, b, rng=Eager(seed))
    tasks: list[asyncio.Task[str]] = []
    for _ in range(60):
        tasks.append(asyncio.create_task(answer(routed)))
        for _ in range(rng.randrange(4)):
            await asyncio.sleep(0)
        rng.choice(tasks).cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(result) for result in results} <= {str, asyncio.CancelledError, QueueFull}
    assert asyncio.all_tasks() == before
    for state in (a, b):
        assert (waiting(state), state.in_use, played(state).open) == (0, 0, 0)
        assert await slot_is_free(state)


async def test_cancelled_in_a_back_off_no_further_attempt_is_made() -> None:
    a = channel("a", [Overloaded("busy", retry_after_s=5)])
    task = asyncio.create_task(answer(model(a)))
    await until(lambda: played(a).asked)
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()
    assert len(played(a).asked) == 1


async def test_the_embedded_model_has_as_many_slots_as_it_computes_at_a_time() -> None:
    a = channel("a", [asyncio.Event()], kind="local", slots=1, max_waiting=0)
    busy = asyncio.create_task(answer(model(a)))
    await until(lambda: played(a).open)
    assert isinstance(await failure(model(a)), QueueFull)
    busy.cancel()
    await asyncio.wait({busy})


async def test_each_outcome_is_counted_by_channel_and_a_cancelled_one_is_not() -> None:
    counted: list[tuple[str, str]] = []
    a = channel("a", down(), priority=1)
    a.count = lambda name, outcome: counted.append((name, outcome))
    b = channel("b", says("x"), says("x"), [asyncio.Event()])
    b.count = a.count
    await answer(model(a, b))
    async with aclosing(model(b).stream(chat(), Call())) as batches:
        await anext(batches)
    assert counted == [("a", "upstream_unreachable"), ("b", "ok")]


@pytest.mark.parametrize("stream", [True, False])
async def test_who_waited_for_a_channel_that_is_disabled_meanwhile_is_answered_by_another(
    stream: bool,
) -> None:
    release = asyncio.Event()
    busy = channel("busy", [release, *says("one")], says("late"), priority=1, max_concurrency=1)
    spare = channel("spare", says("spare"))
    routed = model(busy, spare)
    first = asyncio.create_task(answer(routed))
    await until(lambda: played(busy).open)
    later = asyncio.create_task(answer(routed, request=chat(stream=stream)))
    await until(lambda: waiting(busy))
    busy.dismiss()
    release.set()
    assert await first == "one", "what was under way goes on"
    assert await later == "spare"
    assert len(played(busy).asked) == 1


async def test_who_waited_for_a_channel_whose_breaker_has_opened_is_answered_by_another() -> None:
    release = asyncio.Event()
    failing: Script = [release, UpstreamUnreachable("down")]
    busy = channel("busy", failing, says("late"), priority=1, max_concurrency=1, breaker={"failures": 1})
    spare = channel("spare", says("spare"))
    routed = model(busy, spare)
    both = [asyncio.create_task(answer(routed)) for _ in range(2)]
    await until(lambda: waiting(busy))
    release.set()
    assert await asyncio.gather(*both) == ["spare", "spare"]
    assert len(played(busy).asked) == 1


async def test_who_waited_for_the_only_channel_hears_when_to_come_again() -> None:
    release = asyncio.Event()
    lone = channel("lone", [release, RateLimited("slower", retry_after_s=30)], max_concurrency=1)
    routed = model(lone)
    first = asyncio.create_task(failure(routed))
    await until(lambda: played(lone).open)
    later = asyncio.create_task(failure(routed))
    await until(lambda: waiting(lone))
    release.set()
    assert isinstance(await first, RateLimited)
    error = await later
    assert isinstance(error, NoRoom)
    assert error.retry_after_s is not None
    assert 25 < error.retry_after_s <= 30
    assert len(played(lone).asked) == 1
