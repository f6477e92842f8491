"""Clients of N-1 and of o1-api find here what they had: the shipped examples, from outside."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from server.config import load
from server.simulators.openai import OpenAISimulator
from server.simulators.script import Script
from tests.behaviour.asking import chunks_of, error_of, post, text_of
from tests.behaviour.running import QUIET, Antiphon, antiphon, ask
from tests.behaviour.test_examples import EXAMPLES, picture

PARALLEL, DIRECT = "par-0123456789abcdef", "dir-0123456789abcdef"
TOKEN = f"Authorization: Bearer {PARALLEL}"
STEP = '{"title": "Read \\"it\\"", "content": "one\\ntwo", "next_action": "final_answer"}'


@asynccontextmanager
async def example(name: str) -> AsyncIterator[tuple[Antiphon, OpenAISimulator]]:
    async with OpenAISimulator() as sim:
        environ = {"VENDOR_URL": sim.base_url, "VENDOR_KEY": "k"}
        environ |= {"N1_PARALLEL_TOKEN": PARALLEL, "N1_DIRECT_TOKEN": DIRECT}
        settings = replace(load(Path(EXAMPLES / f"{name}.yaml"), environ).settings, logging=QUIET)
        async with antiphon(settings) as server:
            yield server, sim


def asked(sim: OpenAISimulator) -> list[str]:
    return [request.model for request in sim.requests]


@pytest.mark.parametrize("model", ["N-1", "parallel", "gpt-4-vision-preview", None])
async def test_any_model_is_answered_by_the_default_combination(model: str | None) -> None:
    async with example("n-1") as (server, sim):
        body = ask() | {"model": model}
        answer = await post(server, body, TOKEN)
        assert answer.status == 200
        assert sorted(asked(sim)) == ["large", "other", "small"]
        told = answer.json()
        assert told["model"] == (model or "parallel")
        assert [choice["finish_reason"] for choice in told["choices"]] == ["stop"]


async def test_status_lines_stand_before_the_answer_as_its_clients_know_them() -> None:
    async with example("n-1") as (server, sim):
        sim.script(Script(status=400), model="small")
        sim.script(Script(text="The blue of the sky.", first_ms=100), model="other")
        streamed = await post(server, ask("N-1", stream=True), TOKEN)
        # One draft is left, and goes out as it is.
        assert text_of(chunks_of(streamed.body)) == " small ❌\nother ✅\nThe blue of the sky."
        sim.script(Script(text="The answer."), model="large")
        chunks = chunks_of((await post(server, ask("N-1", stream=True), TOKEN)).body)
        said = text_of(chunks)
        assert said in (" small ✅\nother ✅\nThe answer.", " other ✅\nsmall ✅\nThe answer.")
        finishes = [choice["finish_reason"] for chunk in chunks for choice in chunk["choices"]]
        assert [one for one in finishes if one] == ["stop"]
        plain = (await post(server, ask("N-1"), TOKEN)).json()["choices"][0]["message"]["content"]
        assert "✅" not in plain


async def test_all_members_failed_is_no_answer() -> None:
    async with example("n-1") as (server, sim):
        for model in ("small", "other"):
            sim.script(Script(status=500), model=model, times=4)
        for stream in (False, True):
            error = error_of(await post(server, ask("N-1", stream=stream), TOKEN), 502)
            assert error["code"] == "all_members_failed"
        assert "large" not in asked(sim)


async def test_the_summary_sees_the_last_turn_and_the_system_message() -> None:
    async with example("n-1") as (server, sim):
        turns = [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "An old question"},
            {"role": "assistant", "content": "An old answer"},
            {"role": "user", "content": "A new question"},
        ]
        await post(server, ask("N-1") | {"messages": turns, "max_tokens": 99}, TOKEN)
        bodies = {request.model: request.json() for request in sim.requests}
        assert bodies["small"]["messages"] == turns
        assert bodies["small"]["max_tokens"] == 99
        assert bodies["small"]["temperature"] == 0.7
        summary = bodies["large"]["messages"]
        assert [turn["role"] for turn in summary] == ["system", "user"]
        assert summary[0]["content"].startswith("Be brief.\n\nSeveral assistants have answered.")
        assert "old" not in json.dumps(summary)


async def test_a_picture_anywhere_in_the_conversation_asks_those_that_see() -> None:
    async with example("n-1") as (server, sim):
        seen: dict[str, Any] = {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is it?"},
                {"type": "image_url", "image_url": {"url": picture(), "detail": "low"}},
            ],
        }
        later = [seen, {"role": "assistant", "content": "A cat."}, {"role": "user", "content": "Sure?"}]
        for turns in ([seen], later):
            streamed = await post(server, {"messages": turns, "stream": True}, TOKEN)
            assert text_of(chunks_of(streamed.body)).startswith(" seeing ✅\n")
        assert set(asked(sim)) == {"seeing"}
        assert sim.requests[-1].json()["messages"] == later


async def test_each_combination_has_its_token() -> None:
    async with example("n-1") as (server, sim):
        assert error_of(await post(server, ask("N-1"), "Authorization: Bearer wrong"), 401)
        assert error_of(await post(server, ask("N-1"), f"Authorization: Bearer {DIRECT}"), 403)
        assert error_of(await post(server, ask("direct"), TOKEN), 403)
        assert (await post(server, ask("direct"), f"Authorization: Bearer {DIRECT}")).status == 200
        assert asked(sim) == ["large"]


async def test_o1s_forms_are_valid_whatever_the_steps_hold() -> None:
    async with example("steps") as (server, sim):
        sim.script(Script(text=STEP), model="large")
        sim.script(Script(text='The "answer".'), model="large")
        streamed = await post(server, ask("any-model", stream=True))
        text = text_of(chunks_of(streamed.body))
        head, time = text.split("\n\n**Total thinking time: ")
        assert head == '## Step 1: Read "it"\none\ntwo\n\n### Final Answer\nThe "answer".'
        assert time.endswith(" seconds**")
        sim.script(Script(text=STEP), model="large")
        sim.script(Script(text='The "answer".'), model="large")
        told = (await post(server, ask("any-model"))).json()
        assert set(told) == {"steps", "total_thinking_time"}
        assert [one[:2] for one in told["steps"]] == [
            ['Step 1: Read "it"', "one\ntwo"],
            ["Final Answer", 'The "answer".'],
        ]
        assert all(isinstance(one[2], float) for one in told["steps"])
