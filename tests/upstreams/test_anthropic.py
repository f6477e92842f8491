"""The anthropic upstream: what goes out, what comes back, and what goes wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Any

import pytest

from server.deltas import Finished, TextDelta, UsageDelta
from server.errors import (
    InvalidRequest,
    Overloaded,
    RateLimited,
    UpstreamAuth,
    UpstreamCut,
    UpstreamError,
    UpstreamInvalid,
    UpstreamTimeout,
)
from server.settings import Timeouts
from server.simulators.anthropic import AnthropicSimulator
from server.simulators.anthropic_said import AnthropicScript
from server.simulators.script import ToolCall
from server.upstreams.base import Call, Upstream
from tests.anthropic_wire.messages import calls_of, text_of, thought_of
from tests.channels import answer, chat, deltas, failure, said_and_failed
from tests.upstreams.openai_cases import KEY, TEXT, upstream

PLAIN = chat(stream=False)


@pytest.fixture
async def sim() -> AsyncIterator[AnthropicSimulator]:
    async with AnthropicSimulator(api_key=KEY, default=AnthropicScript(text=TEXT)) as simulator:
        yield simulator


def speaking(sim: AnthropicSimulator, **settings: Any) -> AbstractAsyncContextManager[Upstream]:
    return upstream(
        sim.url, **{"kind": "anthropic", "models": {"m": {"model": "claude-sonnet-4-6"}}, **settings}
    )


async def test_a_stream_and_a_whole_answer_say_the_same(sim: AnthropicSimulator) -> None:
    script = AnthropicScript(
        text=TEXT,
        reasoning=("hm ", "well"),
        tools=(ToolCall(), ToolCall(name="now", arguments="{}")),
        cache_read=7,
    )
    sim.script(script, times=2)
    async with speaking(sim) as channel:
        for request in (chat(), PLAIN):
            told = await deltas(channel, request=request)
            assert (text_of(told), thought_of(told)) == (TEXT, "hm well")
            assert [(id, name) for id, name, _ in calls_of(told)] == [
                ("toolu_sim_1", "get_weather"),
                ("toolu_sim_2", "now"),
            ]
            assert [delta.reason for delta in told if type(delta) is Finished] == ["tool_calls"]
            usage = next(delta.usage for delta in told if type(delta) is UsageDelta)
            assert usage.prompt_tokens == 8
    assert [request.json().get("stream", False) for request in sim.requests] == [True, False]


async def test_what_goes_out(sim: AnthropicSimulator) -> None:
    settings = {"beta": ["one-2025", "two-2025"], "models": {"claude-sonnet-4-6": {"max_tokens": 77}}}
    async with speaking(sim, anthropic=settings, headers={"X-Team": "a"}) as channel:
        await deltas(channel)
    (request,) = sim.requests
    assert request.path == "/v1/messages"
    assert request.header("x-api-key") == KEY
    assert request.header("authorization") is None
    assert request.header("anthropic-version") == "2023-06-01"
    assert request.header("anthropic-beta") == "one-2025,two-2025"
    assert request.header("x-team") == "a"
    assert (request.json()["model"], request.json()["max_tokens"]) == ("claude-sonnet-4-6", 77)


async def test_other_vendors_may_want_a_bearer_and_a_path(sim: AnthropicSimulator) -> None:
    async with upstream(
        f"{sim.url}/anthropic/", kind="anthropic", models=["m"], anthropic={"auth": "bearer"}
    ) as channel:
        assert await answer(channel) == TEXT
    (request,) = sim.requests
    assert request.path == "/anthropic/v1/messages"
    assert request.header("authorization") == f"Bearer {KEY}"
    assert request.header("x-api-key") is None


async def test_a_channels_rules_for_fields_hold(sim: AnthropicSimulator) -> None:
    async with speaking(sim, params={"set": {"max_tokens": 9}}) as channel:
        await deltas(channel, request=chat(max_tokens=5))
    assert sim.requests[0].json()["max_tokens"] == 9


async def test_what_was_adapted_is_told_in_the_log(
    sim: AnthropicSimulator, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", "antiphon.upstream"):
        async with speaking(sim) as channel:
            await deltas(channel, request=chat(seed=1))
    assert "seed was left out" in caplog.text


async def test_a_request_that_cannot_be_made_is_refused_before_anything_is_sent(
    sim: AnthropicSimulator,
) -> None:
    async with speaking(sim) as channel:
        for request in (chat(n=2), chat(n=2, stream=False)):
            assert type(await failure(channel, request=request)) is InvalidRequest
    assert sim.requests == []


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [
        (401, UpstreamAuth, "upstream_auth"),
        (429, RateLimited, "rate_limit_exceeded"),
        (500, UpstreamError, "upstream_error"),
        (529, Overloaded, "overloaded"),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
async def test_a_refusal_is_one_of_our_errors(
    sim: AnthropicSimulator, status: int, kind: type, code: str, stream: bool
) -> None:
    sim.script(AnthropicScript(status=status, retry_after=3))
    async with speaking(sim) as channel:
        error = await failure(channel, request=chat(stream=stream))
        assert (type(error), error.code, error.upstream_status) == (kind, code, status)
        if status in (429, 529):
            assert error.retry_after_s == 3
        assert await answer(channel) == TEXT


async def test_words_of_a_refusal_go_on_without_secrets_and_by_the_public_name(
    sim: AnthropicSimulator,
) -> None:
    sim.script(AnthropicScript(status=400, error_message=f"claude-sonnet-4-6 with {KEY}: tools.0 is odd"))
    async with speaking(sim) as channel:
        error = await failure(channel)
    assert (error.status, error.message) == (400, "m with ***: tools.0 is odd")


async def test_overloaded_in_midstream_ends_the_answer_after_what_was_said(sim: AnthropicSimulator) -> None:
    sim.script(AnthropicScript(text=TEXT, chunks=4, error_after=2))
    async with speaking(sim) as channel:
        said, error = await said_and_failed(channel)
    assert TEXT.startswith("".join(said))
    assert (len(said), type(error)) == (2, Overloaded)


@pytest.mark.parametrize("cut", ["fin", "rst", "clean"])
@pytest.mark.parametrize("chunks", [0, 2, 4])
async def test_a_stream_that_is_cut_is_no_answer(sim: AnthropicSimulator, cut: Any, chunks: int) -> None:
    sim.script(AnthropicScript(text=TEXT, chunks=4, cut_after=chunks, cut=cut))
    async with speaking(sim) as channel:
        _, error = await said_and_failed(channel)
        assert isinstance(error, UpstreamError)
        assert error.retryable
        assert await answer(channel) == TEXT


async def test_cut_at_whatever_byte_a_stream_is_never_taken_for_whole(sim: AnthropicSimulator) -> None:
    async with speaking(sim) as channel:
        await deltas(channel)
        whole = sim.requests[-1].sent_bytes
        for at in range(0, whole - 2, 13):
            sim.script(AnthropicScript(text=TEXT, cut_at_byte=at, cut="clean"))
            said, error = await said_and_failed(channel)
            assert TEXT.startswith("".join(said))
            assert isinstance(error, UpstreamError)


async def test_half_a_whole_answer_is_no_answer(sim: AnthropicSimulator) -> None:
    sim.script(AnthropicScript(cut_at_byte=40), AnthropicScript(cut_at_byte=40, framing="close"))
    async with speaking(sim) as channel:
        assert type(await failure(channel, request=PLAIN)) is UpstreamCut
        assert type(await failure(channel, request=PLAIN)) is UpstreamInvalid


async def test_a_whole_message_for_a_stream_and_the_other_way_round(sim: AnthropicSimulator) -> None:
    sim.script(AnthropicScript(text=TEXT, answer_as="json"), AnthropicScript(text=TEXT, answer_as="sse"))
    async with speaking(sim) as channel:
        assert await answer(channel) == TEXT
        assert await answer(channel, request=PLAIN) == TEXT


@pytest.mark.parametrize("split", [1, 7])
async def test_however_a_stream_is_split_it_says_the_same(sim: AnthropicSimulator, split: int) -> None:
    sim.script(AnthropicScript(text=TEXT, split_at=split, ping_between=True))
    async with speaking(sim) as channel:
        assert await answer(channel) == TEXT


async def test_pings_do_not_keep_a_silent_stream_alive(sim: AnthropicSimulator) -> None:
    ping = 'event: ping\ndata: {"type": "ping"}\n\n'
    sim.script(AnthropicScript(text=TEXT, chunks=3, inject={1: ping * 3}, stall_after=1))
    async with speaking(sim) as channel:
        call = Call(timeouts=Timeouts(idle_s=0.2))
        said, error = await said_and_failed(channel, call)
    assert (len(said), type(error), error.code) == (1, UpstreamTimeout, "upstream_timeout_idle")


async def test_who_leaves_closes_the_connection(sim: AnthropicSimulator) -> None:
    sim.script(AnthropicScript(text=TEXT, chunks=3, stall_after=1))
    async with speaking(sim) as channel:
        async with asyncio.timeout(10), aclosing(channel.stream(chat(), Call())) as batches:
            async for batch in batches:
                if any(type(delta) is TextDelta for delta in batch):
                    break
        await sim.wait_until(lambda: sim.requests[0].aborted)


async def test_a_connection_is_used_again(sim: AnthropicSimulator) -> None:
    async with speaking(sim) as channel:
        for request in (chat(), PLAIN, chat()):
            assert await answer(channel, request=request) == TEXT
    assert len({request.connection for request in sim.requests}) == 1
