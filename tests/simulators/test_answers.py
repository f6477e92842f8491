"""From a script and what was asked to status, headers and body; asked over HTTP as a client does."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import pytest

from server.simulators.openai import OpenAISimulator
from server.simulators.script import Script
from tests.raw_http import Answer, connect
from tests.simulators.asking import answer, events, get, post


async def send(sim: OpenAISimulator, data: bytes) -> Answer:
    async with connect(sim.host, sim.port) as client:
        await client.send(data)
        return await client.answer()


@pytest.mark.parametrize(
    ("script", "stream", "status", "media"),
    [
        (Script(), True, 200, "text/event-stream"),
        (Script(), False, 200, "application/json"),
        (Script(answer_as="json"), True, 200, "application/json"),
        (Script(answer_as="sse"), False, 200, "text/event-stream"),
        (Script(status=503), True, 503, "application/json"),
        (Script(status=503, error_form="html"), True, 503, "text/html"),
        (Script(error_after=0, answer_as="json"), True, 200, "application/json"),
        (Script(redirect="http://127.0.0.1:1/"), False, 307, "application/json"),
        (Script(redirect="http://127.0.0.1:1/", status=301), False, 301, "application/json"),
        (Script(body="as it is"), False, 200, "application/json"),
        (Script(body="as it is"), True, 200, "text/event-stream"),
        (Script(content_type="text/plain"), True, 200, "text/plain"),
    ],
)
async def test_a_script_decides_on_status_and_type(
    sim: OpenAISimulator, script: Script, stream: bool, status: int, media: str
) -> None:
    told = await answer(sim, script, stream=stream)
    assert (told.status, told.headers["content-type"].partition(";")[0]) == (status, media)
    if script.redirect:
        assert told.headers["location"] == script.redirect
    if script.body:
        assert told.body == b"as it is"


async def test_every_answer_has_the_headers_that_openai_sends(sim: OpenAISimulator) -> None:
    first, second = await answer(sim), await answer(sim)
    assert (first.headers["x-request-id"], second.headers["x-request-id"]) == ("req_sim1", "req_sim2")
    assert first.headers["openai-version"]
    assert first.headers["cache-control"] == "no-cache"
    assert "cache-control" not in (await answer(sim, stream=False)).headers


async def test_streamed_or_whole_a_script_says_the_same(sim: OpenAISimulator) -> None:
    script = Script(pieces=("one ", "two"))
    whole = (await answer(sim, script, stream=False)).json()
    told: list[Any] = events((await answer(sim, script)).body)
    text = "".join(
        choice["delta"].get("content") or "" for event in told[:-1] for choice in event.get("choices", ())
    )
    assert text == whole["choices"][0]["message"]["content"] == "one two"
    assert told[-1] == "[DONE]"


async def test_models_are_listed_and_told_one_by_one(sim: OpenAISimulator) -> None:
    listed = (await send(sim, get("/v1/models"))).json()
    assert listed["object"] == "list"
    first = listed["data"][0]
    assert (await send(sim, get(f"/v1/models/{first['id']}"))).json() == first
    unknown = await send(sim, get("/v1/models/nobody"))
    assert (unknown.status, unknown.json()["error"]["code"]) == (404, "model_not_found")


def embed(**fields: Any) -> bytes:
    return post(json.dumps({"model": "e", **fields}).encode(), "/v1/embeddings")


async def test_equal_texts_have_equal_vectors_and_others_others(sim: OpenAISimulator) -> None:
    told = (await send(sim, embed(input=["a", "b", "a"], dimensions=16))).json()
    first, second, third = (one["embedding"] for one in told["data"])
    assert first == third != second
    assert len(first) == 16
    assert [one["index"] for one in told["data"]] == [0, 1, 2]
    assert told["usage"]["total_tokens"] == 3


async def test_a_vector_in_base64_is_the_same_vector(sim: OpenAISimulator) -> None:
    plain = (await send(sim, embed(input="a"))).json()["data"][0]["embedding"]
    packed = (await send(sim, embed(input="a", encoding_format="base64"))).json()["data"][0]["embedding"]
    assert list(struct.unpack(f"<{len(plain)}f", base64.b64decode(packed))) == plain


async def test_tokens_are_one_input_and_not_many(sim: OpenAISimulator) -> None:
    assert len((await send(sim, embed(input=[1, 2, 3]))).json()["data"]) == 1


@pytest.mark.parametrize(
    "fields", [{"input": ""}, {"input": []}, {"input": None}, {"model": "", "input": "a"}]
)
async def test_an_embedding_of_nothing_or_by_nobody_is_refused(
    sim: OpenAISimulator, fields: dict[str, Any]
) -> None:
    assert (await send(sim, embed(**fields))).status == 400
