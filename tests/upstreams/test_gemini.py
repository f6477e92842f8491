"""The gemini upstream: what goes out, what comes back, and what goes wrong."""

from __future__ import annotations

import base64
import io
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
from PIL import Image

from server.deltas import Finished, ToolCallDelta, UsageDelta
from server.errors import (
    ContentFiltered,
    Overloaded,
    RateLimited,
    UpstreamAuth,
    UpstreamEmpty,
    UpstreamError,
)
from server.simulators.gemini import GeminiSimulator
from server.simulators.gemini_said import GeminiScript
from server.simulators.script import ToolCall
from server.upstreams.base import Call, Upstream
from tests.channels import answer, chat, deltas, failure
from tests.gemini_wire.generated import calls_of, originals_of, text_of, thought_of
from tests.upstreams.openai_cases import KEY, TEXT, upstream

PLAIN = chat(stream=False)
MODEL = "gemini-3.8-flash"


@pytest.fixture
async def sim() -> AsyncIterator[GeminiSimulator]:
    async with GeminiSimulator(api_key=KEY, default=GeminiScript(text=TEXT)) as simulator:
        yield simulator


def speaking(sim: GeminiSimulator, **settings: Any) -> AbstractAsyncContextManager[Upstream]:
    return upstream(sim.url, **{"kind": "gemini", "models": {"m": {"model": MODEL}}, **settings})


async def test_a_stream_and_a_whole_answer_say_the_same(sim: GeminiSimulator) -> None:
    tools = (ToolCall(arguments='{"city": "巴黎"}'), ToolCall(name="now", arguments="{}", id="own"))
    sim.script(GeminiScript(text=TEXT, reasoning=("hm ", "well"), tools=tools, cached=7), times=2)
    async with speaking(sim) as channel:
        for request in (chat(), PLAIN):
            told = await deltas(channel, request=request)
            assert (text_of(told), thought_of(told)) == (TEXT, "hm well")
            (made, weather, _), now = calls_of(told)
            assert (made or "").startswith("call_")
            assert (weather, now) == ("get_weather", ("own", "now", "{}"))
            (signed,) = originals_of(told, ToolCallDelta)
            extra = signed["delta"]["tool_calls"][0]["extra_content"]
            assert extra == {"google": {"thought_signature": "EjSim=="}}
            assert [delta.reason for delta in told if type(delta) is Finished] == ["tool_calls"]
            usage = next(delta.usage for delta in told if type(delta) is UsageDelta)
            assert usage.prompt_tokens == 8
    assert [request.path for request in sim.requests] == [
        f"/v1beta/models/{MODEL}:streamGenerateContent?alt=sse",
        f"/v1beta/models/{MODEL}:generateContent",
    ]


async def test_what_goes_out(sim: GeminiSimulator) -> None:
    settings = {"safety": {"HARASSMENT": "BLOCK_NONE"}, "models": {MODEL: {"thinking": "no"}}}
    async with speaking(sim, gemini=settings, headers={"X-Team": "a"}) as channel:
        await deltas(channel, request=chat(reasoning_effort="high", temperature=0))
    (request,) = sim.requests
    assert KEY not in request.path
    assert request.header("x-goog-api-key") == KEY
    assert request.header("authorization") is None
    assert request.header("x-team") == "a"
    body = request.json()
    assert body["safetySettings"] == [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}]
    assert body["generationConfig"] == {"temperature": 0}


@pytest.mark.parametrize(
    ("theirs", "path"),
    [
        ("models/gemini-x", "/proxy/v1/models/gemini-x:generateContent"),
        ("tunedModels/mine-1", "/proxy/v1/tunedModels/mine-1:generateContent"),
        ("gemini x", "/proxy/v1/models/gemini%20x:generateContent"),
    ],
)
@pytest.mark.parametrize("http", ["fast", "aiohttp"])
async def test_other_addresses_and_names(sim: GeminiSimulator, theirs: str, path: str, http: str) -> None:
    own: Any = {"http": http, "gemini": {"version": "v1"}, "models": {"m": {"model": theirs}}}
    async with upstream(f"{sim.url}/proxy/", kind="gemini", **own) as channel:
        assert await answer(channel, request=PLAIN) == TEXT
        assert await answer(channel) == TEXT
    streamed = path.replace(":generateContent", ":streamGenerateContent?alt=sse")
    assert [request.path for request in sim.requests] == [path, streamed]


async def test_a_channels_rules_for_fields_hold_and_what_was_adapted_is_told(
    sim: GeminiSimulator, caplog: pytest.LogCaptureFixture
) -> None:
    call = Call()
    with caplog.at_level("INFO", "antiphon.upstream"):
        async with speaking(sim, params={"set": {"max_tokens": 9}}) as channel:
            await deltas(channel, call, request=chat(max_tokens=5, logit_bias={"1": 1}))
    assert sim.requests[0].json()["generationConfig"]["maxOutputTokens"] == 9
    assert call.warnings == ("a", ("logit_bias was left out",))
    assert "logit_bias was left out" in caplog.text


@pytest.mark.parametrize(
    ("script", "kind", "code"),
    [
        ({"status": 400, "error_reason": "API_KEY_INVALID"}, UpstreamAuth, "upstream_auth"),
        ({"status": 403}, UpstreamAuth, "upstream_auth"),
        ({"status": 429, "retry_delay": "3s"}, RateLimited, "rate_limit_exceeded"),
        ({"status": 500, "error_form": "array"}, UpstreamError, "upstream_error"),
        ({"status": 503, "retry_after": 3}, Overloaded, "overloaded"),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
async def test_a_refusal_is_one_of_our_errors(
    sim: GeminiSimulator, script: dict[str, Any], kind: type, code: str, stream: bool
) -> None:
    sim.script(GeminiScript(**script))
    async with speaking(sim) as channel:
        error = await failure(channel, request=chat(stream=stream))
        assert (type(error), error.code, error.upstream_status) == (kind, code, script["status"])
        if error.status in (429, 503):
            assert error.retry_after_s == 3
        assert await answer(channel) == TEXT


async def test_words_of_a_refusal_go_on_without_secrets_and_by_the_public_name(sim: GeminiSimulator) -> None:
    sim.script(GeminiScript(status=400, error_message=f"{MODEL} with {KEY}: contents is odd"))
    async with speaking(sim) as channel:
        error = await failure(channel)
    assert (error.status, error.message) == (400, "m with ***: contents is odd")


@pytest.mark.parametrize("stream", [True, False])
async def test_a_blocked_prompt_is_the_clients_matter_and_an_empty_answer_the_upstreams(
    sim: GeminiSimulator, stream: bool
) -> None:
    sim.script(GeminiScript(block="SAFETY"), GeminiScript(pieces=()))
    request = chat(stream=stream)
    async with speaking(sim) as channel:
        blocked = await failure(channel, request=request)
        assert (type(blocked), blocked.status, blocked.retryable) == (ContentFiltered, 400, False)
        assert type(await failure(channel, request=request)) is UpstreamEmpty


@pytest.mark.parametrize("split", [1, 7])
@pytest.mark.parametrize("line_end", ["crlf", "lf", "mixed"])
async def test_however_a_stream_is_split_it_says_the_same(
    sim: GeminiSimulator, split: int, line_end: Any
) -> None:
    sim.script(GeminiScript(text=TEXT, split_at=split, line_end=line_end, comments_between=True))
    async with speaking(sim) as channel:
        assert await answer(channel) == TEXT


PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(30)).decode()


def showing(*urls: str, stream: bool) -> Any:
    shown = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return chat(stream=stream, messages=[{"role": "user", "content": shown}])


@pytest.mark.parametrize("stream", [True, False])
async def test_images_in_the_request_and_files_of_the_service_go_out_as_they_are(
    sim: GeminiSimulator, stream: bool
) -> None:
    file = "https://generativelanguage.googleapis.com/v1beta/files/abc"
    film = "https://www.youtube.com/watch?v=x"
    async with speaking(sim) as channel:
        request = showing(f"data:image/png;base64,{PNG}", file, film, stream=stream)
        assert await answer(channel, request=request) == TEXT
    assert sim.requests[0].json()["contents"][0]["parts"] == [
        {"inlineData": {"mimeType": "image/png", "data": PNG}},
        {"fileData": {"fileUri": file}},
        {"fileData": {"fileUri": film}},
    ]


@pytest.mark.parametrize("stream", [True, False])
async def test_an_image_that_may_not_be_fetched_is_refused_before_anything_is_sent(
    sim: GeminiSimulator, stream: bool
) -> None:
    async with speaking(sim) as channel:
        error = await failure(channel, request=showing(f"{sim.url}/secret.png", stream=stream))
    assert (error.status, error.param) == (400, "messages[0].content[0].image_url")
    assert sim.requests == []


async def test_an_image_is_made_to_fit_once_for_all_attempts_and_that_is_told(sim: GeminiSimulator) -> None:
    out = io.BytesIO()
    Image.new("RGB", (4, 4), "teal").save(out, "GIF")
    gif = f"data:image/gif;base64,{base64.b64encode(out.getvalue()).decode()}"
    request, call = showing(gif, stream=True), Call()
    sim.script(GeminiScript(status=503))
    async with speaking(sim) as channel:
        await failure(channel, call, request=request)
        made = call.inlined
        assert await answer(channel, call, request=request) == TEXT
        assert call.inlined is made
    assert call.warnings == ("a", ("images were converted from gif to png",))
    first, second = (one.json()["contents"][0]["parts"][0]["inlineData"] for one in sim.requests)
    assert first == second
    assert first["mimeType"] == "image/png"
