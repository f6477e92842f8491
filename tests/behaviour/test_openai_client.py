"""The official client against the running server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import openai
import pydantic
import pytest

from server.settings import Access, AccessKey, Combination, Member, Settings, Summary
from server.simulators.openai import OpenAISimulator
from server.simulators.script import Script, ToolCall
from tests.behaviour.asking import both
from tests.behaviour.running import QUIET, channel

Pair = tuple[openai.AsyncOpenAI, OpenAISimulator]
ASKED: list[Any] = [{"role": "user", "content": "hello"}]
TOOL: Any = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}


def settings(sim: OpenAISimulator) -> Settings:
    panel = Combination(name="panel", members=(Member(model="m"),) * 2, summary=Summary(model="m"), quorum=2)
    keys = (AccessKey(name="me", key="good"), AccessKey(name="other", key="narrow", models=("panel",)))
    return Settings(
        channels=(channel(sim, "m"),), combinations=(panel,), access=Access(keys=keys), logging=QUIET
    )


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    async with both(settings) as (server, sim):
        base = f"{server.url}/v1"
        async with openai.AsyncOpenAI(base_url=base, api_key="good", max_retries=0, timeout=20) as client:
            yield client, sim


@pytest.mark.parametrize("model", ["m", "panel"])
async def test_a_plain_answer(pair: Pair, model: str) -> None:
    client, _sim = pair
    answer = await client.chat.completions.create(model=model, messages=ASKED)
    assert answer.model == model
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer._request_id is not None
    assert answer._request_id.startswith("req_")


@pytest.mark.parametrize("model", ["m", "panel"])
async def test_a_stream_with_usage(pair: Pair, model: str) -> None:
    client, _sim = pair
    stream = await client.chat.completions.create(
        model=model, messages=ASKED, stream=True, stream_options={"include_usage": True}
    )
    text, reasons, usages = "", [], []
    async for chunk in stream:
        usages += [chunk.usage] if chunk.usage else []
        for choice in chunk.choices:
            text += choice.delta.content or ""
            reasons += [choice.finish_reason] if choice.finish_reason else []
    assert text
    assert reasons == ["stop"]
    assert len(usages) == 1


async def test_the_clients_own_stream_helper(pair: Pair) -> None:
    client, sim = pair
    sim.script(Script(text="one two three", tools=(ToolCall(), ToolCall(name="b")), logprobs=True))
    async with client.chat.completions.stream(model="m", messages=ASKED, tools=[TOOL]) as stream:
        async for _event in stream:
            pass
        whole = await stream.get_final_completion()
    assert whole.choices[0].message.content == "one two three"
    calls = whole.choices[0].message.tool_calls or []
    assert [call.function.name for call in calls] == ["get_weather", "b"]
    assert calls[0].function.arguments == ToolCall().arguments


async def test_a_round_trip_of_tools(pair: Pair) -> None:
    client, sim = pair
    sim.script(Script(tools=(ToolCall(arguments="{not json"),)))
    first = await client.chat.completions.create(model="m", messages=ASKED, tools=[TOOL], tool_choice="auto")
    assert first.choices[0].finish_reason == "tool_calls"
    (call,) = first.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert call.function.arguments == "{not json"
    follow: list[Any] = [
        *ASKED,
        first.choices[0].message,
        {"role": "tool", "tool_call_id": call.id, "content": "sunny"},
    ]
    await client.chat.completions.create(model="m", messages=follow, tools=[TOOL])
    sent = sim.requests[-1].json()["messages"]
    assert sent[1]["tool_calls"][0]["id"] == call.id
    assert sent[2] == {"role": "tool", "tool_call_id": call.id, "content": "sunny"}


async def test_fields_that_the_client_does_not_know_go_both_ways(pair: Pair) -> None:
    client, sim = pair
    sim.script(Script(extras=True, reasoning=("hm",)))
    answer = await client.chat.completions.create(
        model="m", messages=ASKED, extra_body={"thinking": {"type": "enabled"}, "zero": 0}
    )
    assert sim.requests[-1].json()["thinking"] == {"type": "enabled"}
    assert sim.requests[-1].json()["zero"] == 0
    assert answer.choices[0].message.model_extra is not None
    assert answer.choices[0].message.model_extra["reasoning_content"] == "hm"


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("script", "kind", "code"),
    [
        (Script(status=400, error_code="odd"), openai.BadRequestError, "odd"),
        (Script(status=422), openai.UnprocessableEntityError, None),
        (Script(status=429, retry_after=1), openai.RateLimitError, "rate_limit_exceeded"),
        (Script(status=401), openai.InternalServerError, "upstream_auth"),
        (Script(status=500), openai.InternalServerError, "upstream_error"),
        (Script(cut_head_at=0), openai.InternalServerError, None),
    ],
)
async def test_each_failure_is_the_exception_of_its_status(
    pair: Pair, script: Script, kind: type[openai.APIStatusError], code: str | None, stream: bool
) -> None:
    client, sim = pair
    sim.script(script, times=5)
    with pytest.raises(kind) as raised:
        await client.chat.completions.create(model="m", messages=ASKED, stream=stream)
    assert raised.value.request_id
    if code is not None:
        assert raised.value.code == code


async def test_our_own_refusals_are_exceptions_of_their_kind(pair: Pair) -> None:
    client, _sim = pair
    with pytest.raises(openai.NotFoundError) as unknown:
        await client.chat.completions.create(model="mm", messages=ASKED)
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as empty:
        await client.chat.completions.create(model="m", messages=[])
    assert empty.value.param == "messages"
    with pytest.raises(openai.AuthenticationError) as stranger:
        await client.with_options(api_key="bad").models.list()
    assert stranger.value.code == "invalid_api_key"
    with pytest.raises(openai.PermissionDeniedError) as narrow:
        await client.with_options(api_key="narrow").chat.completions.create(model="m", messages=ASKED)
    assert narrow.value.code == "model_not_allowed"


async def test_an_error_amid_a_stream_is_raised(pair: Pair) -> None:
    client, sim = pair
    sim.script(Script(chunks=9, cut_after=3))
    stream = await client.chat.completions.create(model="m", messages=ASKED, stream=True)
    text = ""

    async def read() -> None:
        nonlocal text
        async for chunk in stream:
            text += chunk.choices[0].delta.content or ""

    with pytest.raises(openai.APIError) as raised:
        await read()
    assert text == "word1 word2 word3"
    assert raised.value.code == "upstream_cut"


async def test_a_client_that_times_out_closes_the_upstream(pair: Pair) -> None:
    client, sim = pair
    for stream in (True, False):
        sim.script(Script(silent=True))
        with pytest.raises(openai.APITimeoutError):
            await client.with_options(timeout=0.3).chat.completions.create(
                model="m", messages=ASKED, stream=stream
            )
        await sim.wait_until(lambda: sim.stats()["live"] == 0)
        assert sim.requests[-1].aborted


async def test_a_client_that_closes_its_stream_closes_the_upstream(pair: Pair) -> None:
    client, sim = pair
    sim.script(Script(chunks=9, stall_after=2))
    stream = await client.chat.completions.create(model="m", messages=ASKED, stream=True)
    async for _chunk in stream:
        break
    await stream.close()
    await sim.wait_until(lambda: sim.requests[-1].aborted)


async def test_the_client_repeats_what_may_be_repeated_and_only_that(pair: Pair) -> None:
    client, sim = pair
    patient = client.with_options(max_retries=2)
    sim.script(Script(status=429, retry_after=0.05, retry_after_form="ms"), times=3)
    answer = await patient.chat.completions.create(model="m", messages=ASKED)
    assert answer.choices
    before = len(sim.requests)
    sim.script(Script(status=401), times=9)
    with pytest.raises(openai.InternalServerError):
        await patient.chat.completions.create(model="m", messages=ASKED)
    assert len(sim.requests) == before + 1, "a refused credential of ours is not asked with again"


class Person(pydantic.BaseModel):
    name: str
    age: int


@pytest.mark.parametrize("model", ["m", "panel"])
async def test_an_answer_of_a_declared_shape_is_parsed(pair: Pair, model: str) -> None:
    client, sim = pair
    for _call in range(3):  # two members and the summary
        sim.script(Script(text='{"name": "Ann", "age": 3}'))
    answer = await client.chat.completions.parse(model=model, messages=ASKED, response_format=Person)
    assert answer.choices[0].message.parsed == Person(name="Ann", age=3)


async def test_a_streamed_answer_of_a_declared_shape_is_parsed(pair: Pair) -> None:
    client, sim = pair
    sim.script(Script(text='{"name": "Ann", "age": 3}'))
    async with client.chat.completions.stream(model="m", messages=ASKED, response_format=Person) as stream:
        whole = await stream.get_final_completion()
    assert whole.choices[0].message.parsed == Person(name="Ann", age=3)


async def test_what_is_not_offered_fails_with_what_to_use_instead(pair: Pair) -> None:
    client, _sim = pair
    with pytest.raises(openai.NotFoundError, match="POST /v1/chat/completions"):
        await client.conversations.create()


async def test_models(pair: Pair) -> None:
    client, _sim = pair
    assert {model.id async for model in client.models.list()} == {"m", "panel"}
    assert (await client.models.retrieve("panel")).created > 0
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("nothing")


async def test_the_ids_of_request_and_run_are_in_the_raw_answer(pair: Pair) -> None:
    client, _sim = pair
    run_id = "run_" + "0123456789abcdef" * 2
    raw = await client.chat.completions.with_raw_response.create(
        model="m", messages=ASKED, extra_headers={"x-request-id": "mine-1", "x-run-id": run_id}
    )
    assert raw.headers["x-request-id"] == raw.request_id == "mine-1"
    assert raw.headers["x-run-id"] == run_id
