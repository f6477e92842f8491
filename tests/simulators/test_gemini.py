"""The simulated Gemini: who may ask, what it says, and how it is told to."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from server.simulators.gemini import GeminiSimulator
from server.simulators.gemini_said import GeminiScript
from server.simulators.script import ToolCall

HEADERS = {"x-goog-api-key": "k"}


@pytest.fixture
async def sim() -> AsyncIterator[GeminiSimulator]:
    async with GeminiSimulator(api_key="k") as simulator:
        yield simulator


async def ask(
    sim: GeminiSimulator,
    method: str = "generateContent",
    text: str = "hello there",
    headers: dict[str, str] = HEADERS,
) -> tuple[int, bytes]:
    body = {"contents": [{"role": "user", "parts": [{"text": text}]}]}
    url = f"{sim.url}/v1beta/models/gemini-sim:{method}"
    async with aiohttp.ClientSession() as client, client.post(url, json=body, headers=headers) as response:
        return response.status, await response.read()


def events_of(body: bytes) -> list[dict[str, Any]]:
    """The events' data; each ends as the service ends it."""
    assert body.endswith(b"\r\n\r\n")
    return [json.loads(event.removeprefix("data: ")) for event in body.decode().split("\r\n\r\n")[:-1]]


def parts_of(answer: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = answer["candidates"][0]["content"]["parts"]
    return found


async def test_it_answers_with_candidates(sim: GeminiSimulator) -> None:
    status, body = await ask(sim)
    answer = json.loads(body)
    assert (status, parts_of(answer)) == (200, [{"text": "You said: hello there"}])
    assert answer["candidates"][0]["finishReason"] == "STOP"
    assert answer["usageMetadata"] == {
        "promptTokenCount": 2,
        "candidatesTokenCount": 4,
        "totalTokenCount": 6,
    }


async def test_a_stream_is_whole_answers_with_cumulative_usage(sim: GeminiSimulator) -> None:
    tools = (ToolCall(arguments='{"city": "Paris"}'), ToolCall(name="now", arguments="{}"))
    sim.script(GeminiScript(text="Good morning", reasoning=("hm",), tools=tools, cached=3))
    _, body = await ask(sim, "streamGenerateContent?alt=sse")
    thought, *words, calls, last = events_of(body)
    assert parts_of(thought) == [{"text": "hm", "thought": True}]
    assert [parts_of(word) for word in words] == [[{"text": "Good"}], [{"text": " morning"}]]
    assert parts_of(calls) == [
        {"functionCall": {"name": "get_weather", "args": {"city": "Paris"}}, "thoughtSignature": "EjSim=="},
        {"functionCall": {"name": "now", "args": {}}},
    ]
    assert last["candidates"][0]["finishReason"] == "STOP"
    counted = [event["usageMetadata"]["totalTokenCount"] for event in (thought, *words, calls, last)]
    assert counted == [6, 7, 8, 9, 9]
    assert last["usageMetadata"]["thoughtsTokenCount"] == 1
    assert last["usageMetadata"]["cachedContentTokenCount"] == 3


async def test_without_alt_sse_a_stream_is_an_array_and_so_is_its_error(sim: GeminiSimulator) -> None:
    sim.script(
        GeminiScript(text="Good morning"), GeminiScript(status=503), GeminiScript(chunks=3, error_after=1)
    )
    _, body = await ask(sim, "streamGenerateContent")
    assert [parts_of(one)[0]["text"] for one in json.loads(body)] == ["Good", " morning", ""]
    status, body = await ask(sim, "streamGenerateContent")
    assert (status, json.loads(body)[0]["error"]["status"]) == (503, "UNAVAILABLE")
    _, body = await ask(sim, "streamGenerateContent")
    assert json.loads(body)[-1]["error"]["code"] == 503


async def test_a_prompt_that_is_blocked_is_no_error(sim: GeminiSimulator) -> None:
    sim.script(GeminiScript(block="SAFETY"), times=2)
    status, body = await ask(sim)
    assert (status, json.loads(body)["promptFeedback"]) == (200, {"blockReason": "SAFETY"})
    (event,) = events_of((await ask(sim, "streamGenerateContent?alt=sse"))[1])
    assert "candidates" not in event


async def test_errors_have_the_vendors_shape_and_details(sim: GeminiSimulator) -> None:
    sim.script(GeminiScript(status=429, retry_delay="34s", error_reason="RATE_LIMIT_EXCEEDED"))
    status, body = await ask(sim)
    error = json.loads(body)["error"]
    assert (status, error["code"], error["status"]) == (429, 429, "RESOURCE_EXHAUSTED")
    kinds = [one["@type"].rpartition(".")[2] for one in error["details"]]
    assert kinds == ["ErrorInfo", "RetryInfo"]
    sim.script(GeminiScript(chunks=4, error_after=2))
    status, body = await ask(sim, "streamGenerateContent?alt=sse")
    assert (status, events_of(body)[-1]["error"]["status"]) == (200, "UNAVAILABLE")


async def test_who_brings_no_good_key_is_refused(sim: GeminiSimulator) -> None:
    status, body = await ask(sim, headers={})
    assert (status, json.loads(body)["error"]["status"]) == (403, "PERMISSION_DENIED")
    status, body = await ask(sim, headers={"x-goog-api-key": "other"})
    error = json.loads(body)["error"]
    assert (status, error["status"]) == (400, "INVALID_ARGUMENT")
    assert error["details"][0]["reason"] == "API_KEY_INVALID"
    assert (await ask(sim, "generateContent?key=k", headers={}))[0] == 200


async def test_it_is_told_by_a_line_in_the_message_and_tells_no_key(sim: GeminiSimulator) -> None:
    _, body = await ask(sim, text='sim: {"text": "Bonjour", "text_signature": "T=="}')
    assert parts_of(json.loads(body)) == [{"text": "Bonjour"}, {"text": "", "thoughtSignature": "T=="}]
    assert (await ask(sim, text='sim: {"colour": 1}'))[0] == 400
    async with aiohttp.ClientSession() as client, client.get(f"{sim.url}/sim/requests") as response:
        (first, _) = await response.json()
    assert {name.lower(): value for name, value in first["headers"]}["x-goog-api-key"] != "k"


async def test_candidates_come_side_by_side(sim: GeminiSimulator) -> None:
    sim.script(GeminiScript(text="Hi", n=2, finish="length", call_ids=True, tools=(ToolCall(),)))
    _, body = await ask(sim)
    answer = json.loads(body)
    assert [one["index"] for one in answer["candidates"]] == [0, 1]
    assert answer["candidates"][1]["finishReason"] == "MAX_TOKENS"
    assert parts_of(answer)[1]["functionCall"]["id"] == "sim11"


async def test_it_lists_its_models_and_knows_no_other_path(sim: GeminiSimulator) -> None:
    async with aiohttp.ClientSession(headers=HEADERS) as client:
        async with client.get(f"{sim.url}/v1beta/models") as response:
            (model,) = (await response.json())["models"]
        assert model["name"] == "models/gemini-sim"
        for path in ("models/gemini-sim:generateContent", "models/gemini-sim"):
            async with client.get(f"{sim.url}/v1beta/{path}") as response:
                assert (await response.json())["error"]["status"] == "NOT_FOUND"


async def test_embeddings_and_their_scripts(sim: GeminiSimulator) -> None:
    one = {"model": "models/e", "content": {"parts": [{"text": "one two"}]}}
    sim.script(GeminiScript(status=429), GeminiScript(body="{}"), route="embed")
    told = []
    async with aiohttp.ClientSession(headers=HEADERS) as client:
        for _ in range(3):
            url = f"{sim.url}/v1beta/models/e:batchEmbedContents"
            async with client.post(url, json={"requests": [one]}) as response:
                told.append((response.status, await response.json()))
    assert [status for status, _ in told] == [429, 200, 200]
    assert len(told[2][1]["embeddings"][0]["values"]) == 8
