"""The Azure simulator: its doors, its filter, its words of refusal."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
from aiohttp import ClientSession

from server.simulators.azure import AzureScript, AzureSimulator

CLASSIC = "/openai/deployments/my-4o/chat/completions?api-version=2024-10-21"
V1 = "/openai/v1/chat/completions"
CHAT = {"model": "my-4o", "messages": [{"role": "user", "content": "Hi"}]}


@pytest.fixture
async def sim() -> AsyncIterator[AzureSimulator]:
    async with AzureSimulator(api_key="k", token="t", deployments=("my-4o",)) as simulator:
        yield simulator


async def ask(
    sim: AzureSimulator, path: str = V1, *, key: dict[str, str] | None = None, **fields: Any
) -> tuple[int, Any]:
    headers = {"api-key": "k"} if key is None else key
    async with (
        ClientSession() as session,
        session.post(sim.url + path, json={**CHAT, **fields}, headers=headers) as answer,
    ):
        body = await answer.read()
    if b"data: " not in body[:10]:
        return answer.status, orjson.loads(body)
    events = [line.removeprefix(b"data: ") for line in body.split(b"\n\n") if line]
    return answer.status, [orjson.loads(event) for event in events if event != b"[DONE]"]


@pytest.mark.parametrize("path", [CLASSIC, V1])
async def test_both_doors_answer(sim: AzureSimulator, path: str) -> None:
    status, body = await ask(sim, path)
    assert (status, body["choices"][0]["message"]["content"]) == (200, "You said: Hi")
    assert body["choices"][0]["content_filter_results"]["hate"] == {"filtered": False, "severity": "safe"}
    assert sim.requests[-1].model == "my-4o"


@pytest.mark.parametrize(
    ("path", "key", "fields", "status", "code"),
    [
        (CLASSIC.partition("?")[0], None, {}, 404, "404"),
        ("/v1/chat/completions", None, {}, 404, "404"),
        (V1, {"api-key": "x"}, {}, 401, "401"),
        (V1, {}, {}, 401, "401"),
        (V1, {"Authorization": "Bearer x"}, {}, 401, "401"),
        (V1, None, {"model": "other"}, 404, "DeploymentNotFound"),
        (CLASSIC.replace("my-4o", "other"), None, {}, 404, "DeploymentNotFound"),
        (CLASSIC.replace("2024-10-21", "2023-05-15"), None, {"stream_options": {}}, 400, None),
    ],
)
async def test_what_azure_refuses(
    sim: AzureSimulator, path: str, key: dict[str, str] | None, fields: Any, status: int, code: str | None
) -> None:
    told, body = await ask(sim, path, key=key, **fields)
    assert (told, body["error"]["code"]) == (status, code)


async def test_a_token_opens_too(sim: AzureSimulator) -> None:
    assert (await ask(sim, key={"Authorization": "Bearer t"}))[0] == 200


async def test_a_filtered_prompt_is_a_400_that_tells_why(sim: AzureSimulator) -> None:
    sim.script(AzureScript(filtered="prompt"))
    status, body = await ask(sim)
    assert (status, body["error"]["code"]) == (400, "content_filter")
    assert body["error"]["innererror"]["code"] == "ResponsibleAIPolicyViolation"


async def test_a_stream_begins_with_the_judgement_of_the_prompt(sim: AzureSimulator) -> None:
    sim.script(AzureScript(chunks=2, filtered="answer"), AzureScript(filter="annotations"))
    _, events = await ask(sim, stream=True)
    assert (events[0]["choices"], events[0]["id"], events[0]["created"]) == ([], "", 0)
    assert events[0]["prompt_filter_results"][0]["prompt_index"] == 0
    assert all("content_filter_results" in event["choices"][0] for event in events[1:])
    assert events[-1]["choices"][0]["finish_reason"] == "content_filter"
    _, events = await ask(sim, stream=True)
    assert "prompt_annotations" in events[0]


async def test_the_asynchronous_filter_judges_behind_the_text(sim: AzureSimulator) -> None:
    sim.script(AzureScript(pieces=("ab", "c"), filter="async"))
    _, events = await ask(sim, stream=True)
    late = [
        event["choices"][0] for event in events if event["choices"][:1] and "delta" not in event["choices"][0]
    ]
    assert [one["content_filter_offsets"]["check_offset"] for one in late] == [2, 3, 3]


async def test_without_a_filter_it_is_openais_stream(sim: AzureSimulator) -> None:
    sim.script(AzureScript(filter="none", chunks=1), AzureScript(filter="none"))
    _, events = await ask(sim, stream=True)
    assert events[0]["choices"][0]["delta"]["role"] == "assistant"
    assert "prompt_filter_results" not in (await ask(sim))[1]


async def test_what_is_no_chat_is_refused(sim: AzureSimulator) -> None:
    async with ClientSession(headers={"api-key": "k"}) as session:
        for path in (CLASSIC, V1):
            async with session.post(sim.url + path, data=b"[nonsense") as answer:
                assert answer.status == 400
            async with session.get(sim.url + path) as answer:
                assert answer.status == 405


@pytest.mark.parametrize("door", ["/openai/v1/{}", "/openai/deployments/my-4o/{}?api-version=2024-10-21"])
async def test_both_doors_have_more_than_chats(sim: AzureSimulator, door: str) -> None:
    headers = {"api-key": "k"}
    async with ClientSession(headers=headers) as session:
        body = {"model": "my-4o", "input": ["one two"], "dimensions": 3}
        async with session.post(sim.url + door.format("embeddings"), json=body) as answer:
            told = await answer.json()
            assert (len(told["data"][0]["embedding"]), told["usage"]["prompt_tokens"]) == (3, 2)
        body = {"model": "my-4o", "prompt": "a cat"}
        async with session.post(sim.url + door.format("images/generations"), json=body) as answer:
            assert (await answer.json())["data"]
        async with session.post(sim.url + door.format("rerank"), json=body) as answer:
            assert answer.status == 404
    assert {request.model for request in sim.requests} == {"my-4o", ""}


async def test_no_deployment_no_embeddings(sim: AzureSimulator) -> None:
    async with ClientSession(headers={"api-key": "k"}) as session:
        for what, body in (("embeddings", {"input": "a"}), ("images/generations", {"prompt": "a"})):
            wanted = {**body, "model": "other"}
            async with session.post(f"{sim.url}/openai/v1/{what}", json=wanted) as answer:
                assert (await answer.json())["error"]["code"] == "DeploymentNotFound"
