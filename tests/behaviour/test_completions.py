"""Text completions by the official client, of every kind of upstream."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import openai
import pytest

from tests.behaviour.kinds import KINDS, Kind, kind_of


@asynccontextmanager
async def asking(name: str) -> AsyncIterator[tuple[openai.AsyncOpenAI, Kind]]:
    async with kind_of(name) as kind:
        base = f"{kind.server.url}/v1"
        async with openai.AsyncOpenAI(base_url=base, api_key="unused", max_retries=0, timeout=20) as client:
            yield client, kind


@pytest.mark.parametrize("name", KINDS)
async def test_a_stream_and_a_plain_completion_say_the_same(name: str) -> None:
    async with asking(name) as (client, kind):
        for _ in range(2):
            kind.say(text="one 二 🎶 three", reasoning=("hm",) if name != "spark" else ())
        whole = await client.completions.create(model=kind.model, prompt="count", echo=True)
        assert whole.object == "text_completion"
        assert whole.id.startswith("cmpl-")
        assert whole.model == kind.model
        assert whole.choices[0].text == "countone 二 🎶 three"
        assert whole.choices[0].finish_reason == "stop"
        assert whole.usage is not None
        stream = await client.completions.create(
            model=kind.model, prompt=["count"], echo=True, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
        assert "".join(chunk.choices[0].text for chunk in chunks[:-1]) == "countone 二 🎶 three"
        assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]][-1] == "stop"
        assert chunks[-1].usage is not None
        assert chunks[-1].usage.total_tokens == whole.usage.total_tokens
        await kind.nothing_left()


async def test_the_clients_wishes_reach_the_model_and_more_than_one_choice_comes_back() -> None:
    async with asking("openai") as (client, kind):
        whole = await client.completions.create(
            model="m", prompt="hi", n=2, max_tokens=7, stop=["."], seed=1, extra_body={"zero": 0}
        )
        assert [choice.index for choice in whole.choices] == [0, 1]
        sent = kind.sent()
        assert sent["messages"] == [{"role": "user", "content": "hi"}]
        assert {key: sent[key] for key in ("n", "max_tokens", "stop", "seed", "zero")} == {
            "n": 2,
            "max_tokens": 7,
            "stop": ["."],
            "seed": 1,
            "zero": 0,
        }
        assert "prompt" not in sent


@pytest.mark.parametrize("name", KINDS)
async def test_a_failure_is_its_exception_and_a_cut_is_no_whole_answer(name: str) -> None:
    async with asking(name) as (client, kind):
        kind.say(cut_head_at=0)
        kind.say(cut_head_at=0)
        kind.say(cut_head_at=0)
        with pytest.raises(openai.APIStatusError):
            await client.completions.create(model=kind.model, prompt="hi")
        kind.sim.clear()
        kind.say(text="one two three four", chunks=4, cut_after=2)
        stream = await client.completions.create(model=kind.model, prompt="hi", stream=True)
        with pytest.raises(openai.APIError):
            _ = [chunk async for chunk in stream]
        await kind.nothing_left()


async def test_a_client_that_leaves_ends_the_call() -> None:
    async with asking("openai") as (client, kind):
        kind.say(text="one two three", chunks=3, stall_after=1)
        stream = await client.completions.create(model="m", prompt="hi", stream=True)
        assert (await anext(stream)).choices[0].text
        await stream.close()
        await kind.nothing_left()
        assert kind.sim.requests[-1].aborted


async def test_what_a_chat_cannot_carry_out_is_a_400_that_names_it() -> None:
    async with asking("openai") as (client, kind):
        for fields, param in (
            ({"suffix": "end"}, "suffix"),
            ({"logprobs": 3}, "logprobs"),
            ({"best_of": 4}, "best_of"),
            ({"prompt": ["a", "b"]}, "prompt"),
            ({"prompt": [1, 2]}, "prompt"),
            ({"extra_body": {"tools": [{}]}}, "tools"),
        ):
            asked = {"model": "m", "prompt": "hi", **fields}
            with pytest.raises(openai.BadRequestError) as refused:
                await client.completions.create(**asked)  # type: ignore[call-overload]
            assert (refused.value.param, refused.value.code) == (param, "unsupported_parameter")
        assert not kind.sim.requests
