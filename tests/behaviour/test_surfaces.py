"""The surfaces beside chats, asked by the official client and in bytes."""

from __future__ import annotations

import base64
import struct
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import openai
import pytest

from server.app_keys import ACCOUNTS, METRICS, RUNS
from server.settings import Access, AccessKey, Channel, ChannelModel, Combination, Routing, Server, Settings
from server.simulators.openai import OpenAISimulator
from server.simulators.script import Script
from tests.behaviour.asking import asked, assert_nothing_left, both, chat_request, error_of, get, post, until
from tests.behaviour.running import QUIET, Antiphon, ask, channel

Pair = tuple[Antiphon, OpenAISimulator]


def settings(sim: OpenAISimulator) -> Settings:
    vendor: dict[str, ChannelModel] = {
        "m": ChannelModel(model="theirs"),
        "only": ChannelModel(surfaces=("embeddings", "moderations", "images")),
    }
    talks = Channel(name="talks", kind="openai", base_url=sim.base_url, models=("t",), surfaces=("chat",))
    return Settings(
        channels=(
            Channel(name="sim", kind="openai", base_url=f"{sim.base_url}/chat/completions/", models=vendor),
            talks,
            channel(sim, "two", name="first", priority=1),
            channel(sim, "two", name="second"),
        ),
        combinations=(Combination(name="panel", strategy="direct", model="m"),),
        aliases={"other": "m"},
        logging=QUIET,
    )


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    async with both(settings) as (server, sim):
        yield server, sim


@asynccontextmanager
async def client_of(server: Antiphon, key: str = "k") -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        base_url=f"{server.url}/v1", api_key=key, max_retries=0, timeout=20
    ) as client:
        yield client


async def embed(server: Antiphon, body: bytes | Mapping[str, Any], *headers: str, path: str = "") -> Any:
    return await post(server, body, *headers, path=path or "/v1/embeddings")


async def test_embeddings_through_the_official_client(pair: Pair) -> None:
    server, sim = pair
    async with client_of(server) as client:
        answer = await client.embeddings.create(model="m", input=["one", "two"], dimensions=5)
    assert answer.model == "m"
    assert [len(one.embedding) for one in answer.data] == [5, 5]
    assert answer.usage.prompt_tokens == 2
    sent = sim.requests[-1].json()
    assert sent["model"] == "theirs"
    assert sent["encoding_format"] == "base64", "what the client asks for unasked"
    assert sim.requests[-1].path == "/v1/embeddings", "a base URL that names an endpoint is stripped of it"


async def test_an_embeddings_request_goes_out_byte_for_byte_but_for_the_model(pair: Pair) -> None:
    server, sim = pair
    body = b'{ "input" : [[1, 2.0, 12345678901234567890]],"model":"m" , "x":{"y":null}, "dimensions":3 }'
    answer = await embed(server, body)
    assert answer.status == 200
    assert sim.requests[-1].body == body.replace(b'"m"', b'"theirs"')
    assert sim.requests[-1].header("content-type") == "application/json"
    assert answer.headers["x-run-id"].startswith("run_")
    assert answer.headers["x-request-id"]
    assert float(answer.headers["x-antiphon-overhead-ms"]) >= 0


async def test_an_answer_comes_back_byte_for_byte_but_for_the_model(pair: Pair) -> None:
    server, sim = pair
    said = (
        '{"object":"list", "model" : "theirs","data":[ {"embedding":[1.0,1e-7], "model":"theirs"}],"z":1E400}'
    )
    sim.script(Script(body=said), route="embeddings")
    answer = await embed(server, {"model": "other", "input": "a"})
    assert answer.body.decode() == said.replace('"theirs"', '"other"', 1)


@pytest.mark.parametrize("path", ["/v1/embeddings", "/embeddings", "/embeddings/", "/v1/embeddings/"])
async def test_with_and_without_v1_and_a_slash(pair: Pair, path: str) -> None:
    assert (await embed(pair[0], {"model": "m", "input": "a"}, path=path)).status == 200


async def test_older_clients_name_the_model_in_the_path(pair: Pair) -> None:
    server, sim = pair
    answer = await embed(server, {"input": "a"}, path="/v1/engines/other/embeddings")
    assert answer.json()["model"] == "other"
    assert sim.requests[-1].json() == {"input": "a", "model": "theirs"}
    answer = await embed(server, {"input": "a", "model": "only"}, path="/engines/m/embeddings/")
    assert answer.json()["model"] == "only", "the body has the last word"
    assert error_of(await embed(server, {"input": "a"}, path="/v1/engines/nobody/embeddings"), 404)


async def test_a_default_for_unknown_names_is_a_combination_which_answers_chats_only() -> None:
    def lenient(sim: OpenAISimulator) -> Settings:
        panel = Combination(name="panel", strategy="direct", model="m")
        return Settings(
            channels=(channel(sim),),
            combinations=(panel,),
            default_combination="panel",
            unknown_model="default",
            routing=Routing(hedge_after_s=5),
            logging=QUIET,
        )

    async with both(lenient) as (server, sim):
        error = error_of(await embed(server, {"model": "nobody", "input": "a"}), 400)
        assert error["message"].startswith("panel is a combination")
        assert (await embed(server, {"model": "m", "input": "a"})).status == 200, "hedged models too"
        assert len(sim.requests) == 1


async def test_base64_is_what_the_floats_are(pair: Pair) -> None:
    server, _ = pair
    asked_for = {"model": "m", "input": "a", "dimensions": 4}
    floats = (await embed(server, asked_for)).json()["data"][0]["embedding"]
    packed = (await embed(server, {**asked_for, "encoding_format": "base64"})).json()["data"][0]["embedding"]
    assert list(struct.unpack("<4f", base64.b64decode(packed))) == floats


async def test_usage_attempts_and_the_run_are_told(pair: Pair) -> None:
    server, _ = pair
    answer = await embed(server, {"model": "m", "input": "three little words"})
    run = (await get(server, f"/v1/runs/{answer.headers['x-run-id']}")).json()
    assert (run["status"], run["model"], run["usage"]["prompt_tokens"]) == ("completed", "m", 3)
    server.app[ACCOUNTS].flush()
    metrics = (await get(server, "/metrics")).body.decode()
    assert 'route="/v1/embeddings"' in metrics
    assert server.app[METRICS].tokens["m", "prompt"] == 3


async def test_moderations_with_a_model_and_without_one(pair: Pair) -> None:
    server, sim = pair
    async with client_of(server) as client:
        named = await client.moderations.create(model="m", input="violence")
        unnamed = await client.moderations.create(input=["a", "hate"])
    assert (named.model, named.results[0].flagged) == ("m", True)
    assert (unnamed.model, [one.flagged for one in unnamed.results]) == ("only", [False, True])
    assert [one.json()["model"] for one in sim.requests] == ["theirs", "only"]


async def test_no_model_named_and_none_configured_for_it_is_told() -> None:
    def plain(sim: OpenAISimulator) -> Settings:
        return Settings(channels=(channel(sim),), logging=QUIET)

    async with both(plain) as (server, _):
        error = error_of(await post(server, {"input": "a"}, path="/v1/moderations"), 400)
        assert (error["code"], error["param"]) == ("missing_required_parameter", "model")


async def test_a_failed_channel_is_survived_by_another(pair: Pair) -> None:
    server, sim = pair
    sim.script(Script(status=500), route="embeddings")
    answer = await embed(server, {"model": "two", "input": "a"})
    assert answer.status == 200
    assert answer.headers["x-antiphon-attempts"] == "upstream_error, ok"
    assert sim.requests[0].body == sim.requests[1].body


@pytest.mark.parametrize(
    "script",
    [
        Script(cut_at_byte=30),
        Script(cut_at_byte=30, cut="rst"),
        Script(cut_head_at=0),
        Script(body="not json"),
        Script(body=""),
        Script(error_after=0, error_type="server_error"),
        Script(content_type="text/html", body="<html>a proxy's page</html>"),
    ],
)
async def test_a_bad_answer_is_survived_by_another_channel(pair: Pair, script: Script) -> None:
    server, sim = pair
    sim.script(script, route="embeddings")
    answer = await embed(server, {"model": "two", "input": "a"})
    assert answer.status == 200, answer.body
    assert len(sim.requests) == 2
    sim.script(*(script,) * 3, route="embeddings")
    assert (await embed(server, {"model": "m", "input": "a"})).status == 502


async def test_an_upstreams_400_keeps_its_words(pair: Pair) -> None:
    server, sim = pair
    answer = error_of(await embed(server, {"model": "m", "input": ""}), 400)
    assert answer["param"] == "input"
    assert len(sim.requests) == 1


async def test_a_combination_answers_chats_only(pair: Pair) -> None:
    error = error_of(await embed(pair[0], {"model": "panel", "input": "a"}), 400)
    assert (error["code"], error["param"]) == ("surface_not_offered", "model")
    assert "panel is a combination" in error["message"]


async def test_a_model_that_does_not_offer_it_names_the_setting(pair: Pair) -> None:
    server, sim = pair
    error = error_of(await embed(server, {"model": "t", "input": "a"}), 400)
    assert error["code"] == "surface_not_offered"
    assert "add embeddings to surfaces of its channel (talks)" in error["message"]
    error = error_of(await post(server, ask("only")), 400)
    assert "only does not offer chats" in error["message"]
    error = error_of(await post(server, ask("only", stream=True)), 400)
    assert error["code"] == "surface_not_offered"
    assert not sim.requests


async def test_an_upstream_without_the_path_is_told_as_such_and_counts_as_no_fault(pair: Pair) -> None:
    server, sim = pair
    for _ in range(8):
        sim.script(Script(status=404, error_message="Invalid URL", error_code=""), route="embeddings")
        error = error_of(await embed(server, {"model": "m", "input": "a"}), 400)
        assert error["code"] == "surface_not_offered"
        assert "channel sim has no /embeddings" in error["message"]
    assert len(sim.requests) == 8
    assert (await post(server, ask())).status == 200, "the channel's chats go on"


async def test_what_is_wrong_with_a_request_is_told(pair: Pair) -> None:
    server, sim = pair
    for body, code in (
        (b"", "invalid_json"),
        (b"[]", "invalid_type"),
        (b'{"model":"m","model":"m"}', "duplicate_key"),
        (b'{"input":"a"}', "missing_required_parameter"),
        (b'{"model":7,"input":"a"}', "invalid_type"),
    ):
        assert error_of(await embed(server, body), 400)["code"] == code
    assert error_of(await embed(server, {"model": "nobody", "input": "a"}), 404)["code"] == "model_not_found"
    answer = await embed(server, b"--x", "Content-Type: multipart/form-data; boundary=x")
    assert error_of(answer, 400 if answer.status == 400 else 415)
    assert not sim.requests


async def test_keys_and_their_models_are_heeded() -> None:
    def closed(sim: OpenAISimulator) -> Settings:
        keys = (AccessKey(name="me", key="good"), AccessKey(name="few", key="few", models=("b",)))
        return Settings(channels=(channel(sim, "a", "b"),), access=Access(keys=keys), logging=QUIET)

    async with both(closed) as (server, sim):
        body = {"model": "a", "input": "x"}
        assert error_of(await embed(server, body), 401)["code"] == "missing_api_key"
        assert (
            error_of(await embed(server, body, "Authorization: Bearer bad"), 401)["code"] == "invalid_api_key"
        )
        assert (
            error_of(await embed(server, body, "Authorization: Bearer few"), 403)["code"]
            == "model_not_allowed"
        )
        assert not sim.requests
        assert (await embed(server, body, "Authorization: Bearer good")).status == 200


async def test_a_client_that_leaves_closes_the_upstreams_connection(pair: Pair) -> None:
    server, sim = pair
    sim.script(Script(silent=True), route="embeddings")
    request = chat_request({"model": "m", "input": "a"}, path="/v1/embeddings")
    async with asked(server, request):
        await sim.wait_until(lambda: sim.stats()["live"] == 1)
    await sim.wait_until(lambda: sim.stats()["live"] == 0)
    await until(lambda: not (server.app[RUNS].in_progress or server.app[METRICS].in_flight))
    assert_nothing_left(server)
    assert [one.outcome for one in sim.requests] == ["aborted"]
    (run,) = (await get(server, "/v1/runs")).json()["data"]
    assert run["status"] == "cancelled"


async def test_a_models_card_tells_the_surfaces_that_were_configured(pair: Pair) -> None:
    cards = {one["id"]: one for one in (await get(pair[0], "/v1/models")).json()["data"]}
    assert cards["only"]["surfaces"] == ["embeddings", "moderations", "images"]
    assert cards["t"]["surfaces"] == ["chat"]
    assert "surfaces" not in cards["m"]


async def test_speech_flows_while_it_comes(pair: Pair) -> None:
    server, sim = pair
    sim.script(Script(stall_after=1), route="audio/speech")
    body = {"model": "m", "voice": "alloy", "input": "one two three"}
    async with asked(server, chat_request(body, path="/v1/audio/speech")) as raw:
        head = await raw.head()
        assert (head.status, head.headers["content-type"]) == (200, "audio/mpeg")
        assert head.headers["x-run-id"].startswith("run_")
        assert (await raw.chunk()).startswith(b"ID3"), "the first sound, while the rest is not there yet"
    await sim.wait_until(lambda: sim.stats()["live"] == 0)
    await until(lambda: not (server.app[RUNS].in_progress or server.app[METRICS].in_flight))
    assert_nothing_left(server)
    assert [one.outcome for one in sim.requests] == ["aborted"]


async def test_speech_through_the_official_client(pair: Pair) -> None:
    server, sim = pair
    async with client_of(server) as client:
        create = client.audio.speech.with_streaming_response.create
        async with create(model="m", voice="alloy", input="one two three", response_format="wav") as answer:
            sound = b"".join([piece async for piece in answer.iter_bytes()])
    assert sound.startswith(b"RIFF")
    assert len(sound) == 44 + 3000
    assert sim.requests[-1].json()["model"] == "theirs"


async def test_a_cut_sound_never_looks_whole(pair: Pair) -> None:
    server, sim = pair
    body = {"model": "two", "voice": "alloy", "input": "one two three"}
    for cut in ("fin", "rst"):
        sim.script(Script(cut_after=1, cut=cut), route="audio/speech")
        async with asked(server, chat_request(body, path="/v1/audio/speech")) as raw:
            assert (await raw.head()).status == 200
            assert await raw.chunk()
            rest = await raw.rest()
            assert not rest.endswith(b"0\r\n\r\n")
    assert len(sim.requests) == 2, "nothing is glued on from another channel"
    (run, *_) = (await get(server, "/v1/runs")).json()["data"]
    assert run["status"] == "failed"


async def test_a_cut_stream_of_events_ends_with_an_error_event(pair: Pair) -> None:
    server, sim = pair
    sim.script(Script(cut_after=1), route="audio/speech")
    body = {"model": "m", "voice": "alloy", "input": "one two", "stream_format": "sse"}
    answer = await post(server, body, path="/v1/audio/speech")
    assert answer.headers["content-type"].startswith("text/event-stream")
    first, last, end = answer.body.split(b"\n\n")
    assert b"speech.audio.delta" in first
    assert b'"code":"upstream_cut"' in last
    assert end == b""


@pytest.mark.parametrize("script", [Script(status=503), Script(cut_after=0), Script(cut_head_at=0)])
async def test_speech_that_did_not_begin_comes_from_another_channel(pair: Pair, script: Script) -> None:
    server, sim = pair
    sim.script(script, route="audio/speech")
    body = {"model": "two", "voice": "alloy", "input": "one"}
    answer = await post(server, body, path="/audio/speech")
    assert answer.status == 200
    assert answer.body.startswith(b"ID3")
    assert len(sim.requests) == 2


async def test_images_and_their_events(pair: Pair) -> None:
    server, _ = pair
    async with client_of(server) as client:
        drawn = await client.images.generate(model="m", prompt="a cat", response_format="b64_json", n=2)
        unnamed = await client.images.generate(prompt="a cat")
        events = await client.images.generate(model="m", prompt="a cat", stream=True)
        kinds = [event.type async for event in events]
    assert [bool(one.b64_json) for one in drawn.data or []] == [True, True]
    assert unnamed.data
    assert kinds == ["image_generation.partial_image", "image_generation.completed"]


async def test_rerank(pair: Pair) -> None:
    server, sim = pair
    body = {"model": "m", "query": "red apple", "documents": ["a pear", "a red apple"]}
    answer = await post(server, body, path="/v1/rerank")
    assert [one["index"] for one in answer.json()["results"]] == [1, 0]
    assert answer.json()["model"] == "m"
    sim.script(Script(body='[{"index":0,"score":1}]'), route="rerank")
    assert (await post(server, body, path="/v1/rerank")).body == b'[{"index":0,"score":1}]'


async def test_a_reader_that_takes_nothing_is_cut_off() -> None:
    def hasty(sim: OpenAISimulator) -> Settings:
        return Settings(server=Server(write_timeout_s=0.2), channels=(channel(sim),), logging=QUIET)

    async with both(hasty) as (server, sim):
        sim.script(Script(chunks=400), route="audio/speech")
        body = {"model": "m", "voice": "alloy", "input": "word " * 40_000}
        async with asked(server, chat_request(body, path="/v1/audio/speech")):
            await sim.wait_until(lambda: sim.stats()["live"] == 1)
            await sim.wait_until(lambda: sim.stats()["live"] == 0)
        await until(lambda: not server.app[METRICS].in_flight)
        assert_nothing_left(server)
