"""A channel's slots, its bounded queue, and what is left behind by whoever leaves."""

from __future__ import annotations

import asyncio
import math
import random
from contextlib import aclosing

import pytest

from server.errors import (
    InsufficientQuota,
    Overloaded,
    RateLimited,
    ServerError,
    UpstreamAuth,
    UpstreamUnreachable,
)
from server.routing.channel import ChannelState
from server.routing.health import LeftAlone, NoRoom
from server.settings import Channel
from server.upstreams.base import Call
from tests.channels import (
    Eager,
    Listener,
    Script,
    ScriptedChannel,
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
        NoRoom,
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
    assert (type(error), error.status) == (NoRoom, 429)
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
    assert {type(result) for result in results} <= {str, asyncio.CancelledError, NoRoom}
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
    assert isinstance(await failure(model(a)), NoRoom)
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
    assert isinstance(error, LeftAlone)
    assert error.retry_after_s is not None
    assert 25 < error.retry_after_s <= 30
    assert len(played(lone).asked) == 1


async def test_the_key_is_chosen_after_the_wait_so_a_refused_one_is_not_used_by_each_who_waited() -> None:
    release = asyncio.Event()
    refused = ScriptedChannel("pool", [release, UpstreamAuth("no")])
    good = ScriptedChannel("pool", says("good"))
    settings = Channel("pool", "openai", ("m",), api_keys=("k1", "k2"), max_concurrency=1)
    pool = ChannelState(settings, [refused, good])  # the first key has the first turn
    routed = model(pool)
    tasks = [asyncio.create_task(answer(routed)) for _ in range(5)]
    await until(lambda: waiting(pool) == 4)
    release.set()
    assert await asyncio.gather(*tasks) == ["good"] * 5
    assert len(refused.asked) == 1


@pytest.mark.parametrize("error", [UpstreamAuth("no"), RateLimited("slower"), InsufficientQuota("spent")])
async def test_who_waited_for_a_channel_whose_only_key_was_refused_is_answered_by_one_that_is_well(
    error: ServerError,
) -> None:
    release = asyncio.Event()
    busy = channel("busy", [release, error], says("late"), priority=1, max_concurrency=1)
    spare = channel("spare", says("spare"))
    routed = model(busy, spare)
    tasks = [asyncio.create_task(answer(routed)) for _ in range(4)]
    await until(lambda: waiting(busy) == 3)
    release.set()
    assert await asyncio.gather(*tasks) == ["spare"] * 4
    assert len(played(busy).asked) == 1


async def test_without_another_it_is_asked_all_the_same_as_by_a_request_that_comes_now() -> None:
    release = asyncio.Event()
    lone = channel("lone", [release, RateLimited("slower")], says("late"), max_concurrency=1)
    routed = model(lone)
    both = [asyncio.create_task(answer(routed)) for _ in range(2)]
    await until(lambda: waiting(lone))
    release.set()
    assert await asyncio.gather(*both) == ["late", "late"]


async def test_a_wait_in_vain_is_a_429_that_names_a_time_and_holds_nothing_against_the_channel() -> None:
    a = channel("a", [asyncio.Event()], max_concurrency=1, max_wait_s=0.01, cooldown_s=60)
    routed = model(a)
    busy = asyncio.create_task(answer(routed))
    await until(lambda: played(a).open)
    error = await failure(routed)
    assert (error.status, error.code, error.retry_after_s) == (429, "rate_limit_exceeded", 1)
    assert a.health.of("m").avoided_until == 0
    busy.cancel()
    await asyncio.wait({busy})
    assert await slot_is_free(a)


async def test_who_does_not_ask_after_the_wait_takes_nothing_of_the_minute() -> None:
    release = asyncio.Event()
    limits = {"max_concurrency": 1, "requests_per_min": 2, "tokens_per_min": 1000}
    busy = channel("busy", [release, RateLimited("slower", retry_after_s=30)], says("hello"), **limits)
    routed = model(busy)
    both = [asyncio.create_task(failure(routed)) for _ in range(2)]
    await until(lambda: waiting(busy))
    release.set()
    assert [type(error) for error in await asyncio.gather(*both)] == [RateLimited, LeftAlone]
    assert busy.gate is not None
    assert busy.gate.free(), "one of two requests was made"
    await busy.take(Call(), chat())
    assert not busy.gate.free()


async def test_a_probe_that_waited_for_a_channel_which_was_disabled_is_not_sent() -> None:
    release = asyncio.Event()
    busy = channel("busy", [release, *says("one")], says("late"), max_concurrency=1)
    first = asyncio.create_task(answer(model(busy)))
    await until(lambda: played(busy).open)
    health = busy.health.of("m")
    health.breaker.failed(0.0)
    health.breaker.state, health.breaker.until = "open", 1e-9  # its time is over
    probe = asyncio.create_task(failure(model(busy)))
    await until(lambda: waiting(busy))
    busy.dismiss()
    release.set()
    assert await first == "one"
    assert isinstance(await probe, LeftAlone)
    assert len(played(busy).asked) == 1
    assert health.breaker.until < math.inf, "the probe was given up"


class Slow(random.Random):
    """Chance that waits a little in a back-off."""

    def uniform(self, a: float, b: float) -> float:
        return 0.02


@pytest.mark.parametrize("stream", [True, False])
async def test_a_lone_channel_that_is_disabled_during_the_back_off_is_not_asked_again(stream: bool) -> None:
    lone, listener = channel("lone", down(), says("late")), Listener()
    routed = model(lone, rng=Slow())
    task = asyncio.create_task(failure(routed, Call(observer=listener), chat(stream=stream)))
    await until(lambda: listener.delays)
    lone.dismiss()
    assert (await task).code == "upstream_unreachable"
    assert len(played(lone).asked) == 1


async def test_one_that_stays_is_asked_again_after_the_back_off() -> None:
    lone = channel("lone", down(), says("late"))
    assert await answer(model(lone, rng=Slow())) == "late"
