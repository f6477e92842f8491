"""The official client's Responses API against the running server, before every kind of upstream."""

from __future__ import annotations

import json
from typing import Any

import openai
import pydantic
import pytest

from server.simulators.script import ToolCall
from tests.behaviour.asking import post
from tests.behaviour.kinds import KINDS
from tests.behaviour.responses_client import asking, response

PIXEL = (
    "data:image/png;base64,"
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
TOOLS: list[Any] = [
    {"type": "function", "name": name, "parameters": {"type": "object"}, "strict": False}
    for name in ("get_weather", "now")
]
CALLS = (ToolCall(arguments='{"city": "Paris – 巴黎 🎶"}'), ToolCall(name="now", arguments='{"zone": 1}'))


@pytest.mark.parametrize("name", KINDS)
async def test_a_stream_and_a_plain_response_say_the_same(name: str) -> None:
    async with asking(name) as (client, kind):
        for _ in range(2):
            kind.say(text="one 二 🎶 three")
        asked: Any = {"model": kind.model, "input": "hello", "instructions": "Be brief."}
        whole = await client.responses.create(**asked)
        assert (whole.object, whole.status, whole.model) == ("response", "completed", kind.model)
        assert whole.output_text == "one 二 🎶 three"
        assert whole.instructions == "Be brief."
        assert whole.usage is not None
        assert whole.usage.input_tokens > 0
        assert whole._request_id
        numbers, kinds = [], []
        async with client.responses.stream(**asked) as stream:
            async for event in stream:
                numbers.append(event.sequence_number)
                kinds.append(event.type)
            final = await stream.get_final_response()
        assert numbers == list(range(len(numbers)))
        assert [kind for kind in kinds if "delta" not in kind] == [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.content_part.added",
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.completed",
        ]
        assert final.output_text == whole.output_text
        assert final.usage == whole.usage
        await kind.nothing_left()


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize("name", KINDS)
async def test_an_agents_loop_of_tools_closes(name: str, stored: bool, stream: bool) -> None:
    calls = CALLS[:1] if name == "spark" else CALLS  # Spark calls one function at a time
    async with asking(name) as (client, kind):
        model = "spark-ultra" if name == "spark" else kind.model
        kind.say(text="" if name == "spark" else "I look.", tools=calls)
        asked: Any = {"model": model, "tools": TOOLS, "tool_choice": "auto", "store": stored}
        first = await response(client, stream, input="hello", **asked)
        used = [item for item in first.output if item.type == "function_call"]
        assert [(call.name, json.loads(call.arguments)) for call in used] == [
            (call.name, json.loads(call.arguments)) for call in calls
        ]
        outputs = [
            {"type": "function_call_output", "call_id": call.call_id, "output": "fine"} for call in used
        ]
        kind.say(text="Sunny.")
        if stored:
            last = await response(client, stream, input=outputs, previous_response_id=first.id, **asked)
        else:
            said = [item.model_dump(exclude_none=True) for item in first.output]
            last = await response(
                client, stream, input=[{"role": "user", "content": "hello"}, *said, *outputs], **asked
            )
        assert last.output_text == "Sunny."
        if name == "openai":
            sent = kind.sent()["messages"]
            assert [turn["role"] for turn in sent] == ["user", "assistant", "tool", "tool"]
            assert sent[1]["content"] == "I look."
            assert [turn["tool_call_id"] for turn in sent[2:]] == [call.call_id for call in used]
        await kind.nothing_left()


@pytest.mark.parametrize("stored", [True, False])
async def test_signed_thoughts_go_out_and_come_back_unchanged(stored: bool) -> None:
    async with asking("anthropic") as (client, kind):
        kind.say(reasoning=("which ", "city?"), text="I look.", tools=CALLS[:1])
        asked: Any = {"model": "claude-x", "tools": TOOLS, "store": stored}
        first = await response(client, True, input="hello", **asked)
        assert [item.type for item in first.output] == ["reasoning", "message", "function_call"]
        assert first.output[0].content[0].text == "which city?"
        back: list[Any] = [
            {"type": "function_call_output", "call_id": first.output[2].call_id, "output": "fine"}
        ]
        if stored:
            asked["previous_response_id"] = first.id
        else:
            said = [item.model_dump(exclude_none=True) for item in first.output]
            back = [{"role": "user", "content": "hello"}, *said, *back]
        await response(client, False, input=back, **asked)
        thought = {"type": "thinking", "thinking": "which city?", "signature": "EqSim=="}
        assert kind.sent()["messages"][1]["content"][0] == thought


async def test_thoughts_are_told_in_full_or_as_their_summary() -> None:
    async with asking("openai") as (client, kind):
        for _ in range(3):
            kind.say(reasoning=("a", "b"), text="c")
        full = await response(client, False, model="m", input="hi")
        assert full.output[0].content[0].text == "ab"
        assert full.output[0].summary == []
        brief: Any = {"model": "m", "input": "hi", "reasoning": {"effort": "low", "summary": "auto"}}
        told = await response(client, False, **brief)
        assert told.output[0].summary[0].text == "ab"
        assert kind.sent()["reasoning_effort"] == "low"
        async with client.responses.stream(**brief) as stream:
            kinds = [event.type async for event in stream]
        assert kinds[2:9] == [
            "response.output_item.added",
            "response.reasoning_summary_part.added",
            "response.reasoning_summary_text.delta",
            "response.reasoning_summary_text.delta",
            "response.reasoning_summary_text.done",
            "response.reasoning_summary_part.done",
            "response.output_item.done",
        ]


@pytest.mark.parametrize("name", ["openai", "anthropic", "gemini", "panel"])
async def test_a_picture_is_seen(name: str) -> None:
    content: Any = [
        {"type": "input_text", "text": "What is it?"},
        {"type": "input_image", "image_url": PIXEL},
    ]
    async with asking(name) as (client, kind):
        kind.say(text="A pixel.")
        answer = await client.responses.create(model=kind.model, input=[{"role": "user", "content": content}])
        assert answer.output_text == "A pixel."


async def test_an_answer_under_a_schema_is_parsed_by_the_client() -> None:
    class Weather(pydantic.BaseModel):
        city: str

    async with asking("openai") as (client, kind):
        kind.say(text='{"city": "Paris"}')
        parsed = await client.responses.parse(model="m", input="hi", text_format=Weather)
        assert parsed.output_parsed == Weather(city="Paris")
        assert kind.sent()["response_format"]["json_schema"]["name"] == "Weather"


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("finish", "reason"), [("length", "max_output_tokens"), ("content_filter", "content_filter")]
)
async def test_an_answer_that_was_stopped_is_incomplete(finish: str, reason: str, stream: bool) -> None:
    async with asking("openai") as (client, kind):
        kind.say(text="half of", finish=finish)
        if stream:
            events = [e async for e in await client.responses.create(model="m", input="hi", stream=True)]
            assert events[-1].type == "response.incomplete"
            answer = events[-1].response
        else:
            answer = await client.responses.create(model="m", input="hi")
        assert answer.status == "incomplete"
        assert answer.incomplete_details is not None
        assert answer.incomplete_details.reason == reason
        assert answer.output_text == "half of"
        assert answer.output[0].status == "incomplete"  # type: ignore[union-attr]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("fields", "kind_of_error"),
    [
        ({"status": 400}, openai.BadRequestError),
        ({"status": 401}, openai.InternalServerError),
        ({"status": 429, "retry_after": 1}, openai.RateLimitError),
        ({"status": 500}, openai.InternalServerError),
    ],
)
async def test_each_failure_is_the_exception_of_its_status(
    fields: dict[str, Any], kind_of_error: type[openai.APIStatusError], stream: bool
) -> None:
    async with asking("openai") as (client, kind):
        for _ in range(3):
            kind.say(**fields)
        with pytest.raises(kind_of_error):
            await response(client, stream, model="m", input="hi")


@pytest.mark.parametrize("name", KINDS)
async def test_a_cut_stream_never_looks_whole(name: str) -> None:
    async with asking(name) as (client, kind):
        kind.say(text="one two three four", chunks=4, cut_after=2)
        events = [e async for e in await client.responses.create(model=kind.model, input="hi", stream=True)]
        last: Any = events[-1]
        assert last.type == "response.failed"
        assert (last.response.status, last.response.usage) == ("failed", None)
        assert last.response.error.code == "upstream_cut"
        assert last.response.output[0].status == "incomplete"
        assert not any(event.type in ("response.completed", "response.output_item.done") for event in events)
        kind.say(text="one two three four", chunks=4, cut_after=2)
        with pytest.raises(RuntimeError, match=r"response\.completed"):
            await response(client, True, model=kind.model, input="hi")
        await kind.nothing_left()


@pytest.mark.parametrize("name", KINDS)
async def test_a_client_that_leaves_ends_every_call(name: str) -> None:
    async with asking(name) as (client, kind):
        kind.say(text="one two three four", chunks=4, stall_after=2)
        async with client.responses.stream(model=kind.model, input="hi") as stream:
            async for event in stream:
                if event.type == "response.output_text.delta":
                    break
        await kind.nothing_left()


@pytest.mark.parametrize("form", ["streamed", "interleaved", "whole"])
async def test_pieces_of_several_calls_stay_apart_however_they_come(form: str) -> None:
    async with asking("openai") as (client, kind):
        kind.say(tools=CALLS, tool_form=form, tool_pieces=5)
        answer = await response(client, True, model="m", input="hi", tools=TOOLS)
        assert [json.loads(item.arguments) for item in answer.output if item.type == "function_call"] == [
            json.loads(call.arguments) for call in CALLS
        ]


async def test_fields_that_nobody_here_knows_reach_the_model() -> None:
    async with asking("openai") as (client, kind):
        await client.responses.create(
            model="m",
            input="hi",
            max_output_tokens=9,
            user="u",
            extra_body={"enable_thinking": True, "zero": 0},
        )
        sent = kind.sent()
        assert (sent["enable_thinking"], sent["zero"], sent["max_tokens"], sent["user"]) == (True, 0, 9, "u")
        assert not {"input", "store", "include"} & sent.keys()


async def test_what_cannot_be_had_is_a_400_that_names_it() -> None:
    async with asking("openai") as (_client, kind):
        for fields, param in (
            ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
            ({"conversation": "conv_1"}, "conversation"),
            ({"include": ["message.output_text.logprobs"]}, "top_logprobs"),
            ({"input": [{"type": "web_search_call", "id": "ws_1"}]}, "input[0].type"),
            ({"input": [{"type": "function_call_output", "call_id": "x", "output": ""}]}, "input[0].call_id"),
        ):
            answer = await post(kind.server, {"model": "m", "input": "hi", **fields}, path="/v1/responses")
            assert (answer.status, answer.json()["error"]["param"]) == (400, param)
        assert not kind.sim.requests


@pytest.mark.parametrize("stream", [True, False])
async def test_what_gemini_signs_comes_back_to_it(stream: bool) -> None:
    async with asking("gemini") as (client, kind):
        kind.say(tools=CALLS)
        asked: Any = {"model": kind.model, "tools": TOOLS}
        first = await response(client, stream, input="hello", **asked)
        outputs: list[Any] = [
            {"type": "function_call_output", "call_id": item.call_id, "output": "fine"}
            for item in first.output
            if item.type == "function_call"
        ]
        await response(client, stream, input=outputs, previous_response_id=first.id, **asked)
        said = kind.sent()["contents"][1]["parts"]
        assert said[0]["functionCall"]["name"] == "get_weather"
        assert said[0]["thoughtSignature"] == kind.script().signature  # type: ignore[attr-defined]
