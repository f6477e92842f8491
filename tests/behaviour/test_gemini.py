"""Gemini behind the whole server: answers like any other, streamed and whole, with tools and images."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from server.settings import Channel, ChannelModel, Images, Settings
from server.simulators.gemini import GeminiSimulator
from server.simulators.gemini_said import GeminiScript
from server.simulators.script import ToolCall
from tests.behaviour.asking import CHAT, chat_request, chunks_of, data_lines, error_of, post, text_of
from tests.behaviour.running import QUIET, Antiphon, antiphon, ask
from tests.raw_http import connect
from tests.small_host import small_host

CALLS = GeminiScript(
    text="I look.",
    reasoning=("which ", "city?"),
    tools=(ToolCall(arguments='{"city": "Paris – 巴黎"}'), ToolCall(name="now", arguments="{}")),
    text_signature="T==",
    cached=5,
)
PNG = b"\x89PNG\r\n\x1a\n" + base64.b64decode(
    "AAAADUlIRFIAAAABAAAAAQgCAAAAkHdT3gAAAAxJREFUCNdjYGBgAAAABAABJzQnCgAAAABJRU5ErkJggg=="
)


@asynccontextmanager
async def serving(**images: Any) -> AsyncIterator[tuple[Antiphon, GeminiSimulator]]:
    async with GeminiSimulator() as sim:
        made = Channel(
            name="g", kind="gemini", base_url=sim.url, api_key="AIza-key", models=("gemini-3-pro",)
        )
        settings = Settings(channels=(made,), images=Images(**images), logging=QUIET)
        async with antiphon(settings) as server:
            yield server, sim


def joined(chunks: list[Any], field: str) -> str:
    return "".join(chunk["choices"][0]["delta"].get(field) or "" for chunk in chunks if chunk["choices"])


async def test_a_stream_and_a_plain_answer_say_the_same_and_the_loop_of_tools_closes() -> None:
    async with serving() as (server, sim):
        sim.script(CALLS, times=2)
        streamed = await post(
            server, ask("gemini-3-pro", stream=True, stream_options={"include_usage": True})
        )
        chunks = chunks_of(streamed.body)
        plain = (await post(server, ask("gemini-3-pro"))).json()
        message = plain["choices"][0]["message"]
        assert joined(chunks, "content") == text_of(chunks) == message["content"] == "I look."
        assert joined(chunks, "reasoning_content") == message["reasoning_content"] == "which city?"
        assert [call["function"]["name"] for call in message["tool_calls"]] == ["get_weather", "now"]
        assert json.loads(message["tool_calls"][0]["function"]["arguments"]) == {"city": "Paris – 巴黎"}
        assert plain["choices"][0]["finish_reason"] == "tool_calls"
        assert plain["usage"] == chunks[-1]["usage"]
        assert plain["usage"]["prompt_tokens_details"] == {"cached_tokens": 5}
        assert plain["usage"]["completion_tokens_details"] == {"reasoning_tokens": 2}
        signatures = [
            call["extra_content"]
            for chunk in chunks
            for choice in chunk["choices"]
            for call in choice["delta"].get("tool_calls", ())
            if "extra_content" in call
        ]
        assert signatures == [message["tool_calls"][0]["extra_content"]]

        results = [
            {"role": "tool", "tool_call_id": call["id"], "content": "fine"} for call in message["tool_calls"]
        ]
        turns = [{"role": "user", "content": "hello"}, message, *results]
        sim.script(GeminiScript(text="Sunny."))
        last = await post(server, {"model": "gemini-3-pro", "messages": turns})
        assert last.json()["choices"][0]["message"]["content"] == "Sunny."
        assert "x-antiphon-warnings" not in last.headers
        sent = sim.requests[-1].json()["contents"]
        assert [turn["role"] for turn in sent] == ["user", "model", "user"]
        assert sent[1]["parts"][0] == {"text": "I look.", "thoughtSignature": "T=="}
        assert sent[1]["parts"][1]["thoughtSignature"] == "EjSim=="
        assert sent[1]["parts"][1]["functionCall"]["args"] == {"city": "Paris – 巴黎"}
        assert [part["functionResponse"]["name"] for part in sent[2]["parts"]] == ["get_weather", "now"]


async def test_a_client_that_loses_the_signatures_is_still_served_and_told() -> None:
    async with serving() as (server, _):
        call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
        turns = [
            {"role": "user", "content": "hello"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c", "content": "fine"},
        ]
        told = await post(server, {"model": "gemini-3-pro", "messages": turns})
        assert told.status == 200
        assert "without its thought signature" in told.headers["x-antiphon-warnings"]


async def test_several_choices_and_reasons_without_a_word_here() -> None:
    async with serving() as (server, sim):
        sim.script(GeminiScript(text="Hi there", finish_reason="RECITATION"), times=2)
        plain = (await post(server, ask("gemini-3-pro", n=2))).json()
        assert [choice["message"]["content"] for choice in plain["choices"]] == ["Hi there"] * 2
        last = plain["choices"][1]
        assert (last["finish_reason"], last["native_finish_reason"]) == ("content_filter", "RECITATION")
        chunks = chunks_of((await post(server, ask("gemini-3-pro", n=2, stream=True))).body)
        ends = [chunk["choices"][0] for chunk in chunks if chunk["choices"][0]["finish_reason"]]
        assert [(end["index"], end["finish_reason"]) for end in ends] == [
            (0, "content_filter"),
            (1, "content_filter"),
        ]


async def test_log_probabilities_are_the_same_streamed_and_whole() -> None:
    async with serving() as (server, sim):
        asked = ask("gemini-3-pro", logprobs=True, top_logprobs=2)
        plain = (await post(server, asked)).json()["choices"][0]["logprobs"]["content"]
        chunks = chunks_of((await post(server, {**asked, "stream": True})).body)
        told = [choice.get("logprobs") for chunk in chunks for choice in chunk["choices"]]
        assert [token for one in told if one for token in one["content"]] == plain
        assert "".join(token["token"] for token in plain) == "You said: hello"
        assert sim.requests[0].json()["generationConfig"] == {"responseLogprobs": True, "logprobs": 2}


async def test_an_image_on_the_web_is_fetched_for_it() -> None:
    async def get(request: web.Request) -> web.Response:
        return web.Response(body=PNG)

    async with small_host(get) as url:
        parts = [
            {"type": "image_url", "image_url": {"url": f"{url}/a.png"}},
            {"type": "text", "text": "What is it?"},
        ]
        asked = {"model": "gemini-3-pro", "messages": [{"role": "user", "content": parts}]}
        async with serving(allow_hosts=("127.0.0.1",)) as (server, sim):
            for stream in (True, False):
                assert (await post(server, {**asked, "stream": stream})).status == 200
                inline = sim.requests[-1].json()["contents"][0]["parts"][0]["inlineData"]
                assert inline == {"mimeType": "image/png", "data": base64.b64encode(PNG).decode()}
        async with serving() as (server, sim):
            assert error_of(await post(server, asked), 400)["code"] == "invalid_image_url"
            assert sim.requests == []


async def test_a_refusal_is_a_status_and_a_cut_is_no_whole_answer() -> None:
    async with serving() as (server, sim):
        sim.script(GeminiScript(block="SAFETY"))
        assert error_of(await post(server, ask("gemini-3-pro", stream=True)), 400)["code"] == "content_filter"
        sim.script(GeminiScript(status=429, retry_delay="34s"), times=3)
        limited = await post(server, ask("gemini-3-pro"))
        assert error_of(limited, 429)["code"] == "rate_limit_exceeded"
        assert limited.headers["retry-after"] == "34"
    async with serving() as (server, sim):
        assert (
            error_of(await post(server, ask("gemini-3-pro", modalities=["audio"])), 400)["param"]
            == "modalities"
        )
        sim.script(GeminiScript(chunks=4, cut_after=2))
        body = (await post(server, ask("gemini-3-pro", stream=True))).body
        assert b"[DONE]" not in body
        assert json.loads(data_lines(body)[-1])["error"]["code"] == "upstream_cut"
        sim.script(GeminiScript(chunks=2, finish_reason="MALFORMED_FUNCTION_CALL"))
        body = (await post(server, ask("gemini-3-pro", stream=True))).body
        assert b"[DONE]" not in body
        assert json.loads(data_lines(body)[-1])["error"]["code"] == "upstream_invalid"


async def test_who_leaves_ends_the_call() -> None:
    async with serving() as (server, sim):
        sim.script(GeminiScript(chunks=3, stall_after=1))
        async with connect("127.0.0.1", server.port) as raw:
            await raw.send(chat_request(ask("gemini-3-pro", stream=True), path=CHAT))
            await sim.wait_until(lambda: bool(sim.requests) and sim.requests[0].sent_chunks == 1)
        await sim.wait_until(lambda: sim.requests[0].aborted)


@pytest.mark.parametrize(
    ("thinking", "config"),
    [
        ({"type": "enabled", "budget_tokens": 1024}, {"includeThoughts": True, "thinkingBudget": 1024}),
        ({"type": "disabled"}, {"thinkingBudget": 0}),
        ({"type": "adaptive"}, {"includeThoughts": True}),
        (None, None),
    ],
)
async def test_anthropics_wish_to_think_goes_on(thinking: Any, config: Any) -> None:
    async with GeminiSimulator() as sim:
        models = {"flash": ChannelModel(model="gemini-2.5-flash")}
        made = Channel(name="g", kind="gemini", base_url=sim.url, api_key="AIza-key", models=models)
        async with antiphon(Settings(channels=(made,), logging=QUIET)) as server:
            asked = {"model": "flash", "max_tokens": 2000, "messages": [{"role": "user", "content": "hi"}]}
            body = asked | ({"thinking": thinking} if thinking else {})
            answer = await post(server, body, "x-api-key: k", path="/v1/messages")
            assert answer.status == 200
            assert "x-antiphon-warnings" not in answer.headers
            assert sim.requests[-1].json()["generationConfig"].get("thinkingConfig") == config
            odd = await post(
                server, asked | {"thinking": {"type": "later"}}, "x-api-key: k", path="/v1/messages"
            )
            assert (odd.status, odd.json()["error"]["param"]) == (400, "thinking")
