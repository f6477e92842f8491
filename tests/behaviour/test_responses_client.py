"""The official client's Responses API against the running server, before every kind of upstream."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import openai
import pydantic
import pytest

from server.settings import Access, AccessKey, Responses
from server.simulators.script import ToolCall
from tests.behaviour.asking import post
from tests.behaviour.kinds import KINDS, Kind, kind_of

PIXEL = (
    "data:image/png;base64,"
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
TOOLS: list[Any] = [
    {"type": "function", "name": name, "parameters": {"type": "object"}, "strict": False}
    for name in ("get_weather", "now")
]
CALLS = (ToolCall(arguments='{"city": "Paris – 巴黎 🎶"}'), ToolCall(name="now", arguments='{"zone": 1}'))


@asynccontextmanager
async def asking(
    name: str, key: str = "unused", **more: Any
) -> AsyncIterator[tuple[openai.AsyncOpenAI, Kind]]:
    async with kind_of(name, **more) as kind:
        base = f"{kind.server.url}/v1"
        async with openai.AsyncOpenAI(base_url=base, api_key=key, max_retries=0, timeout=20) as client:
            yield client, kind


async def response(client: openai.AsyncOpenAI, stream: bool, **asked: Any) -> Any:
    """One response, streamed or not."""
    if not stream:
        return await client.responses.create(**asked)
    async with client.responses.stream(**asked) as events:
        return await events.get_final_response()


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
async def test_what_is_kept_can_be_fetched_gone_on_from_and_forgotten(stream: bool) -> None:
    async with asking("openai") as (client, kind):
        kind.say(text="Paris.")
        first = await response(client, stream, model="m", input="Where?", instructions="Be brief.")
        assert (await client.responses.retrieve(first.id)).output_text == "Paris."
        (asked,) = (await client.responses.input_items.list(first.id)).data
        assert asked.model_dump()["content"][0]["text"] == "Where?"
        second = await response(client, stream, model="m", input="And now?", previous_response_id=first.id)
        assert second.previous_response_id == first.id
        said = [(turn["role"], turn["content"]) for turn in kind.sent()["messages"]]
        assert said == [("user", "Where?"), ("assistant", "Paris."), ("user", "And now?")]
        reference: Any = {"type": "item_reference", "id": first.output[0].id}
        await response(client, stream, model="m", input=[reference, {"role": "user", "content": "So?"}])
        assert [turn["content"] for turn in kind.sent()["messages"]] == ["Paris.", "So?"]
        with pytest.raises(openai.BadRequestError):
            await client.responses.cancel(first.id)
        await client.responses.delete(first.id)
        with pytest.raises(openai.NotFoundError) as gone:
            await client.responses.retrieve(first.id)
        assert gone.value.code == "response_not_found"
        with pytest.raises(openai.BadRequestError) as lost:
            await response(client, stream, model="m", input="x", previous_response_id=first.id)
        assert lost.value.code == "previous_response_not_found"


async def test_what_is_not_to_be_stored_or_is_anothers_is_not_found() -> None:
    keys = Access(keys=(AccessKey(name="me", key="good"), AccessKey(name="other", key="else")))
    async with asking("openai", key="good", access=keys) as (client, _kind):
        mine = await client.responses.create(model="m", input="hi")
        other = client.with_options(api_key="else")
        with pytest.raises(openai.NotFoundError):
            await other.responses.retrieve(mine.id)
        with pytest.raises(openai.NotFoundError):
            await other.responses.delete(mine.id)
        with pytest.raises(openai.BadRequestError):
            await other.responses.create(model="m", input="hi", previous_response_id=mine.id)
        secret = await client.responses.create(model="m", input="hi", store=False)
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve(secret.id)


async def test_without_room_nothing_is_kept_and_everything_is_answered() -> None:
    async with asking("openai", responses=Responses(max_bytes=0)) as (client, _kind):
        answer = await client.responses.create(model="m", input="hi")
        assert answer.output_text
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve(answer.id)


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


@pytest.mark.parametrize("name", KINDS)
async def test_a_response_in_the_background_is_fetched_when_it_is_there(name: str) -> None:
    async with asking(name) as (client, kind):
        kind.say(text="one two")
        begun = await client.responses.create(model=kind.model, input="hi", background=True)
        assert (begun.status, begun.background, begun.output) == ("in_progress", True, [])
        await ended(client, begun.id)
        whole = await client.responses.retrieve(begun.id)
        assert (whole.status, whole.output_text) == ("completed", "one two")
        assert whole.usage is not None
        kind.say(text="three")
        after = await client.responses.create(model=kind.model, input="and?", previous_response_id=begun.id)
        assert after.output_text == "three"
        assert (await client.responses.cancel(begun.id)).status == "completed"
        await kind.nothing_left()


async def ended(client: openai.AsyncOpenAI, id: str) -> list[Any]:
    """All events of a response in the background."""
    return [event async for event in await client.responses.retrieve(id, stream=True)]


async def test_a_stream_in_the_background_is_taken_up_again_where_it_was_left() -> None:
    async with asking("openai") as (client, kind):
        kind.say(text="one two three four", chunks=4, stall_after=2, stall_ms=300)
        stream = await client.responses.create(model="m", input="hi", background=True, stream=True)
        seen = []
        async for event in stream:
            seen.append(event)
            if event.type == "response.output_text.delta":
                break
        await stream.close()
        id = seen[0].response.id  # type: ignore[union-attr]
        with pytest.raises(openai.ConflictError):
            await client.responses.create(model="m", input="hi", previous_response_id=id)
        more = await client.responses.retrieve(id, stream=True, starting_after=seen[-1].sequence_number)
        seen += [event async for event in more]
        assert [event.sequence_number for event in seen] == list(range(len(seen)))
        assert seen[-1].type == "response.completed"
        assert seen == await ended(client, id)
        assert not await rest(client, id, seen[-1].sequence_number)
        await kind.nothing_left()


async def rest(client: openai.AsyncOpenAI, id: str, place: int) -> list[Any]:
    return [event async for event in await client.responses.retrieve(id, stream=True, starting_after=place)]


async def test_a_response_in_the_background_is_cancelled_or_fails_as_it_stands() -> None:
    async with asking("openai") as (client, kind):
        kind.say(text="one two", chunks=2, stall_after=1)
        begun = await client.responses.create(model="m", input="hi", background=True, stream=True)
        id = (await anext(begun)).response.id  # type: ignore[union-attr]
        stopped = await client.responses.cancel(id)
        assert stopped.status == "cancelled"
        assert (await ended(client, id))[-1].response.status == "cancelled"
        assert kind.sim.requests[-1].aborted
        kind.say(status=400)
        refused = await client.responses.create(model="m", input="hi", background=True)
        await ended(client, refused.id)
        told = await client.responses.retrieve(refused.id)
        assert told.status == "failed"
        assert told.error is not None
        await kind.nothing_left()


async def test_what_is_not_in_the_background_is_not_streamed_again_and_one_in_it_is_stored() -> None:
    async with asking("openai") as (client, _kind):
        plain = await client.responses.create(model="m", input="hi")
        with pytest.raises(openai.BadRequestError):
            await client.responses.retrieve(plain.id, stream=True)
        with pytest.raises(openai.BadRequestError) as unstored:
            await client.responses.create(model="m", input="hi", background=True, store=False)
        assert unstored.value.param == "store"


async def test_what_is_deleted_while_it_is_under_way_does_not_come_back() -> None:
    async with asking("openai") as (client, kind):
        kind.say(text="one two", chunks=2, stall_after=1, stall_ms=200)
        stream = await client.responses.create(model="m", input="hi", background=True, stream=True)
        id = (await anext(stream)).response.id  # type: ignore[union-attr]
        await client.responses.delete(id)
        assert [event.type async for event in stream][-1] == "response.completed"
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve(id)


async def test_after_a_cut_one_goes_on_from_the_question() -> None:
    async with asking("openai") as (client, kind):
        kind.say(text="one two three", chunks=3, cut_after=2)
        events = [e async for e in await client.responses.create(model="m", input="hi", stream=True)]
        assert events[-1].type == "response.failed"
        await client.responses.create(model="m", input="go on", previous_response_id=events[-1].response.id)
        assert [turn["content"] for turn in kind.sent()["messages"]] == ["hi", "go on"]
