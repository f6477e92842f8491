"""Spark behind the whole server: answers like any other, failures with their status, mixed members."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from PIL import Image

from server.config import load
from server.settings import Channel, Combination, Member, Settings, Summary
from server.simulators.openai import OpenAISimulator
from server.simulators.script import Script as Answering
from server.simulators.spark import SparkSimulator
from server.spark_settings import Spark as SparkSettings
from tests.behaviour.asking import (
    asked,
    assert_nothing_left,
    both,
    chat_request,
    chunks_of,
    data_lines,
    error_of,
    get,
    post,
    text_of,
    until,
)
from tests.behaviour.running import QUIET, antiphon, ask, channel
from tests.raw_http import PATIENCE_S
from tests.upstreams.spark_server import SparkServer, error, frame, saying, spark_server, stalling

EXAMPLE = Path(__file__).parents[2] / "conf" / "examples" / "spark.yaml"


def spark_channel(spark: SparkServer, **more: Any) -> Channel:
    return Channel(
        name="spark",
        kind="spark",
        base_url=spark.base_url,
        app_id="appid123",
        api_key="the-api-key",
        api_secret="the-api-secret",
        models=("spark-max", "spark-lite"),
        **more,
    )


def serving(spark: SparkServer, **more: Any) -> Settings:
    return Settings(channels=(spark_channel(spark, **more),), logging=QUIET)


async def test_a_stream_and_a_plain_answer_say_the_same() -> None:
    async with spark_server() as spark, antiphon(serving(spark)) as server:
        streamed = await post(server, ask("spark-max", stream=True, stream_options={"include_usage": True}))
        chunks = chunks_of(streamed.body)
        plain = (await post(server, ask("spark-max"))).json()
        assert text_of(chunks) == plain["choices"][0]["message"]["content"] == "pong"
        assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
        assert chunks[-1]["usage"] == plain["usage"]
        assert plain["usage"] == {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
        assert plain["choices"][0]["finish_reason"] == "stop"
        assert {chunk["model"] for chunk in chunks} == {plain["model"]} == {"spark-max"}
        assert len(spark.urls) == 2
        assert_nothing_left(server)


@pytest.mark.parametrize(
    ("code", "status", "name"),
    [
        (10013, 400, "content_filter"),
        (10907, 400, "context_length_exceeded"),
        (11200, 403, "model_not_enabled"),
    ],
)
async def test_a_refusal_is_a_status_with_the_session_and_the_code(code: int, status: int, name: str) -> None:
    async with spark_server(saying(error(code))) as spark, antiphon(serving(spark)) as server:
        told = error_of(await post(server, ask("spark-max", stream=True)), status)
        assert told["code"] == name
        assert str(code) in told["message"]
        assert told["details"] == {"upstream_code": code, "sid": "s"}


@pytest.mark.parametrize("script", [saying(frame("a", 0)), saying(frame("a", 0), error(10009))])
async def test_an_answer_that_was_cut_ends_with_an_error_and_no_done(script: Any) -> None:
    async with spark_server(script) as spark, antiphon(serving(spark)) as server:
        streamed = await post(server, ask("spark-max", stream=True))
        last = json.loads(data_lines(streamed.body)[-1])
        assert last["error"]["code"] in ("upstream_cut", "upstream_error")


async def test_a_moderated_end_is_content_filter_and_a_whole_stream() -> None:
    script = saying(frame("a", 0), error(10014))
    async with spark_server(script) as spark, antiphon(serving(spark)) as server:
        chunks = chunks_of((await post(server, ask("spark-max", stream=True))).body)
        assert chunks[-1]["choices"][0]["finish_reason"] == "content_filter"


async def test_a_thousand_clients_that_leave_leave_no_socket() -> None:
    async with spark_server(stalling(frame("a", 0))) as spark, antiphon(serving(spark)) as server:

        async def leave() -> None:
            request = chat_request(ask("spark-max", stream=True))
            async with asked(server, request) as raw:
                await raw.head()

        for _ in range(20):
            await asyncio.gather(*(leave() for _ in range(50)))
        await until(lambda: len(spark.close_codes) == 1000)
        assert set(spark.close_codes) == {1000}
        assert_nothing_left(server)


async def test_five_hundred_streams_at_once_are_all_right() -> None:
    script = saying(*(frame(f"{number} ", 1) for number in range(49)), frame("end", 2))
    expected = "".join(f"{number} " for number in range(49)) + "end"
    async with spark_server(script) as spark, antiphon(serving(spark)) as server:
        answers = await asyncio.gather(*(post(server, ask("spark-max", stream=True)) for _ in range(500)))
        assert {text_of(chunks_of(answer.body)) for answer in answers} == {expected}


async def test_members_of_both_kinds_make_one_answer_and_tell_of_it() -> None:
    async with spark_server(saying(frame("the Spark draft", 2))) as spark:
        panel = Combination(
            name="panel",
            members=(Member(model="spark-max"), Member(model="m")),
            summary=Summary(model="s"),
            quorum=2,
            grace_s=PATIENCE_S,
        )

        def settings(sim: OpenAISimulator) -> Settings:
            channels = (spark_channel(spark), channel(sim, "m", "s"))
            return Settings(channels=channels, combinations=(panel,), logging=QUIET)

        async with both(settings) as (server, sim):
            sim.script(Answering(text="the plain draft"), model="m")
            sim.script(Answering(text="both"), model="s")
            answer = await post(server, ask("panel"))
            assert answer.json()["choices"][0]["message"]["content"] == "both"
            summary = next(request for request in sim.requests if request.model == "s")
            assert b"the Spark draft" in summary.body
            assert b"the plain draft" in summary.body
            events = await get(server, f"/v1/runs/{answer.headers['x-run-id']}/events")
            assert events.body.count(b"model.finished") >= 2


def legacy(sim: SparkSimulator, **more: Any) -> Settings:
    names = ("spark-api", "spark-api-v1.1", "spark-api-v2.1", "spark-api-v3.1", "vision")
    chats = ("spark-chat-v1.5", "spark-chat-v2", "spark-chat-v3", "spark-chat-vision")
    made = Channel(
        name="spark",
        kind="spark",
        base_url=sim.ws_url,
        app_id="simulate",
        api_key="sim-key",
        api_secret="sim-secret",
        models=names + chats,
        **more,
    )
    return Settings(channels=(made,), logging=QUIET)


def teal_square() -> str:
    out = io.BytesIO()
    Image.new("RGB", (300, 300), "teal").save(out, "PNG")
    return base64.b64encode(out.getvalue()).decode()


@pytest.mark.parametrize(
    ("model", "version", "domain"),
    [
        ("spark-api", None, "lite"),
        ("spark-api", "v1.1", "lite"),
        ("spark-api", "v2.1", "generalv3"),  # 2.0 is retired
        ("spark-api", "v3.1", "generalv3"),
        ("spark-api-v1.1", None, "lite"),
        ("spark-api-v2.1", None, "generalv3"),
        ("spark-api-v3.1", "v1.1", "generalv3"),  # version is read with spark-api alone
        ("spark-chat-v1.5", None, "lite"),
        ("spark-chat-v2", None, "generalv3"),
        ("spark-chat-v3", None, "generalv3"),
        ("vision", None, "imagev3"),
        ("spark-chat-vision", None, "imagev3"),
    ],
)
async def test_the_names_of_older_gateways_are_answered_with_their_fields_if_wanted(
    model: str, version: str | None, domain: str
) -> None:
    fields: dict[str, Any] = {} if version is None else {"version": version}
    picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{teal_square()}"}}
    content: Any = [{"type": "text", "text": "hello"}, picture] if domain == "imagev3" else "hello"
    body = {"model": model, "messages": [{"role": "user", "content": content}], **fields}
    async with SparkSimulator() as sim:
        async with antiphon(legacy(sim, spark=SparkSettings(legacy_fields=True))) as server:
            told = (await post(server, body)).json()
            assert told["domain"] == domain
            assert told["version"].startswith("v")
            assert told["usage"]["question_tokens"] > 0
            assert {"id", "object", "created", "choices"} <= told.keys()
        async with antiphon(legacy(sim)) as server:
            told = (await post(server, body)).json()
            assert not {"version", "domain"} & told.keys()
            assert "question_tokens" not in told["usage"]


@pytest.mark.parametrize("version", ["v9", "", 3.1, ["v1.1"]])
async def test_a_version_that_never_was_is_a_400(version: object) -> None:
    async with SparkSimulator() as sim, antiphon(legacy(sim)) as server:
        error = error_of(await post(server, ask("spark-api", version=version)), 400)
        assert error["param"] == "version"
        assert "v1.1, v2.1, v3.1" in error["message"]


@pytest.mark.parametrize("offset_s", [900, -900])
async def test_a_clock_that_is_a_quarter_of_an_hour_off_is_learned(offset_s: int) -> None:
    async with SparkSimulator() as sim, antiphon(legacy(sim)) as server:
        sim.clock_offset_s = offset_s
        for _ in range(3):
            assert (await post(server, ask("spark-chat-v3"))).status == 200
        assert len(sim.requests) == 4  # one refusal in all


@pytest.mark.parametrize("model", ["spark-kjwx", "spark-multilang"])
async def test_the_special_models_answer_at_hosts_of_their_own(model: str) -> None:
    async with SparkSimulator() as sim:
        (channel,) = legacy(sim).channels
        changed = msgspec.structs.replace(channel, models=(model,))
        async with antiphon(Settings(channels=(changed,), logging=QUIET)) as server:
            assert (await post(server, ask(model))).status == 200


async def test_the_example_runs_against_the_simulator_as_printed() -> None:
    async with SparkSimulator() as sim:
        environ = {
            "SPARK_APP_ID": "simulate",
            "SPARK_API_KEY": "sim-key",
            "SPARK_API_SECRET": "sim-secret",
            "SPARK_URL": sim.ws_url,
        }
        loaded = load(EXAMPLE, environ)
        assert loaded.warnings == []
        settings = msgspec.structs.replace(loaded.settings, logging=QUIET)
        async with antiphon(settings) as server:
            for model in ("spark-lite", "spark-max", "spark-ultra", "spark-x1", "spark-chat-v3", "panel"):
                assert (await post(server, ask(model))).json()["choices"][0]["message"]["content"]
            older = ask("spark-api", version="v3.1")
            for secret, status in (("sim-secret", 200), ("another", 401)):
                own = ("X_APP_ID: simulate", "X_API_KEY: sim-key", f"X_API_SECRET: {secret}")
                assert (await post(server, older, *own)).status == status
