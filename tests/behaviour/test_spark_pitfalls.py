"""What is known to go wrong between gateways and Spark, each as it is here, through the whole server."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from websockets.asyncio.server import ServerConnection

from server.settings import Channel, Settings, TimeoutsPatch
from server.simulators.spark import SparkSimulator
from server.simulators.spark_limits import SparkLimits
from server.simulators.spark_script import SparkScript
from server.spark_settings import Spark as SparkSettings
from tests.behaviour.asking import chunks_of, data_lines, error_of, post, text_of
from tests.behaviour.running import QUIET, Antiphon, antiphon, ask
from tests.upstreams.spark_server import Script, error, frame, saying, spark_server

NAMES = ("spark-lite", "spark-pro", "spark-pro-128k", "spark-max", "spark-ultra", "spark-x1", "spark-x2")
FUNCTION = {"name": "f", "description": "d", "parameters": {"type": "object", "properties": {}}}
TOOLS = [{"type": "function", "function": FUNCTION}]


@pytest.fixture
async def spark() -> AsyncIterator[SparkSimulator]:
    async with SparkSimulator() as simulator:
        yield simulator


def serving(base_url: str, **more: Any) -> Settings:
    made = Channel(
        name="spark",
        kind="spark",
        base_url=base_url,
        app_id="simulate",
        api_key="sim-key",
        api_secret="sim-secret",
        models=NAMES,
        **more,
    )
    return Settings(channels=(made,), logging=QUIET)


async def sent(script: Script, body: dict[str, Any]) -> dict[str, Any]:
    """The frame that one request becomes."""
    async with spark_server(script) as server, antiphon(serving(server.base_url)) as gateway:
        answer = await post(gateway, body)
        assert answer.status == 200, answer.body
        return server.requests[0]


PONG = saying(frame("pong", 2))


def texts(request: dict[str, Any]) -> list[tuple[str, str]]:
    return [(one["role"], one["content"]) for one in request["payload"]["message"]["text"]]


async def finished(server: Antiphon, body: dict[str, Any]) -> str:
    """The finish reason, the same streamed and plain."""
    plain = (await post(server, body)).json()["choices"][0]["finish_reason"]
    chunks = chunks_of((await post(server, body | {"stream": True})).body)
    assert [one["choices"][0]["finish_reason"] for one in chunks if one["choices"]][-1] == plain
    return str(plain)


# ── answers ──


@pytest.mark.parametrize("stream", [False, True])
async def test_an_error_frame_is_no_empty_200_nor_an_endless_wait(
    spark: SparkSimulator, stream: bool
) -> None:
    async with antiphon(serving(spark.ws_url)) as server:
        spark.script(SparkScript(error_code=10013))
        assert error_of(await post(server, ask("spark-max", stream=stream)), 400)["code"] == "content_filter"


async def test_an_empty_list_of_texts_harms_nothing() -> None:
    empty = json.dumps(
        {"header": {"code": 0, "status": 0}, "payload": {"choices": {"status": 0, "text": []}}}
    )
    async with (
        spark_server(saying(empty, frame("pong", 2))) as server,
        antiphon(serving(server.base_url)) as gateway,
    ):
        answer = await post(gateway, ask("spark-max"))
        assert answer.json()["choices"][0]["message"]["content"] == "pong"


@pytest.mark.parametrize("stream", [False, True])
async def test_status_2_that_never_comes_is_not_waited_for_once_the_socket_is_gone(
    spark: SparkSimulator, stream: bool
) -> None:
    script = SparkScript(chunks=3, last_status="missing", close="drop")
    async with antiphon(serving(spark.ws_url)) as server:
        spark.script(script)
        spark.script(script)
        answer = await post(server, ask("spark-max", stream=stream))
        told = json.loads(data_lines(answer.body)[-1]) if stream else answer.json()
        assert told["error"]["code"] == "upstream_cut"


async def test_status_2_that_never_comes_on_a_socket_that_stays_ends_by_the_clock(
    spark: SparkSimulator,
) -> None:
    async with antiphon(serving(spark.ws_url, timeouts=TimeoutsPatch(idle_s=0.05))) as server:
        spark.script(SparkScript(chunks=3, last_status="missing", close="never"))
        answer = await post(server, ask("spark-max", stream=True))
        assert json.loads(data_lines(answer.body)[-1])["error"]["code"] == "upstream_timeout_idle"


async def test_no_completion_under_parallel_calls_is_told_as_the_limit_that_it_is(
    spark: SparkSimulator,
) -> None:
    spark.limits = SparkLimits(per_second=0)
    async with antiphon(serving(spark.ws_url)) as server:
        told = error_of(await post(server, ask("spark-max")), 429)
        assert told["details"]["upstream_code"] == 11202


async def test_a_plugins_frame_without_choices_is_no_error(spark: SparkSimulator) -> None:
    search = {"type": "web_search", "web_search": {"enable": True, "show_ref_label": True}}
    async with antiphon(serving(spark.ws_url)) as server:
        told = (await post(server, ask("spark-max", tools=[search]))).json()["choices"][0]["message"]
        assert told["content"]
        assert len(told["annotations"]) == 2


async def test_one_socket_carries_one_turn(spark: SparkSimulator) -> None:
    async with antiphon(serving(spark.ws_url)) as server:
        for _ in range(3):
            assert (await post(server, ask("spark-max"))).status == 200
        assert len({one.connection for one in spark.requests}) == 3


@pytest.mark.parametrize("form", ["own", "last", "after"])
async def test_a_warning_in_before_or_behind_the_last_frame_keeps_the_text_and_is_told(
    spark: SparkSimulator, form: Any
) -> None:
    async with antiphon(serving(spark.ws_url)) as server:
        spark.default = SparkScript(text="all of it", error_code=10019, soft_form=form)
        assert await finished(server, ask("spark-max")) == "content_filter"
        assert text_of(chunks_of((await post(server, ask("spark-max", stream=True))).body)) == "all of it"


async def test_a_warning_changes_nothing_where_the_operator_wants_it_so(spark: SparkSimulator) -> None:
    async with antiphon(serving(spark.ws_url, spark=SparkSettings(warned="stop"))) as server:
        spark.default = SparkScript(error_code=10019, soft_form="after")
        assert await finished(server, ask("spark-max")) == "stop"


async def test_codes_decide_whatever_the_words_say() -> None:
    async with (
        spark_server(saying(error(11202, "Success: all is well"))) as server,
        antiphon(serving(server.base_url)) as gateway,
    ):
        assert error_of(await post(gateway, ask("spark-max")), 429)["details"]["upstream_code"] == 11202


async def test_a_moderation_that_is_a_false_alarm_says_nothing_of_the_channel(spark: SparkSimulator) -> None:
    async with antiphon(serving(spark.ws_url)) as server:
        for _ in range(10):
            spark.script(SparkScript(error_code=10013))
            error_of(await post(server, ask("spark-max")), 400)
        assert (await post(server, ask("spark-max"))).status == 200


async def test_pings_of_sparks_are_answered_while_it_thinks(spark: SparkSimulator) -> None:
    async with antiphon(serving(spark.ws_url)) as server:
        spark.script(SparkScript(first_ms=60, ping_ms=10, text="thought over"))
        answer = await post(server, ask("spark-x1"))
        assert answer.json()["choices"][0]["message"]["content"] == "thought over"


# ── the handshake ──


async def test_each_dial_is_signed_anew_with_an_english_date_of_two_digits_in_gmt() -> None:
    before = datetime.now(UTC) - timedelta(seconds=2)
    async with spark_server(PONG) as server, antiphon(serving(server.base_url)) as gateway:
        for _ in range(2):
            await post(gateway, ask("spark-max"))
        for date in server.dates():
            assert date.endswith(" GMT")
            assert len(date) == len("Mon, 06 May 2024 08:00:00 GMT")
            assert before < parsedate_to_datetime(date)
        first, second = (parse_qs(urlsplit(url).query) for url in server.urls)
        assert first.keys() == {"authorization", "date", "host"}
        assert first["host"] == second["host"] == [f"127.0.0.1:{server.port}"]


async def test_a_clock_that_is_off_is_no_403_for_the_caller(spark: SparkSimulator) -> None:
    spark.clock_offset_s = -1000
    async with antiphon(serving(spark.ws_url)) as server:
        assert (await post(server, ask("spark-max"))).status == 200


async def test_a_url_signed_long_ago_is_never_used_again(spark: SparkSimulator) -> None:
    async with antiphon(serving(spark.ws_url)) as server:
        assert (await post(server, ask("spark-max"))).status == 200
        spark.clock_offset_s = 400  # more than five minutes have gone by
        assert (await post(server, ask("spark-max"))).status == 200


@pytest.mark.parametrize(
    ("model", "path", "domain"),
    [
        ("spark-lite", "/v1.1/chat", "lite"),
        ("spark-pro", "/v3.1/chat", "generalv3"),
        ("spark-max", "/v3.5/chat", "generalv3.5"),
        ("spark-ultra", "/v4.0/chat", "4.0Ultra"),
        ("spark-x1", "/v1/x1", "spark-x"),
        ("spark-x2", "/x2", "spark-x"),
    ],
)
async def test_url_and_domain_are_of_one_version(model: str, path: str, domain: str) -> None:
    async with spark_server(PONG) as server, antiphon(serving(server.base_url)) as gateway:
        assert (await post(gateway, ask(model))).status == 200
        assert server.urls[0].split("?")[0] == path
        assert server.requests[0]["parameter"]["chat"]["domain"] == domain


@pytest.mark.parametrize("code", [10003, 10004, 11200])
async def test_a_domain_that_does_not_fit_is_told_as_such(code: int) -> None:
    words = {10003: "invalid model domain", 10004: "'$.parameter.chat.domain'", 11200: "domain.generalv3"}
    async with (
        spark_server(saying(error(code, words[code]))) as server,
        antiphon(serving(server.base_url)) as gateway,
    ):
        answer = await post(gateway, ask("spark-max"))
        assert answer.json()["error"]["code"] in ("model_not_found", "model_not_enabled")


# ── requests ──


async def test_a_user_that_is_a_uuid_with_dashes_makes_a_uid_of_at_most_32_characters() -> None:
    request = await sent(PONG, ask("spark-max", user="123e4567-e89b-12d3-a456-426614174000"))
    assert len(request["header"]["uid"]) <= 32


async def test_lite_is_sent_no_functions_at_all() -> None:
    request = await sent(PONG, ask("spark-lite", tools=[], tool_choice="none"))
    assert "functions" not in request["payload"]
    async with spark_server(PONG) as server, antiphon(serving(server.base_url)) as gateway:
        assert error_of(await post(gateway, ask("spark-lite", tools=TOOLS)), 400)["param"] == "tools"
        assert server.requests == []


async def test_functions_go_without_openais_wrapper() -> None:
    request = await sent(PONG, ask("spark-max", tools=TOOLS))
    assert request["payload"]["functions"]["text"] == [FUNCTION]


async def test_the_role_tool_becomes_the_users_words() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    turns = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "result"},
    ]
    told = texts(await sent(PONG, {"model": "spark-lite", "messages": turns}))
    assert [role for role, _ in told] == ["user", "assistant", "user"]
    assert "result" in told[-1][1]


@pytest.mark.parametrize(("model", "roles"), [("spark-lite", ["user"]), ("spark-max", ["system", "user"])])
async def test_several_system_prompts_anywhere_reach_every_version(model: str, roles: list[str]) -> None:
    turns = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "q"},
        {"role": "developer", "content": "be kind"},
    ]
    told = texts(await sent(PONG, {"model": model, "messages": turns}))
    assert [role for role, _ in told] == roles
    assert all(any(words in text for _, text in told) for words in ("be brief", "be kind", "q"))


@pytest.mark.parametrize(("given", "goes"), [(0, 0.01), (0.7, 0.7), (1.8, 1.0)])
async def test_a_temperature_of_0_or_above_1_is_brought_into_the_range(given: float, goes: float) -> None:
    request = await sent(PONG, ask("spark-max", temperature=given))
    assert request["parameter"]["chat"]["temperature"] == goes


async def test_more_max_tokens_than_there_are_is_the_most_there_is() -> None:
    request = await sent(PONG, ask("spark-max", max_tokens=1_000_000))
    assert request["parameter"]["chat"]["max_tokens"] == 8192


async def test_too_long_a_conversation_is_told_as_such(spark: SparkSimulator) -> None:
    async with antiphon(serving(spark.ws_url)) as server:
        told = error_of(await post(server, ask("spark-max", "word " * 20_000)), 400)
        assert (told["code"], told["details"]["upstream_code"]) == ("context_length_exceeded", 10907)


async def test_contents_as_lists_of_parts_become_strings() -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    request = await sent(PONG, {"model": "spark-max", "messages": [{"role": "user", "content": parts}]})
    assert texts(request) == [("user", "one\ntwo")]


async def test_the_web_is_not_searched_unless_somebody_asks() -> None:
    request = await sent(PONG, ask("spark-max"))
    (tool,) = request["parameter"]["chat"]["tools"]
    assert tool == {"type": "web_search", "web_search": {"enable": False}}


async def test_a_conversation_that_is_out_of_order_is_put_in_order(spark: SparkSimulator) -> None:
    turns = [
        {"role": "assistant", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": ""},
        {"role": "user", "content": "q"},
        {"role": "user", "content": "r"},
    ]
    async with antiphon(serving(spark.ws_url)) as server:  # the simulator is strict
        assert (await post(server, {"model": "spark-max", "messages": turns})).status == 200


async def test_a_frame_beyond_a_websocket_librarys_usual_megabyte_is_read() -> None:
    async def large(socket: ServerConnection) -> None:
        await socket.send(frame("x" * 5_000_000, 2))

    async with spark_server(large) as server, antiphon(serving(server.base_url)) as gateway:
        answer = await post(gateway, ask("spark-max"))
        assert len(answer.json()["choices"][0]["message"]["content"]) == 5_000_000
