"""The simulated Spark as a bare websockets client sees it: the handshake, answers, errors, steering."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from server.simulators.script import ToolCall
from server.simulators.spark import SparkSimulator
from server.simulators.spark_errors import CODES
from server.simulators.spark_limits import SparkLimits
from server.simulators.spark_script import Source, SparkScript
from tests.simulators.spark_asking import Told, frame, items, opened, rest, signed_url, statuses, talk


@pytest.fixture
async def spark() -> AsyncIterator[SparkSimulator]:
    async with SparkSimulator() as simulator:
        yield simulator
    assert simulator.stats()["connections_open"] == 0


async def refused(url: str) -> tuple[int, str, Any]:
    """Status, media type and JSON of a handshake that is refused, which names its date."""
    with pytest.raises(InvalidStatus) as error:
        async with connect(url, proxy=None):
            pass
    response = error.value.response
    assert response.headers["date"].endswith(" GMT")
    return response.status_code, response.headers["content-type"], json.loads(response.body or b"")


# ── the handshake ──


async def test_the_door_refuses_in_the_words_of_the_gateway(spark: SparkSimulator) -> None:
    bare = f"{spark.ws_url}/v3.5/chat"
    assert await refused(bare) == (401, "application/json", {"message": "Unauthorized"})
    status, _, body = await refused(signed_url(spark).replace("/v3.5/", "/v4.0/"))
    assert (status, body) == (401, {"message": "HMAC signature does not match"})
    assert (await refused(f"{spark.ws_url}/v9/chat"))[0] == 404


async def test_a_wrong_clock_refuses_and_says_what_time_it_has(spark: SparkSimulator) -> None:
    url = signed_url(spark)
    spark.clock_offset_s = 900.0
    status, media, body = await refused(url)
    assert (status, media) == (403, "text/plain; charset=utf-8")
    assert "a valid date or x-date header" in body["message"]
    assert (await talk(spark)).code == 0  # signed by the simulator's own clock


async def test_a_script_refuses_a_handshake(spark: SparkSimulator) -> None:
    spark.script(SparkScript(status=429), SparkScript(status=502, body='"down"'))
    assert await refused(signed_url(spark)) == (429, "application/json", {"message": "Too Many Requests"})
    assert (await refused(signed_url(spark)))[::2] == (502, "down")


# ── answers ──


async def test_an_answer_comes_in_numbered_frames_and_the_last_has_the_usage(spark: SparkSimulator) -> None:
    told = await talk(spark)
    assert told.text == "You said: hello there"
    assert statuses(told.frames) == [(0, 0), (1, 1), (1, 1), (2, 2)]
    assert [one["payload"]["choices"]["seq"] for one in told.frames] == [0, 1, 2, 3]
    assert [("usage" in one["payload"]) for one in told.frames] == [False, False, False, True]
    usage = told.frames[-1]["payload"]["usage"]["text"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert {one["header"]["sid"] for one in told.frames} == {told.frames[0]["header"]["sid"]}
    assert told.frames[0]["header"]["sid"].startswith("cht")
    assert (told.close_code, told.close_reason) == (1000, "close this ws conn")


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (SparkScript(chunks=1), [(2, 2)]),
        (SparkScript(chunks=1, last_status="choices"), [(0, 2)]),
        (SparkScript(chunks=2, last_status="choices"), [(0, 0), (1, 2)]),
        (SparkScript(chunks=2, last_status="header"), [(0, 0), (2, 1)]),
        (SparkScript(chunks=2, last_status="missing"), [(0, 0), (1, 1)]),
        (SparkScript(chunks=2, last_frame="empty"), [(0, 0), (1, 1), (2, 2)]),
        (SparkScript(pieces=()), [(2, 2)]),
    ],
)
async def test_the_last_frame_says_so_in_every_way_that_was_seen(
    spark: SparkSimulator, script: SparkScript, expected: list[tuple[int, int]]
) -> None:
    assert statuses((await talk(spark, script)).frames) == expected


async def test_models_that_reason_do_so_unless_they_are_told_not_to(spark: SparkSimulator) -> None:
    told = await talk(spark, path="/v1/x1")
    assert items(told.frames)[0] == {
        "content": "", "reasoning_content": "thought1", "role": "assistant", "index": 0,
    }  # fmt: skip
    plain = await talk(
        spark, request=frame(path="/v1/x1", chat={"thinking": {"type": "disabled"}}), path="/v1/x1"
    )
    assert all("reasoning_content" not in one for one in items(plain.frames))


async def test_a_function_is_called_in_one_frame(spark: SparkSimulator) -> None:
    request = frame(payload={"functions": {"text": [{"name": "f", "parameters": {"properties": "{}"}}]}})
    told = await talk(spark, SparkScript(tools=(ToolCall("f", '{"a": 1}'),)), request)
    assert statuses(told.frames) == [(2, 2)]
    (item,) = items(told.frames)
    assert item["content"] == ""
    assert item["function_call"] == {"name": "f", "arguments": '{"a": 1}'}
    assert told.frames[0]["payload"]["usage"]["text"]["completion_tokens"] == 0


async def test_sources_come_first_in_a_frame_without_choices(spark: SparkSimulator) -> None:
    search = {"type": "web_search", "web_search": {"enable": True, "show_ref_label": True}}
    told = await talk(spark, request=frame(chat={"tools": [search]}))
    first = told.frames[0]
    assert first["header"]["status"] == 1
    assert "choices" not in first["payload"]
    plugin = first["payload"]["plugins"]["text"][0]
    assert (plugin["name"], plugin["role"]) == ("ifly_search", "tool")
    assert [page["index"] for page in json.loads(plugin["content"])] == [1, 2]
    assert told.frames[1]["payload"]["choices"]["seq"] == 0
    hidden = await talk(spark, SparkScript(sources=()), frame(chat={"tools": [search]}))
    assert "choices" in hidden.frames[0]["payload"]
    scripted = await talk(spark, SparkScript(sources=(Source("T", "https://t"),)))
    assert "plugins" in scripted.frames[0]["payload"]


# ── errors ──


@pytest.mark.parametrize("code", sorted(set(CODES) - {10019}))
async def test_every_code_comes_in_a_frame_without_a_payload(spark: SparkSimulator, code: int) -> None:
    told = await talk(spark, SparkScript(error_code=code))
    (only,) = told.frames
    assert set(only) == {"header"}
    assert (told.code, only["header"]["status"], told.close_code) == (code, 2, 1000)
    assert told.message.startswith(CODES[code][0] + ":")


async def test_an_error_may_come_after_text(spark: SparkSimulator) -> None:
    told = await talk(spark, SparkScript(chunks=9, error_code=10014, error_after=2, error_message="withheld"))
    assert (told.text, told.code, told.message, len(told.frames)) == ("word1 word2", 10014, "withheld", 3)


@pytest.mark.parametrize(
    ("form", "expected"), [("own", [0, 0, 10019]), ("last", [0, 10019]), ("after", [0, 0, 10019])]
)
async def test_a_warning_comes_after_the_whole_text(
    spark: SparkSimulator, form: Any, expected: list[int]
) -> None:
    told = await talk(spark, SparkScript(chunks=2, error_code=10019, soft_form=form))
    assert told.text == "word1 word2"
    assert [one["header"]["code"] for one in told.frames] == expected


async def test_a_foreign_app_is_let_in_at_the_door_and_refused_in_a_frame(spark: SparkSimulator) -> None:
    told = await talk(spark, request=frame(header={"app_id": "another"}))
    assert told.code == 11200
    assert told.message.endswith("domain.generalv3.5")


async def test_limits_refuse_who_asks_too_much(spark: SparkSimulator) -> None:
    async def code(request: dict[str, Any]) -> int:
        return (await talk(spark, request=request)).code

    spark.script(SparkScript(silent=False, stall_after=1, chunks=2))
    async with opened(spark) as held:
        await held.send(json.dumps(frame(header={"uid": "u"})))
        await held.recv()
        assert await code(frame(header={"uid": "u"})) == 10006
        assert await code(frame(header={"uid": "v"})) == 0
        spark.limits.sessions = 1
        assert await code(frame()) == 11203
    await spark.wait_until(lambda: spark.requests[0].aborted)
    assert await code(frame(header={"uid": "u"})) == 0
    spark.limits = SparkLimits(per_second=1, per_day=None)
    assert [await code(frame()), await code(frame())] == [0, 11202]
    spark.limits = SparkLimits(per_day=1)
    assert [await code(frame()), await code(frame())] == [0, 11201]


# ── steering ──


async def test_a_script_comes_by_header_by_message_or_by_default() -> None:
    async with SparkSimulator(default=SparkScript(text="default")) as spark:

        async def said(text: str, **headers: str) -> str:
            async with opened(spark, **headers) as ws:
                await ws.send(json.dumps(frame(text)))
                return Told([json.loads(one) for one in await rest(ws)], None, None).text

        assert await said("hi") == "default"
        assert await said('sim: {"text": "by message"}') == "by message"
        assert await said('sim: {"text": "by message"}', **{"x-sim": '{"text": "by header"}'}) == "by header"
        told = await talk(spark, request=frame('sim: {"nonsense": 1}'))
        assert told.code == 10003
        assert "nonsense" in told.message


async def test_what_was_asked_is_remembered_without_its_signature(spark: SparkSimulator) -> None:
    await talk(spark)
    (record,) = spark.requests
    assert record.json() == frame()
    assert (record.model, record.outcome, record.sent_chunks) == ("generalv3.5", "whole", 4)
    shown = record.as_json()["path"]
    assert shown.startswith("/v3.5/chat?authorization=***&date=")
