"""Channels that ask for patience."""

from __future__ import annotations

import asyncio

import pytest

from server.errors import (
    NoChannel,
    Overloaded,
    RateLimited,
    ServerError,
    UpstreamRefused,
    UpstreamUnreachable,
)
from server.routed_model import RoutedModel
from server.routing.channel import ChannelState
from server.settings import ChannelModel
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


def down() -> Script:
    return [UpstreamUnreachable("down")]


def fails(error: ServerError) -> Script:
    return [error]


def asked(*states: ChannelState) -> list[int]:
    return [len(played(state).asked) for state in states]


# ── patience ──


async def test_a_channel_that_asks_for_patience_gets_no_traffic_until_then() -> None:
    a, b = channel("a", fails(RateLimited("slower", retry_after_s=30)), priority=1), channel("b")
    routed = model(a, b)
    for _ in range(3):
        assert await answer(routed) == "hello"
    assert asked(a, b) == [1, 3]


async def test_when_its_time_has_come_it_is_asked_again() -> None:
    a = channel("a", fails(RateLimited("slower", retry_after_s=0.02)), says("well"), priority=1)
    routed = model(a, channel("b"))
    assert await answer(routed) == "hello"
    await asyncio.sleep(0.05)
    assert await answer(routed) == "well"


async def test_its_other_models_are_asked_as_before() -> None:
    a = channel("a", fails(RateLimited("slower", retry_after_s=30)), says("well"))
    await failure(model(a))
    other = RoutedModel("other", [(a, ChannelModel())], Eager(1))
    assert await answer(other) == "well"


async def test_a_lone_channel_is_waited_for_if_it_wants_little_patience() -> None:
    a, listener = channel("a", fails(Overloaded("busy", retry_after_s=0.05)), says("well")), Listener()
    assert await answer(model(a), Call(observer=listener)) == "well"
    assert 0.04 < listener.delays[0] <= 0.05


async def test_longer_patience_is_asked_of_the_client() -> None:
    a = channel("a", fails(RateLimited("slower", retry_after_s=30, upstream_status=429)))
    error = await failure(model(a))
    assert (error.status, error.retry_after_s, error.should_retry) == (429, 30, None)
    assert asked(a) == [1]


async def test_while_every_channel_cools_nobody_is_asked_and_the_client_hears_for_how_long() -> None:
    a = channel("a", fails(RateLimited("slower", retry_after_s=30)))
    b = channel("b", fails(Overloaded("busy", retry_after_s=20)))
    routed = model(a, b)
    await failure(routed)
    error = await failure(routed)
    assert (type(error), error.code) == (NoChannel, "no_channel")
    assert error.retry_after_s == pytest.approx(20, abs=5)
    assert asked(a, b) == [1, 1]


@pytest.mark.parametrize("stream", [True, False])
async def test_what_is_wrong_with_a_request_is_told_while_every_channel_cools(stream: bool) -> None:
    a = channel("a", fails(RateLimited("slower", retry_after_s=30)))
    blind = RoutedModel("m", [(a, ChannelModel(vision=False, tools=False))], Eager(1))
    await failure(blind)
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    seen = chat(stream=stream, messages=[{"role": "user", "content": [picture]}])
    assert (await failure(blind, request=seen)).code == "unsupported_image"
    tool = {"type": "function", "function": {"name": "f"}}
    assert (await failure(blind, request=chat(stream=stream, tools=[tool]))).code == "unsupported_parameter"
    assert asked(a) == [1]


async def test_what_only_the_upstream_would_refuse_waits_until_it_may_be_asked() -> None:
    a = channel("a", fails(RateLimited("slower", retry_after_s=30)), fails(UpstreamRefused("bad field")))
    routed = model(a)
    await failure(routed)
    odd = chat(response_format={"type": "nonsense"})
    assert (await failure(routed, request=odd)).code == "no_channel"


async def test_an_absurd_patience_does_not_switch_a_channel_off_for_good() -> None:
    a = channel("a", fails(RateLimited("slower", retry_after_s=float("inf"))))
    routed = model(a)
    await failure(routed)
    wait_s = (await failure(routed)).retry_after_s
    assert wait_s is not None
    assert wait_s <= 24 * 3600


async def test_whoever_waits_hears_the_cause_if_the_channel_asks_others_for_more_patience_meanwhile() -> None:
    a = channel(
        "a",
        fails(RateLimited("slower", retry_after_s=0.05)),
        fails(RateLimited("much slower", retry_after_s=60)),
    )
    routed = model(a)
    first = asyncio.create_task(failure(routed))
    await until(lambda: played(a).asked)
    # Another request had passed the check before, and is told to wait for longer.
    health, now = a.health.of("m"), asyncio.get_running_loop().time()
    slower = RateLimited("much slower", retry_after_s=60)
    health.failed(slower, a.health.keys[0], now, probe=False, cooldown_s=0)
    assert (await first).message == "slower"
    assert asked(a) == [1]
