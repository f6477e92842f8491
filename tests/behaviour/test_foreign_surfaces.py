"""What is no chat, at vendors of other doors and dialects, by the official client."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import openai
import pytest

from server.settings import Channel, Settings
from server.simulators.answers import vector
from server.simulators.azure import AzureScript, AzureSimulator
from server.simulators.gemini import GeminiSimulator
from server.simulators.gemini_said import PIXEL, GeminiScript
from server.simulators.ollama import OllamaSimulator
from server.simulators.ollama_said import OllamaScript
from server.simulators.openai import OpenAISimulator
from tests.behaviour.asking import error_of, get, post
from tests.behaviour.running import QUIET, Antiphon, antiphon, channel

KINDS: dict[str, Any] = {"azure": AzureSimulator, "gemini": GeminiSimulator, "ollama": OllamaSimulator}
SCRIPTS: dict[str, Any] = {"azure": AzureScript, "gemini": GeminiScript, "ollama": OllamaScript}
ROUTES = {"azure": "embeddings", "gemini": "embed", "ollama": "embed"}
DOORS: tuple[dict[str, str], ...] = ({}, {"api_version": "2024-10-21"})
EMBED = "/v1/embeddings"

every_kind = pytest.mark.parametrize("kind", KINDS)


@asynccontextmanager
async def before(
    kind: str, *others: Channel, azure: dict[str, str] | None = None, **of_sim: Any
) -> AsyncIterator[tuple[Antiphon, Any, openai.AsyncOpenAI]]:
    """The server before one simulator of this kind, and a client of it."""
    async with KINDS[kind](**of_sim) as sim:
        settings = {"name": "c", "kind": kind, "base_url": sim.url, "api_key": "k-0123456789abcdef"}
        own = {"azure": azure} if azure else {}
        made = msgspec.convert({**settings, "models": {"m": {"model": "theirs"}}, **own}, Channel)
        async with (
            antiphon(Settings(channels=(made, *others), logging=QUIET)) as server,
            openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="k", max_retries=0) as client,
        ):
            yield server, sim, client


def queue(sim: Any, kind: str, **fields: Any) -> None:
    sim.script(SCRIPTS[kind](**fields), route=ROUTES[kind])


@every_kind
@pytest.mark.parametrize("form", ["float", "base64"])
async def test_embeddings_in_the_order_of_their_texts(kind: str, form: Any) -> None:
    texts = ["one two", "二 🎶 \u2028"]
    async with before(kind) as (_, sim, client):
        answer = await client.embeddings.create(model="m", input=texts, dimensions=5, encoding_format=form)
        unasked = await client.embeddings.create(model="m", input=texts)
        alone = await client.embeddings.create(model="m", input=texts[0], dimensions=5)
    assert (answer.model, answer.object) == ("m", "list")
    assert [one.index for one in answer.data] == [0, 1]
    assert [len(one.embedding) for one in unasked.data] == [8, 8]
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == 4
    if form == "float":
        assert alone.data[0].embedding == answer.data[0].embedding
        if kind != "azure":  # whose vectors are of the JSON of a text
            assert [one.embedding for one in answer.data] == [vector(text.encode(), 5) for text in texts]
    assert sim.requests[-1].model == "theirs"


@every_kind
async def test_the_runs_usage_is_what_the_vendor_counted(kind: str) -> None:
    async with before(kind) as (server, _, _):
        answer = await post(server, {"model": "m", "input": ["one two", "three"]}, path=EMBED)
        assert answer.json()["usage"] == {"prompt_tokens": 3, "total_tokens": 3}
        run = (await get(server, f"/v1/runs/{answer.headers['x-run-id']}")).json()
        assert run["usage"]["prompt_tokens"] == 3
        assert float(answer.headers["x-antiphon-overhead-ms"]) >= 0


@pytest.mark.parametrize("form", ["float", "base64"])
async def test_many_texts_go_to_gemini_in_several_requests_and_come_back_as_one_answer(form: Any) -> None:
    texts = [f"text {at}" for at in range(250)]
    async with before("gemini") as (server, sim, client):
        answer = await client.embeddings.create(model="m", input=texts, dimensions=3, encoding_format=form)
        raw = await post(server, {"model": "m", "input": texts[:101], "user": "u"}, path=EMBED)
        assert [len(one.json()["requests"]) for one in sim.requests] == [100, 100, 50, 100, 1]
    assert [one.index for one in answer.data] == list(range(250))
    assert (answer.model, answer.usage.prompt_tokens) == ("m", 500)
    if form == "float":
        assert [one.embedding for one in answer.data] == [vector(text.encode(), 3) for text in texts]
    assert raw.headers["x-antiphon-warnings"] == "user was left out"
    assert raw.json()["usage"] == {"prompt_tokens": 202, "total_tokens": 202}


async def test_a_part_of_many_texts_that_fails_fails_the_request() -> None:
    async with before("gemini") as (server, sim, _):
        queue(sim, "gemini")
        queue(sim, "gemini", status=400, error_message="odd")
        answer = await post(server, {"model": "m", "input": ["a"] * 101}, path=EMBED)
        error_of(answer, 400)
        assert len(sim.requests) == 2
        too_many = await post(server, {"model": "m", "input": ["a"] * 2049}, path=EMBED)
        assert error_of(too_many, 400)["param"] == "input"
        assert len(sim.requests) == 2


async def test_what_was_left_out_is_told() -> None:
    async with before("ollama") as (server, sim, _):
        answer = await post(server, {"model": "m", "input": "a", "user": "u"}, path=EMBED)
        assert answer.headers["x-antiphon-warnings"] == "user was left out"
        assert sim.requests[-1].json() == {"model": "theirs", "input": ["a"], "truncate": False}
    async with before("azure") as (server, sim, _):
        answer = await post(server, b'{"model": "m", "input": "a", "user" :"u"}', path=EMBED)
        assert "x-antiphon-warnings" not in answer.headers
        assert sim.requests[-1].body == b'{"model": "theirs", "input": "a", "user" :"u"}'


@pytest.mark.parametrize("kind", ["gemini", "ollama"])
async def test_tokens_in_place_of_texts_are_refused_before_anything_is_sent(kind: str) -> None:
    async with before(kind) as (_, sim, client):
        with pytest.raises(openai.BadRequestError) as raised:
            await client.embeddings.create(model="m", input=[[1, 2]])
        assert (raised.value.code, raised.value.param) == ("unsupported_parameter", "input")
        assert not sim.requests


async def test_a_text_that_is_too_long_for_an_ollama_is_refused_and_not_cut() -> None:
    async with before("ollama") as (_, sim, client):
        queue(sim, "ollama", context=2)
        with pytest.raises(openai.BadRequestError) as raised:
            await client.embeddings.create(model="m", input="one two three")
        assert raised.value.code == "context_length_exceeded"
        queue(sim, "ollama", context=2)
        await client.embeddings.create(model="m", input="one two three", extra_body={"truncate": True})


@every_kind
@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"status": 500}, 502, "upstream_error"),
        ({"status": 503}, 503, "overloaded"),
        ({"status": 429, "retry_after": 30}, 429, "rate_limit_exceeded"),
        ({"status": 401}, 502, "upstream_auth"),
        ({"status": 400, "error_message": "odd"}, 400, None),
        ({"body": "<html>"}, 502, "upstream_invalid"),
        ({"body": "{}"}, None, None),
    ],
)
async def test_failures_are_ours(kind: str, fields: dict[str, Any], status: int | None, code: str) -> None:
    async with before(kind) as (server, sim, _):
        for _ in range(2):
            queue(sim, kind, **fields)
        answer = await post(server, {"model": "m", "input": "a"}, path=EMBED)
        if status is None:  # of another dialect; of OpenAI's own it goes through as it came
            assert answer.status == (200 if kind == "azure" else 502)
            return
        told = error_of(answer, status)
        assert code is None or told["code"] == code


@every_kind
async def test_another_channel_is_asked_whatever_its_kind(kind: str) -> None:
    async with OpenAISimulator() as spare:
        second = channel(spare, "m", name="spare", priority=-1)
        async with before(kind, second) as (_, sim, client):
            queue(sim, kind, status=500)
            answer = await client.embeddings.create(model="m", input="a")
            assert len(answer.data[0].embedding) == 8
            assert len(spare.requests) == 1


@pytest.mark.parametrize(
    ("kind", "of_sim"), [("azure", {"deployments": ("x",)}), ("ollama", {"models": ("x",)})]
)
async def test_a_model_that_is_not_there_is_not_asked_for_twice(kind: str, of_sim: dict[str, Any]) -> None:
    async with before(kind, **of_sim) as (_, sim, client):
        with pytest.raises(openai.NotFoundError) as raised:
            await client.embeddings.create(model="m", input="a")
        assert raised.value.code == "model_not_found"
        assert len(sim.requests) == 1


@pytest.mark.parametrize("azure", DOORS, ids=["v1", "classic"])
async def test_audio_and_images_go_by_the_door_of_their_deployment(azure: dict[str, str]) -> None:
    async with before("azure", azure=azure) as (_, sim, client):
        heard = await client.audio.transcriptions.create(model="m", file=("a.wav", b"RIFF" + b"x" * 500_000))
        assert heard.text == "a.wav: 500004 bytes"
        spoken = await client.audio.speech.create(model="m", voice="alloy", input="one two")
        assert len(await spoken.aread()) > 1000
        drawn = await client.images.generate(model="m", prompt="a cat", response_format="b64_json")
        assert drawn.data
        assert drawn.data[0].b64_json
        await client.embeddings.create(model="m", input="a")
        names = ["audio/transcriptions", "audio/speech", "images/generations", "embeddings"]
        if azure:
            wanted = [f"/openai/deployments/theirs/{name}?api-version=2024-10-21" for name in names]
        else:
            wanted = [f"/openai/v1/{name}" for name in names]
        assert [request.path for request in sim.requests] == wanted
        assert {request.model for request in sim.requests} == {"theirs"}
        assert {request.header("api-key") for request in sim.requests} == {"k-0123456789abcdef"}


@pytest.mark.parametrize(
    ("kind", "path", "body"),
    [
        ("azure", "/v1/moderations", {"input": "a"}),
        ("azure", "/v1/rerank", {"query": "a", "documents": ["b"]}),
        ("gemini", "/v1/audio/speech", {"input": "a", "voice": "b"}),
        ("ollama", "/v1/images/generations", {"prompt": "a"}),
    ],
)
async def test_what_a_kind_does_not_have_is_refused_in_words(kind: str, path: str, body: Any) -> None:
    async with before(kind) as (server, sim, _):
        answer = await post(server, {"model": "m", **body}, path=path)
        assert error_of(answer, 400)["code"] == "surface_not_offered"
        assert not sim.requests


async def test_a_gemini_draws() -> None:
    async with before("gemini") as (server, sim, client):
        drawn = await client.images.generate(model="m", prompt="a cat", size="1024x1024")
        assert drawn.data
        assert drawn.data[0].b64_json == PIXEL
        assert drawn.usage is not None
        assert drawn.usage.input_tokens == 2
        assert sim.requests[-1].path == "/v1beta/models/theirs:generateContent"
        with pytest.raises(openai.BadRequestError) as raised:
            await client.images.generate(model="m", prompt="a cat", n=2)
        assert raised.value.param == "n"
        with pytest.raises(openai.BadRequestError) as unknown:
            await client.images.edit(model="m", image=("a.png", b"1"), prompt="b")
        assert unknown.value.code == "surface_not_offered"
        assert len(sim.requests) == 1
        sim.script(GeminiScript(draws=False, finish_reason="IMAGE_SAFETY", text=""))
        filtered = await post(server, {"model": "m", "prompt": "x"}, path="/v1/images/generations")
        assert error_of(filtered, 400)["code"] == "content_filter"
