"""The ollama upstream: what goes out, what comes back, and what goes wrong."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from server.deltas import Finished, UsageDelta
from server.errors import (
    Overloaded,
    UpstreamError,
    UpstreamRefused,
    UpstreamTimeout,
)
from server.settings import Timeouts
from server.simulators.ollama import OllamaSimulator
from server.simulators.ollama_said import OllamaScript
from server.simulators.script import ToolCall
from server.upstreams.base import Call, Upstream
from tests.anthropic_wire.messages import calls_of, text_of, thought_of
from tests.channels import answer, chat, deltas, failure, said_and_failed
from tests.upstreams.openai_cases import KEY, TEXT, upstream

PLAIN = chat(stream=False)
PNG = base64.b64encode(
    b"\x89PNG\r\n\x1a\n"
    + base64.b64decode("AAAADUlIRFIAAAABAAAAAQgCAAAAkHdT3gAAAAxJREFUCNdjYGBgAAAABAABJzQnCgAAAABJRU5ErkJggg==")
).decode()


@pytest.fixture
async def sim() -> AsyncIterator[OllamaSimulator]:
    async with OllamaSimulator(default=OllamaScript(text=TEXT)) as simulator:
        yield simulator


def speaking(sim: OllamaSimulator, **settings: Any) -> AbstractAsyncContextManager[Upstream]:
    known = {"kind": "ollama", "api_key": None, "models": {"m": {"model": "llama3.2"}}}
    return upstream(f"{sim.url}/", **(known | settings))


async def test_a_stream_and_a_whole_answer_say_the_same(sim: OllamaSimulator) -> None:
    tools = (ToolCall(), ToolCall(name="now", arguments="{}"))
    sim.script(OllamaScript(text=TEXT, reasoning=("hm ", "well"), tools=tools), times=2)
    async with speaking(sim) as channel:
        for request in (chat(), PLAIN):
            told = await deltas(channel, request=request)
            assert (text_of(told), thought_of(told)) == (TEXT, "hm well")
            assert [name for _, name, _ in calls_of(told)] == ["get_weather", "now"]
            assert len({id for id, _, _ in calls_of(told)}) == 2
            assert [delta.reason for delta in told if type(delta) is Finished] == ["tool_calls"]
            assert [delta.usage.prompt_tokens for delta in told if type(delta) is UsageDelta] == [1]
    assert [request.json()["stream"] for request in sim.requests] == [True, False]


async def test_what_goes_out(sim: OllamaSimulator) -> None:
    own = {"num_ctx": 4096, "keep_alive": -1}
    async with speaking(sim, ollama=own, api_key=KEY, headers={"X-Team": "a"}) as channel:
        call = Call()
        await deltas(channel, call, request=chat(temperature=0, user="u"))
    (request,) = sim.requests
    assert (request.path, request.header("x-team")) == ("/api/chat", "a")
    assert request.header("authorization") == f"Bearer {KEY}"
    body = request.json()
    assert (body["model"], body["keep_alive"]) == ("llama3.2", -1)
    assert body["options"] == {"num_ctx": 4096, "temperature": 0}
    assert call.warnings == ("a", ("user was left out",))


async def test_a_channels_rules_for_fields_hold(sim: OllamaSimulator) -> None:
    async with speaking(sim, params={"default": {"max_tokens": 9}}) as channel:
        await deltas(channel)
    assert sim.requests[0].json()["options"] == {"num_predict": 9}
    assert sim.requests[0].header("authorization") is None


@pytest.mark.parametrize("stream", [True, False])
async def test_images_go_in_as_base64(sim: OllamaSimulator, stream: bool) -> None:
    parts = [{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}]
    async with speaking(sim) as channel:
        request = chat(stream=stream, messages=[{"role": "user", "content": parts}])
        assert await answer(channel, request=request) == TEXT
    assert sim.requests[0].json()["messages"][0]["images"] == [PNG]


async def test_what_is_told_of_a_model_that_is_not_pulled_holds_no_key(
    caplog: pytest.LogCaptureFixture,
) -> None:
    script = OllamaScript(status=404, error_message="model 'own-secret' not found, try pulling it first")
    async with OllamaSimulator(default=script) as sim, speaking(sim, api_key="own-secret") as channel:
        assert (await failure(channel)).code == "model_not_found"
    assert "a model is not pulled: model '***' not found" in caplog.text
    assert "own-secret" not in caplog.text


async def test_a_model_that_is_not_pulled_is_told_to_the_operator(caplog: pytest.LogCaptureFixture) -> None:
    async with OllamaSimulator(models=("other:latest",)) as sim, speaking(sim) as channel:
        for request in (chat(), PLAIN):
            error = await failure(channel, request=request)
            assert (type(error), error.code, error.status) == (UpstreamRefused, "model_not_found", 404)
            assert (error.retryable, error.upstream_status) == (True, 404)
    assert "channel a: a model is not pulled: model 'llama3.2' not found" in caplog.text


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("script", "fields", "kind"),
    [
        (OllamaScript(status=503), {}, Overloaded),
        (OllamaScript(status=500), {}, UpstreamError),
        (OllamaScript(error_after=0), {}, UpstreamError),
        (OllamaScript(cannot=("thinking",)), {"reasoning_effort": "low"}, UpstreamRefused),
        (OllamaScript(body="<html>"), {}, UpstreamError),
        (OllamaScript(status=400, error_message=f"llama3.2 with {KEY}"), {}, UpstreamRefused),
    ],
)
async def test_a_refusal_is_one_of_our_errors(
    sim: OllamaSimulator, script: OllamaScript, fields: dict[str, Any], kind: type, stream: bool
) -> None:
    sim.script(script)
    async with speaking(sim, api_key=KEY) as channel:
        error = await failure(channel, request=chat(stream=stream, **fields))
        assert isinstance(error, kind)
        assert KEY not in error.message
        assert "llama3.2" not in error.message
        assert await answer(channel) == TEXT


async def test_a_cold_model_has_time_and_a_silent_one_has_not(sim: OllamaSimulator) -> None:
    sim.script(OllamaScript(text=TEXT, chunks=3, stall_after=1))
    async with speaking(sim) as channel:
        assert channel._timeouts.of(Call()).first_token_s == 300  # type: ignore[attr-defined]
        said, error = await said_and_failed(channel, Call(timeouts=lambda said: Timeouts(idle_s=0.2)))
    assert (len(said), type(error)) == (1, UpstreamTimeout)
    async with speaking(sim, timeouts={"first_token_s": 9}) as channel:
        assert channel._timeouts.of(Call()).first_token_s == 9  # type: ignore[attr-defined]
