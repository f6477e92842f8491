"""The shipped configuration over the real embedded model, asked by the official client."""

from __future__ import annotations

import importlib.util

import msgspec
import openai
import pytest

from server.config import SHIPPED, load
from server.events import Event, decode
from server.run_check import check_run
from server.settings import Settings
from server.upstreams.local_engine import INSTALL, find_model
from tests.behaviour.running import QUIET, antiphon

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("xllamacpp") is None or find_model() is None,
    reason=f"THE EMBEDDED MODEL IS NOT TESTED: it is not installed; run: {INSTALL}",
)


def told_events(events: list[dict[str, object]]) -> list[Event]:
    return [event for event in (decode(msgspec.json.encode(one)) for one in events) if event is not None]


def shipped() -> Settings:
    settings = load(SHIPPED, {}).settings
    return msgspec.structs.replace(settings, logging=QUIET)


async def test_parallel_streams_a_real_answer_and_its_run_tells_every_stage() -> None:
    async with (
        antiphon(shipped()) as server,
        openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0) as client,
    ):
        raw = await client.chat.completions.with_raw_response.create(
            model="parallel",
            messages=[{"role": "user", "content": "Why is the sky blue? One sentence."}],
            stream=True,
            stream_options={"include_usage": True},
        )
        run_id = raw.headers["x-run-id"]
        text, reasons, usage, ids = "", [], None, set()
        async for chunk in raw.parse():
            ids.add(chunk.id)
            usage = chunk.usage or usage
            for choice in chunk.choices:
                text += choice.delta.content or ""
                reasons += [choice.finish_reason] if choice.finish_reason else []
        assert text.strip()
        assert len(ids) == 1
        assert len(reasons) == 1
        assert usage is not None
        async with server.client.get(f"{server.url}/v1/runs/{run_id}/events") as answer:
            events = (await answer.json())["data"]
        assert check_run(told_events(events)) == []
        told = [event["type"] for event in events]
        assert told.count("model.finished") == 3
        assert told.count("summary.finished") == 1
        assert told[-1] in ("run.completed", "run.incomplete")
        summed = sum(
            event["data"]["usage"]["total_tokens"]
            for event in events
            if event["type"] in ("model.finished", "summary.finished")
        )
        assert events[-1]["data"]["usage"]["total_tokens"] == summed == usage.total_tokens
        summary = next(event for event in events if event["type"] == "summary.finished")
        assert summary["data"]["chars"] == len(text)


@pytest.mark.parametrize("model", ["direct", "local/smollm2-135m"])
async def test_one_model_answers_under_its_own_name_and_that_of_a_combination(model: str) -> None:
    async with (
        antiphon(shipped()) as server,
        openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0) as client,
    ):
        answer = await client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": "Say hello."}], max_tokens=8, temperature=0
        )
        assert answer.model == model
        assert answer.choices[0].message.content
        assert answer.usage is not None
        assert answer.usage.completion_tokens <= 8
        assert (await client.models.retrieve(model)).id == model


async def test_what_the_embedded_model_cannot_do_is_refused_in_words() -> None:
    image = {"type": "image_url", "image_url": {"url": "https://example.com/cat.png"}}
    async with (
        antiphon(shipped()) as server,
        openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0) as client,
    ):
        with pytest.raises(openai.BadRequestError) as refused:
            await client.chat.completions.create(
                model="direct",
                messages=[{"role": "user", "content": [{"type": "text", "text": "What?"}, image]}],  # type: ignore[list-item, misc]
            )
        assert refused.value.code == "unsupported_image"
        with pytest.raises(openai.BadRequestError) as too_long:
            await client.chat.completions.create(
                model="direct", messages=[{"role": "user", "content": "word " * 20_000}]
            )
        assert too_long.value.code == "context_length_exceeded"
