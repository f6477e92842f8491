"""Spark's HTTP routes through the whole server: mended answers, and errors by Spark's own codes."""

from __future__ import annotations

import json
from typing import Any, Literal

import pytest

from server.settings import Channel, ChannelModel, Routing, Settings
from server.simulators.script import ToolCall
from server.simulators.spark import SparkSimulator
from server.simulators.spark_script import SparkScript
from server.upstreams.base import Call
from server.upstreams.http import HttpClient, Target
from server.upstreams.spark_http import SparkHttpUpstream
from tests.behaviour.asking import chunks_of, data_lines, error_of, post, text_of
from tests.behaviour.running import QUIET, antiphon, ask
from tests.channels import chat

TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}]
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
ERRORS = [
    (10013, 400, "content_filter"),
    (10907, 400, "context_length_exceeded"),
    (11200, 429, "insufficient_quota"),  # the simulator says "tokens.total"
    (11221, 403, "permission_denied"),
    (11201, 429, "insufficient_quota"),
    (11202, 429, "rate_limit_exceeded"),
    (10010, 503, "overloaded"),
]


def serving(sim: SparkSimulator, path: str = "/v1", model: str = "4.0Ultra") -> Settings:
    channel = Channel(
        name="spark",
        kind="openai",
        preset="spark-http",
        base_url=sim.url + path,
        api_key="sim-password",
        models={"m": ChannelModel(model=model)},
    )
    return Settings(channels=(channel,), routing=Routing(attempts=1), logging=QUIET)


def queue(sim: SparkSimulator, **script: Any) -> None:
    sim.script(SparkScript(**script), route="http")


@pytest.mark.parametrize(("path", "model"), [("/v1", "4.0Ultra"), ("/v2", "spark-x"), ("/x2", "spark-x")])
async def test_answers_have_what_every_answer_has(path: str, model: str) -> None:
    async with SparkSimulator() as sim, antiphon(serving(sim, path, model)) as server:
        plain = (await post(server, ask())).json()
        assert (plain["object"], plain["model"]) == ("chat.completion", "m")
        assert plain["choices"][0]["finish_reason"] == "stop"
        streamed = await post(server, ask(stream=True, stream_options={"include_usage": True}))
        chunks = chunks_of(streamed.body)
        assert text_of(chunks) == plain["choices"][0]["message"]["content"] == "You said: hello"
        reasons = [one["choices"][0]["finish_reason"] for one in chunks if one["choices"]]
        assert reasons[-1] == "stop"
        assert set(reasons[:-1]) == {None}
        assert chunks[-1]["usage"] == plain["usage"]


@pytest.mark.parametrize("form", ["object", "whole"])
@pytest.mark.parametrize("stream", [False, True])
async def test_tool_calls_are_asked_for_and_come_as_a_list(
    form: Literal["object", "whole"], stream: bool
) -> None:
    async with SparkSimulator() as sim, antiphon(serving(sim)) as server:
        queue(sim, tools=(ToolCall(name="f", arguments='{"a":1}'),), tool_form=form)
        answer = await post(server, ask(stream=stream, tools=TOOLS))
        if stream:
            deltas = [one["choices"][0]["delta"] for one in chunks_of(answer.body) if one["choices"]]
            (call,) = [call for delta in deltas for call in delta.get("tool_calls", ())]
        else:
            (call,) = answer.json()["choices"][0]["message"]["tool_calls"]
        assert call["id"].startswith("call_")
        assert (call["type"], call["function"]) == ("function", {"name": "f", "arguments": '{"a":1}'})
        assert json.loads(sim.requests[-1].body)["tool_calls_switch"] is True


async def test_texts_in_parts_and_developers_are_told_as_spark_takes_them() -> None:
    turns: list[dict[str, Any]] = [
        {"role": "developer", "content": [{"type": "text", "text": "Be kind."}]},
        {"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]},
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "r"}]},
    ]
    async with SparkSimulator() as sim, antiphon(serving(sim)) as server:
        answer = await post(server, ask(messages=turns, tools=TOOLS))
        assert answer.status == 200, answer.body
        assert json.loads(sim.requests[-1].body)["messages"] == [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": "one\ntwo"},
            turns[2],
            {"role": "tool", "tool_call_id": "c1", "content": "r"},
        ]


async def test_a_turn_with_more_than_text_is_sparks_to_refuse() -> None:
    part = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    turns = [{"role": "user", "content": [{"type": "text", "text": "see"}, part]}]
    async with SparkSimulator() as sim, antiphon(serving(sim)) as server:
        error = error_of(await post(server, ask(messages=turns)), 400)
        assert error["details"]["upstream_code"] == 10003
        assert json.loads(sim.requests[-1].body)["messages"] == turns


async def test_fields_that_it_lacks_are_left_out_renamed_or_refused() -> None:
    async with SparkSimulator() as sim, antiphon(serving(sim)) as server:
        answer = await post(server, ask(seed=1, logprobs=True, logit_bias={"5": 1}, max_completion_tokens=5))
        assert answer.status == 200
        sent = json.loads(sim.requests[-1].body)
        assert sent["max_tokens"] == 5
        assert not {"seed", "logprobs", "logit_bias", "max_completion_tokens"} & sent.keys()
        assert "seed was left out" in answer.headers["x-antiphon-warnings"]
        assert error_of(await post(server, ask(n=2)), 400)["param"] == "n"


@pytest.mark.parametrize("shape", ["status", "top", "event", "maas"])
@pytest.mark.parametrize(("code", "status", "name"), ERRORS)
@pytest.mark.parametrize("stream", [False, True])
async def test_an_error_is_told_by_sparks_code_wherever_it_stands(
    shape: str, code: int, status: int, name: str, stream: bool
) -> None:
    async with SparkSimulator() as sim, antiphon(serving(sim)) as server:
        queue(sim, error_code=code, http_error=shape)
        error = error_of(await post(server, ask(stream=stream)), status)
        assert error["code"] == name
        assert error["details"]["upstream_code"] == code


async def test_an_error_after_text_ends_the_stream_without_done() -> None:
    async with SparkSimulator() as sim, antiphon(serving(sim)) as server:
        queue(sim, text="one two three", chunks=3, error_code=10012, error_after=1, http_error="event")
        lines = data_lines((await post(server, ask(stream=True))).body)
        assert json.loads(lines[-1])["error"]["details"]["upstream_code"] == 10012


@pytest.mark.parametrize("shape", ["event", "maas"])
@pytest.mark.parametrize("code", [10013, 10014, 10021, 10022])
async def test_moderation_after_text_ends_the_stream_as_filtered(shape: str, code: int) -> None:
    async with SparkSimulator() as sim, antiphon(serving(sim)) as server:
        queue(sim, text="one two three", chunks=3, error_code=code, error_after=1, http_error=shape)
        lines = data_lines((await post(server, ask(stream=True))).body)
        assert lines[-1] == b"[DONE]"
        assert json.loads(lines[-2])["choices"][0]["finish_reason"] == "content_filter"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_warning_stays_in_the_answers_own_code(stream: bool) -> None:
    async with SparkSimulator() as sim, antiphon(serving(sim)) as server:
        queue(sim, text="one two", error_code=10019)
        answer = await post(server, ask(stream=stream))
        assert b'"code":10019' in answer.body
        told = chunks_of(answer.body)[-1] if stream else answer.json()
        assert told["choices"][0]["finish_reason"] == "stop"


async def test_a_refused_password_is_the_operators_trouble() -> None:
    async with SparkSimulator(keys=()) as sim, antiphon(serving(sim)) as server:
        assert error_of(await post(server, ask()), 502)["code"] == "upstream_auth"


async def test_the_vendors_address_is_known() -> None:
    class Nowhere:
        """A client that is never asked."""

    channel = Channel(name="spark", kind="openai", preset="spark-http", models=("lite",))
    client: HttpClient = Nowhere()  # type: ignore[assignment]
    target = SparkHttpUpstream(channel, client).target(chat(), Call())
    assert isinstance(target, Target)
    assert str(target.url) == "https://spark-api-open.xf-yun.com/v1/chat/completions"
