"""A model's surfaces over its channels: order, failover, limits, standing."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import msgspec
import pytest

from server.chat import JsonObject
from server.deltas import Usage
from server.errors import (
    InvalidRequest,
    NoChannel,
    RateLimited,
    ServerError,
    SurfaceNotOffered,
    UpstreamCut,
    UpstreamError,
    UpstreamRefused,
)
from server.routed_surface import RoutedSurface, SurfacesOnly, combination_asked, not_offered
from server.routing.channel import ChannelState
from server.settings import Channel, ChannelModel
from server.surfaces import SURFACES, AnswerHead, JsonRequest, SurfaceRequest
from server.upstreams.base import Call
from tests.channels import Eager, Listener, ScriptedChannel, chat

HEAD = AnswerHead(200, "application/json", usage=Usage(2, 0, 70))
REQUEST = JsonRequest(SURFACES[0], "m", JsonObject(b'{"model":"m","input":"a"}'))


class Offering(ScriptedChannel):
    """A channel that answers with ``parts``, one list a call, the last one for ever; an error is raised."""

    def __init__(self, name: str, *plays: list[Any]) -> None:
        super().__init__(name)
        self.plays = list(plays) or [[HEAD, b"ok"]]
        self.calls = 0
        self.surfaces = self

    async def ask(
        self, request: SurfaceRequest, model: str, call: Call
    ) -> AsyncGenerator[AnswerHead | bytes, None]:
        self.calls += 1
        self.open += 1
        try:
            for part in self.plays.pop(0) if len(self.plays) > 1 else self.plays[0]:
                if isinstance(part, ServerError):
                    raise part
                yield part
        finally:
            self.open -= 1


def channel(name: str, *plays: list[Any], **settings: Any) -> ChannelState:
    fields = {"name": name, "kind": "openai", "models": ("m",)} | settings
    return ChannelState(msgspec.convert(fields, Channel), [Offering(name, *plays)])


def model(*states: ChannelState) -> RoutedSurface:
    return RoutedSurface("m", "embeddings", [(state, ChannelModel()) for state in states], Eager(1))


def calls(*states: ChannelState) -> list[int]:
    offering = [state.upstream for state in states]
    assert all(not one.open for one in offering if isinstance(one, Offering))
    return [one.calls for one in offering if isinstance(one, Offering)]


async def ask(routed: RoutedSurface, call: Call | None = None) -> list[AnswerHead | bytes]:
    async with aclosing(routed.ask(REQUEST, call or Call())) as parts:
        return [part async for part in parts]


async def test_the_first_that_answers_is_the_answer() -> None:
    first, second = channel("a", [UpstreamError("x")], priority=1), channel("b")
    listener = Listener()
    call = Call(observer=listener)
    assert await ask(model(first, second), call) == [HEAD, b"ok"]
    assert calls(first, second) == [1, 1]
    assert call.tried == (("a", "upstream_error"),)
    assert (call.channel, call.attempts_made) == ("b", 2)
    assert listener.heard == [
        ("attempt", 1, "a"),
        ("retrying", "upstream_error", 2, False),
        ("attempt", 2, "b"),
    ]


async def test_after_the_head_nothing_is_tried_again() -> None:
    first, second = channel("a", [HEAD, b"o", UpstreamCut("x")], priority=1), channel("b")
    routed = model(first, second)
    got: list[AnswerHead | bytes] = []

    async def take() -> None:
        async with aclosing(routed.ask(REQUEST, Call())) as parts:
            async for part in parts:
                got.append(part)  # noqa: PERF401 - what came before the error is looked at

    with pytest.raises(UpstreamCut):
        await take()
    assert got == [HEAD, b"o"]
    assert calls(first, second) == [1, 0]


async def test_a_request_at_fault_is_asked_once() -> None:
    first, second = channel("a", [UpstreamRefused("x")], priority=1), channel("b")
    with pytest.raises(UpstreamRefused):
        await ask(model(first, second))
    assert calls(first, second) == [1, 0]


async def test_a_channel_without_the_path_is_asked_once_and_another_in_its_place() -> None:
    lone = channel("a", [SurfaceNotOffered("x")])
    with pytest.raises(SurfaceNotOffered):
        await ask(model(lone))
    assert calls(lone) == [1]
    first, second = channel("a", [SurfaceNotOffered("x")], priority=1), channel("b")
    assert await ask(model(first, second)) == [HEAD, b"ok"]


async def test_a_channel_that_fails_again_and_again_is_left_alone() -> None:
    first = channel("a", [UpstreamError("x")], breaker={"failures": 2})
    with pytest.raises(UpstreamError):
        await ask(model(first))
    assert calls(first) == [2], "a lone channel is asked once more"
    with pytest.raises(NoChannel):
        await ask(model(first))


async def test_one_that_was_left_alone_is_tried_and_well_again() -> None:
    plays: list[list[Any]] = [[UpstreamError("x")], [UpstreamError("x")], [HEAD, b"ok"]]
    first = channel("a", *plays, breaker={"failures": 2, "open_s": 0.01})
    routed = model(first)
    with pytest.raises(UpstreamError):
        await ask(routed)
    health = first.health.of("m (embeddings)")
    health.breaker.until = 1e-9
    health.refresh()
    assert await ask(routed) == [HEAD, b"ok"]
    assert health.breaker.state == "closed"


async def test_what_fails_beside_chats_says_nothing_of_chats() -> None:
    both = channel("a", [UpstreamError("x")], breaker={"failures": 2})
    with pytest.raises(UpstreamError):
        await ask(model(both))
    with pytest.raises(NoChannel, match=r"Every channel of m \(embeddings\)"):
        await ask(model(both))
    assert both.health.of("m").breaker.state == "closed"
    alone = channel("b", [UpstreamError("x")], breaker={"failures": 2}, surfaces=("embeddings",))
    with pytest.raises(UpstreamError):
        await ask(model(alone))
    assert alone.health.of("m").breaker.state == "open", "where there are no chats it is the model's own"


async def test_a_429_makes_others_come_first() -> None:
    first, second = channel("a", [RateLimited("x", retry_after_s=60)], priority=1), channel("b")
    routed = model(first, second)
    await ask(routed)
    await ask(routed)
    assert calls(first, second) == [1, 2]


async def test_leaving_ends_the_call_and_gives_its_place_back() -> None:
    state = channel("a", max_concurrency=1)
    routed = model(state)
    for _ in range(3):
        async with aclosing(routed.ask(REQUEST, Call())) as parts:
            await anext(parts)
            assert state.in_use == 1
        assert state.in_use == 0
    assert calls(state) == [3]


async def test_tokens_are_counted_where_they_are_limited() -> None:
    state = channel("a", tokens_per_min=100, max_wait_s=0.01)
    routed = model(state)
    await ask(routed)
    assert await ask(routed), "70 of 100 are used up, and this one is reckoned as few"
    with pytest.raises(ServerError) as raised:
        await ask(routed)
    assert raised.value.code == "rate_limit_exceeded"


async def test_a_model_without_chats_says_so() -> None:
    state = channel("a", surfaces=("embeddings",))
    routed = SurfacesOnly("m", [(state, ChannelModel())], Eager(1))
    with pytest.raises(SurfaceNotOffered, match=r"add chat to surfaces of its channel \(a\)"):
        await routed.whole(chat(), Call())
    with pytest.raises(SurfaceNotOffered):
        async with aclosing(routed.stream(chat(), Call())) as batches:
            await anext(batches)
    assert routed.served


def test_what_is_not_offered_is_not_to_be_repeated() -> None:
    for error in (not_offered("m", "speech", ["a", "b", "a"]), combination_asked("p", "speech")):
        assert (error.status, error.retryable, error.param) == (400, False, "model")
        assert not isinstance(error, InvalidRequest)
    assert "(a, b)" in not_offered("m", "speech", ["a", "b", "a"]).message
