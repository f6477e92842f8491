"""The anthropic upstream: what goes out, what comes back, and what goes wrong."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from server.deltas import Finished, UsageDelta
from server.errors import (
    Overloaded,
    RateLimited,
    UpstreamAuth,
    UpstreamError,
)
from server.simulators.anthropic import AnthropicSimulator
from server.simulators.anthropic_said import AnthropicScript
from server.simulators.script import ToolCall
from server.upstreams.base import Call, Upstream
from tests.anthropic_wire.messages import calls_of, text_of, thought_of
from tests.channels import answer, chat, deltas, failure
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


@pytest.mark.parametrize(("passed", "expected"), [(True, "one,two"), (False, "one")])
async def test_features_that_a_client_names_go_along_if_the_channel_lets_them(
    sim: AnthropicSimulator, passed: bool, expected: str
) -> None:
    call = Call()
    async with speaking(sim, anthropic={"beta": ["one"], "pass_beta": passed}) as channel:
        await deltas(channel, call, chat(anthropic_beta=["two", "one"]))
        assert sim.requests[0].header("anthropic-beta") == expected
        assert "anthropic_beta" not in sim.requests[0].json()
        told = None if passed else ("a", ("the header anthropic-beta was left out",))
        assert call.warnings == told


async def test_what_is_no_name_of_a_feature_is_refused(sim: AnthropicSimulator) -> None:
    async with speaking(sim) as channel:
        refused = await failure(channel, request=chat(anthropic_beta=["a\r\nb: c"]))
        assert (refused.status, refused.param) == (400, "anthropic_beta")
    assert not sim.requests


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


@pytest.mark.parametrize("model", ["claude-opus-4-7", "claude-opus-4-1", "claude-opus-4-20250514"])
async def test_sampling_and_an_effort_suit_models_of_every_age(sim: AnthropicSimulator, model: str) -> None:
    async with speaking(sim, models=[model]) as channel:
        asked = chat(temperature=0.5, top_p=0.9, reasoning_effort="low", max_tokens=4000, model=model)
        assert await answer(channel, request=asked)
    assert ("temperature" in sim.requests[-1].json()) is False


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
