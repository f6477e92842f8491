"""Anthropic behind the whole server: answers like any other, streamed and whole, with tools."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from server.settings import Channel, Settings
from server.simulators.anthropic import AnthropicSimulator
from server.simulators.anthropic_said import AnthropicScript
from server.simulators.script import ToolCall
from tests.behaviour.asking import chunks_of, data_lines, error_of, post, text_of
from tests.behaviour.running import QUIET, Antiphon, antiphon, ask

CALLS = AnthropicScript(
    text="I look.",
    reasoning=("which ", "city?"),
    tools=(ToolCall(arguments='{"city": "Paris – 巴黎"}'), ToolCall(name="now", arguments="{}")),
    cache_read=5,
)


@asynccontextmanager
async def serving() -> AsyncIterator[tuple[Antiphon, AnthropicSimulator]]:
    async with AnthropicSimulator() as sim:
        made = Channel(
            name="a", kind="anthropic", base_url=sim.url, api_key="sk-ant-key", models=("claude-x",)
        )
        async with antiphon(Settings(channels=(made,), logging=QUIET)) as server:
            yield server, sim


def joined(chunks: list[Any], field: str) -> str:
    return "".join(chunk["choices"][0]["delta"].get(field) or "" for chunk in chunks if chunk["choices"])


async def test_a_stream_and_a_plain_answer_say_the_same_and_the_loop_of_tools_closes() -> None:
    async with serving() as (server, sim):
        sim.script(CALLS, times=2)
        streamed = await post(server, ask("claude-x", stream=True, stream_options={"include_usage": True}))
        chunks = chunks_of(streamed.body)
        plain = (await post(server, ask("claude-x"))).json()
        message = plain["choices"][0]["message"]
        assert joined(chunks, "content") == text_of(chunks) == message["content"] == "I look."
        assert joined(chunks, "reasoning_content") == message["reasoning_content"] == "which city?"
        assert [call["function"]["name"] for call in message["tool_calls"]] == ["get_weather", "now"]
        assert json.loads(message["tool_calls"][0]["function"]["arguments"]) == {"city": "Paris – 巴黎"}
        assert plain["choices"][0]["finish_reason"] == "tool_calls"
        assert plain["usage"] == chunks[-1]["usage"]
        assert plain["usage"]["prompt_tokens_details"] == {"cached_tokens": 5}
        blocks = [
            block
            for chunk in chunks
            for choice in chunk["choices"]
            for block in choice["delta"].get("thinking_blocks", ())
        ]
        assert blocks == message["thinking_blocks"]
        assert blocks[0]["signature"] == "EqSim=="

        results = [
            {"role": "tool", "tool_call_id": call["id"], "content": "fine"} for call in message["tool_calls"]
        ]
        turns = [{"role": "user", "content": "hello"}, message, *results]
        sim.script(AnthropicScript(text="Sunny."))
        last = await post(server, {"model": "claude-x", "messages": turns})
        assert last.json()["choices"][0]["message"]["content"] == "Sunny."
        sent = sim.requests[-1].json()["messages"]
        assert [turn["role"] for turn in sent] == ["user", "assistant", "user"]
        thought = {"type": "thinking", "thinking": "which city?", "signature": "EqSim=="}
        assert sent[1]["content"][0] == thought
        assert sent[1]["content"][2]["input"] == {"city": "Paris – 巴黎"}


async def test_reasons_that_have_no_word_here_come_along_in_their_own() -> None:
    async with serving() as (server, sim):
        sim.script(AnthropicScript(text="wait", stop_reason="pause_turn"), times=2)
        choice = (await post(server, ask("claude-x"))).json()["choices"][0]
        assert (choice["finish_reason"], choice["native_finish_reason"]) == ("stop", "pause_turn")
        chunks = chunks_of((await post(server, ask("claude-x", stream=True))).body)
        assert chunks[-1]["choices"][0]["native_finish_reason"] == "pause_turn"


async def test_what_was_adapted_is_told_in_a_header() -> None:
    async with serving() as (server, _):
        for stream in (True, False):
            told = await post(server, ask("claude-x", seed=1, temperature=2, stream=stream))
            said = told.headers["x-antiphon-warnings"]
            assert "seed was left out" in said
            assert "temperature was lowered to 1" in said
            fit = await post(server, ask("claude-x", stream=stream))
            assert "x-antiphon-warnings" not in fit.headers


async def test_a_refusal_is_a_status_and_a_cut_is_no_whole_answer() -> None:
    async with serving() as (server, sim):
        sim.script(AnthropicScript(status=413))
        assert error_of(await post(server, ask("claude-x")), 413)["code"] == "request_too_large"
        assert error_of(await post(server, ask("claude-x", n=2)), 400)["param"] == "n"
        sim.script(AnthropicScript(chunks=4, cut_after=2))
        body = (await post(server, ask("claude-x", stream=True))).body
        assert b"[DONE]" not in body
        assert json.loads(data_lines(body)[-1])["error"]["code"] == "upstream_cut"
