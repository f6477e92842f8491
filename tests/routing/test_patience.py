"""Requests that come while every channel of their model wants a little time."""

from __future__ import annotations

import asyncio

import pytest

from server.errors import NoChannel, RateLimited, ServerError, UpstreamUnreachable
from server.routing.channel import ChannelState
from server.upstreams.base import Call
from tests.channels import Eager, Listener, answer, channel, chat, failure, model, played, says, until


def asked(*states: ChannelState) -> list[int]:
    return [len(played(state).asked) for state in states]


def limited(seconds: float) -> ServerError:
    return RateLimited("slower", retry_after_s=seconds)


def cool(state: ChannelState, seconds: float) -> None:
    """The channel has just asked for so much patience."""
    now = asyncio.get_running_loop().time()
    state.health.of("m").failed(limited(seconds), state.health.keys[0], now, probe=False, cooldown_s=0)


@pytest.mark.parametrize("plain", [True, False])
async def test_who_comes_while_the_lone_channel_wants_little_patience_waits_for_it(plain: bool) -> None:
    """At once it could only be refused, and there is nobody else."""
    a = channel("a", [limited(0.3)], says("well"))
    routed, listener = model(a), Listener()
    first = asyncio.create_task(answer(routed))
    await until(lambda: a.health.of("m").blocked_until)
    later = Call(observer=listener)
    if plain:
        assert await routed.whole(chat(), later)
    else:
        assert await answer(routed, later) == "well"
    assert await first == "well"
    assert listener.heard[0] == ("queued", "a")
    assert later.attempts_made == 1


async def test_who_waits_waits_on_while_the_channel_asks_for_more() -> None:
    a = channel("a")
    health, routed = a.health.of("m"), model(a)
    cool(a, 0.1)
    waiting = asyncio.create_task(answer(routed))
    await asyncio.sleep(0)
    cool(a, 0.2)
    assert await waiting == "hello"
    assert health.blocked_until <= asyncio.get_running_loop().time()


async def test_who_waits_goes_to_whichever_channel_is_ready_first() -> None:
    a, b = channel("a", priority=1), channel("b", says("well"))
    routed = model(a, b)
    cool(a, 5)
    cool(b, 0.02)
    assert await answer(routed) == "well"
    assert asked(a, b) == [0, 1]


async def test_nobody_waits_beyond_the_longest_wait_of_a_request() -> None:
    a = channel("a")
    routed = model(a, backoff_s=0.01, max_backoff_s=0.5)
    cool(a, 0.3)
    waiting = asyncio.create_task(failure(routed))
    await asyncio.sleep(0)
    cool(a, 20)
    error = await waiting
    assert (type(error), asked(a)) == (NoChannel, [0])
    assert 19 < (error.retry_after_s or 0) <= 20


async def test_nobody_waits_for_what_would_come_after_its_own_end() -> None:
    a = channel("a")
    cool(a, 2)
    deadline = asyncio.get_running_loop().time() + 1
    error = await failure(model(a), Call(deadline=deadline))
    assert (type(error), asked(a)) == (NoChannel, [0])


async def test_the_wait_is_part_of_the_whole_time() -> None:
    a = channel("a", timeouts={"total_s": 30})
    cool(a, 0.3)
    call, began = Call(), asyncio.get_running_loop().time()
    await answer(model(a), call)
    assert call.deadline == pytest.approx(began + 30, abs=0.25)


async def test_as_many_wait_as_the_channel_lets_wait() -> None:
    a = channel("a", max_waiting=2)
    routed = model(a)
    cool(a, 0.4)
    waiting = [asyncio.create_task(answer(routed)) for _ in range(2)]
    await asyncio.sleep(0)
    assert isinstance(await failure(routed), NoChannel)
    assert await asyncio.gather(*waiting) == ["hello"] * 2


async def test_who_leaves_while_it_waits_leaves_its_place() -> None:
    a = channel("a", max_waiting=1)
    routed = model(a)
    cool(a, 0.1)
    leaving = asyncio.create_task(answer(routed))
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.wait({leaving})
    assert await answer(routed) == "hello"
    assert asked(a) == [1]


# ── a probe that is silent ──


def probed(state: ChannelState, seconds_ago: float) -> None:
    """The channel has failed, and one call that tries it began so long ago."""
    now, health = asyncio.get_running_loop().time(), state.health.of("m")
    health.failed(UpstreamUnreachable("down"), state.health.keys[0], now - 100, probe=False, cooldown_s=0)
    assert health.begin(now - seconds_ago)


@pytest.mark.parametrize("plain", [True, False])
async def test_a_probe_that_thinks_for_long_does_not_shut_the_only_channel_to_all_others(plain: bool) -> None:
    a = channel("a", says("well"), breaker={"failures": 1})
    routed = model(a)
    probed(a, 10)
    if plain:
        assert await routed.whole(chat(), Call())
    else:
        assert await answer(routed) == "well"
    assert a.health.of("m").breaker.state == "closed"


async def test_beside_a_probe_that_has_only_begun_others_are_refused() -> None:
    a = channel("a", says("well"), breaker={"failures": 1})
    probed(a, 1)
    error = await failure(model(a))
    assert (error.code, error.retry_after_s) == ("no_channel", 1)
    assert asked(a) == [0]


async def test_where_another_channel_is_well_nobody_goes_to_one_whose_probe_is_silent() -> None:
    a = channel("a", says("a"), priority=1, breaker={"failures": 1})
    b = channel("b", says("b"))
    routed = model(a, b)
    probed(a, 50)
    assert [await answer(routed) for _ in range(3)] == ["b"] * 3
    assert asked(a, b) == [0, 3]


async def test_who_asked_for_patience_gets_it_though_a_probe_is_silent() -> None:
    a = channel("a", says("well"), breaker={"failures": 1})
    probed(a, 50)
    cool(a, 60)
    assert (await failure(model(a))).code == "no_channel"
    assert asked(a) == [0]


async def test_whom_a_breaker_keeps_away_is_not_waited_for() -> None:
    a = channel("a", breaker={"failures": 1, "open_s": 0.1})
    now = asyncio.get_running_loop().time()
    fault = UpstreamUnreachable("down")
    a.health.of("m").failed(fault, a.health.keys[0], now, probe=False, cooldown_s=0)
    error = await failure(model(a))
    assert (type(error), asked(a)) == (NoChannel, [0])
    assert 0 < (error.retry_after_s or 0) <= 0.1


async def test_those_who_wait_come_back_a_little_later_by_chance_and_later_each_time() -> None:
    class Noting(Eager):
        ranges: list[tuple[float, float]] = []  # noqa: RUF012

        def uniform(self, a: float, b: float) -> float:
            self.ranges.append((a, b))
            return b / 10

    a, rng = channel("a"), Noting(1)
    cool(a, 0.05)
    began = asyncio.get_running_loop().time()
    waiting = asyncio.create_task(answer(model(a, rng=rng, backoff_s=0.5, max_backoff_s=0.9)))
    await until(lambda: rng.ranges)
    cool(a, 0.15)
    assert await waiting == "hello"
    assert rng.ranges == [(0, 0.5), (0, 0.9)]
    assert asyncio.get_running_loop().time() - began >= 0.15 + 0.09 - 0.01
