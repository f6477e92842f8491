"""The HTTP routes of the simulated Spark, quirks and all, byte by byte."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from server.simulators.script import ToolCall
from server.simulators.spark import SparkSimulator
from server.simulators.spark_limits import SparkLimits
from server.simulators.spark_script import Source, SparkScript
from tests.raw_http import Answer, connect
from tests.simulators.asking import chat_body, post

V1, V2, X2 = "/v1/chat/completions", "/v2/chat/completions", "/x2/chat/completions"
BEARER = "Authorization: Bearer sim-password\r\n"


@pytest.fixture
async def spark() -> AsyncIterator[SparkSimulator]:
    async with SparkSimulator() as simulator:
        yield simulator
    assert simulator.stats()["connections_open"] == 0


async def ask(
    spark: SparkSimulator,
    script: SparkScript | None = None,
    *,
    path: str = V1,
    headers: str = BEARER,
    model: str = "generalv3.5",
    stream: bool = False,
    **fields: Any,
) -> Answer:
    if script is not None:
        spark.script(script, route="http")
    async with connect(spark.host, spark.port) as client:
        await client.send(post(chat_body(model=model, stream=stream, **fields), path, headers))
        return await client.answer()


def events(answer: Answer) -> list[Any]:
    blocks = answer.body.decode().split("\n\n")
    assert blocks.pop() == ""
    assert blocks[-1] == "data:[DONE]"
    assert all(block.startswith("data:{") for block in blocks[:-1])
    return [json.loads(block[5:]) for block in blocks[:-1]]


async def test_a_whole_answer_lacks_what_the_vendor_leaves_out(spark: SparkSimulator) -> None:
    answer = await ask(spark)
    body = json.loads(answer.body)
    assert answer.status == 200
    assert set(body) == {"code", "message", "sid", "choices", "usage"}
    assert (body["code"], body["message"], body["sid"][:3]) == (0, "Success", "cha")
    assert body["choices"] == [{"message": {"role": "assistant", "content": "You said: hello"}, "index": 0}]
    assert set(body["usage"]) == {"prompt_tokens", "completion_tokens", "total_tokens"}


async def test_a_stream_has_no_blank_and_no_finish_and_the_usage_at_its_end(spark: SparkSimulator) -> None:
    told = events(await ask(spark, stream=True))
    assert [one["choices"][0]["delta"]["content"] for one in told] == ["You", " said:", " hello", ""]
    assert {one["choices"][0]["delta"]["role"] for one in told} == {"assistant"}
    assert [("usage" in one) for one in told] == [False, False, False, True]
    assert all(set(one) - {"usage"} == {"code", "message", "sid", "id", "created", "choices"} for one in told)
    assert all("finish_reason" not in one["choices"][0] for one in told)


async def test_a_script_may_write_a_blank_and_a_finish(spark: SparkSimulator) -> None:
    answer = await ask(spark, SparkScript(space=True, choice_finish=True, text="hi"), stream=True)
    assert answer.body.startswith(b"data: {")
    assert answer.body.count(b'"finish_reason":"stop"') == 1


@pytest.mark.parametrize(
    "headers", ["", "Authorization: Bearer wrong\r\n", "Authorization: Basic sim-password\r\n"]
)
async def test_a_wrong_bearer_is_an_invalid_user(spark: SparkSimulator, headers: str) -> None:
    answer = await ask(spark, headers=headers)
    error = {"message": "invalid user", "type": "api_error", "param": None, "code": None}
    assert (answer.status, json.loads(answer.body)) == (401, {"error": error})


async def test_key_and_secret_are_a_bearer_too(spark: SparkSimulator) -> None:
    assert (await ask(spark, headers="Authorization: Bearer sim-key:sim-secret\r\n")).status == 200


async def test_an_array_of_parts_is_invalid_data(spark: SparkSimulator) -> None:
    answer = await ask(spark, messages=[{"role": "user", "content": [{"type": "text", "text": "hi"}]}])
    error = json.loads(answer.body)["error"]
    assert (answer.status, error["code"], error["type"]) == (400, "10003", "invalid_request_error")
    assert error["message"].startswith("invalid data (sid: cha")


@pytest.mark.parametrize(("path", "model"), [(V1, "gpt-5"), (V1, "spark-x"), (V2, "generalv3.5"), (X2, "x1")])
async def test_a_model_of_another_route_is_unknown(spark: SparkSimulator, path: str, model: str) -> None:
    answer = await ask(spark, path=path, model=model)
    error = json.loads(answer.body)["error"]
    assert (answer.status, error["code"]) == (400, "10005")
    assert f"invalid param model:{model}" in error["message"]


async def test_wrong_paths_and_ranges_are_refused(spark: SparkSimulator) -> None:
    assert (await ask(spark, path="/v3/chat/completions")).status == 404
    assert json.loads((await ask(spark, max_tokens=9000)).body)["error"]["code"] == "10163"
    assert (await ask(spark, temperature=0)).status == 200
    assert (await ask(spark, path=V2, model="spark-x", temperature=0)).status == 400
    assert json.loads((await ask(spark, messages=[])).body)["error"]["code"] == "10003"


async def test_calls_are_one_object_unless_the_switch_is_on(spark: SparkSimulator) -> None:
    script = SparkScript(tools=(ToolCall("f", "{}"),))
    call = {"type": "function", "function": {"name": "f", "arguments": "{}"}}
    for stream in (False, True):
        for switch, expected in ((False, call), (True, [call])):
            answer = await ask(spark, script, stream=stream, tool_calls_switch=switch)
            told = events(answer) if stream else [json.loads(answer.body)]
            choice = told[0]["choices"][0]
            assert choice["delta" if stream else "message"]["tool_calls"] == expected


@pytest.mark.parametrize("path", [V2, X2])
async def test_models_that_reason_say_so_in_a_field(spark: SparkSimulator, path: str) -> None:
    told = events(await ask(spark, path=path, model="spark-x", stream=True))
    assert told[0]["choices"][0]["delta"]["reasoning_content"] == "thought1"
    whole = json.loads((await ask(spark, path=path, model="spark-x")).body)
    assert whole["choices"][0]["message"]["reasoning_content"] == "thought1 thought2"


async def test_sources_are_a_second_choice(spark: SparkSimulator) -> None:
    script = SparkScript(sources=(Source("T", "https://t"),))
    first = events(await ask(spark, script, stream=True))[0]
    delta = first["choices"][1]["delta"]
    assert (delta["role"], delta["tool_calls"][0]["type"]) == ("tool", "web_search")


async def test_keep_alive_sends_blank_lines_before_the_answer(spark: SparkSimulator) -> None:
    answer = await ask(spark, path=V2, model="x1", keep_alive=True)
    assert answer.body.startswith(b"\n\n{")
    assert json.loads(answer.body)["code"] == 0


@pytest.mark.parametrize(("code", "status"), [(11200, 500), (11202, 500), (10013, 400), (10907, 400)])
async def test_a_code_comes_as_text_under_the_status_that_was_seen(
    spark: SparkSimulator, code: int, status: int
) -> None:
    answer = await ask(spark, SparkScript(error_code=code))
    assert (answer.status, json.loads(answer.body)["error"]["code"]) == (status, str(code))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("form", ["top", "event", "maas"])
async def test_an_error_may_hide_within_a_200(spark: SparkSimulator, form: Any, stream: bool) -> None:
    answer = await ask(spark, SparkScript(error_code=10012, http_error=form), stream=stream)
    assert answer.status == 200
    body = json.loads(answer.body.removeprefix(b"data:"))
    assert (body["error"] if form == "event" else body)["code"] == 10012
    assert ("msg" in body) is (form == "maas")


@pytest.mark.parametrize("form", ["status", "top", "event", "maas"])
async def test_an_error_may_end_a_stream(spark: SparkSimulator, form: Any) -> None:
    answer = await ask(
        spark, SparkScript(chunks=5, error_code=10012, error_after=2, http_error=form), stream=True
    )
    *chunks, last = answer.body.decode().strip().split("\n\n")
    assert len(chunks) == 2
    body = json.loads(last.removeprefix("data:"))
    assert (body["error"] if form in ("status", "event") else body)["code"] == 10012


async def test_the_scripts_of_http_are_those_of_every_simulator(spark: SparkSimulator) -> None:
    answer = await ask(spark, SparkScript(status=503, headers={"retry-after": "7"}))
    assert (answer.status, answer.headers["retry-after"]) == (503, "7")
    spark.script(SparkScript(chunks=9, cut_after=2), route="http")
    async with connect(spark.host, spark.port) as client:
        await client.send(post(chat_body(model="lite"), V1, BEARER))
        assert (await client.rest()).count(b"data:") == 2
    spoken = await ask(spark, messages=[{"role": "user", "content": 'sim: {"text": "told"}'}])
    assert json.loads(spoken.body)["choices"][0]["message"]["content"] == "told"


async def test_limits_hold_over_http_too(spark: SparkSimulator) -> None:
    spark.limits = SparkLimits(per_second=1)
    assert (await ask(spark)).status == 200
    refused = await ask(spark)
    assert (refused.status, json.loads(refused.body)["error"]["code"]) == (500, "11202")
