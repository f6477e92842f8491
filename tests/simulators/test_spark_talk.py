"""What a websocket of the simulated Spark does wrong on request, and what it does with a wrong client."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import AsyncIterator
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import InvalidMessage

from server.simulators.spark import SparkSimulator
from server.simulators.spark_script import SparkScript
from tests.simulators.spark_asking import frame, opened, rest, talk

REQUEST = json.dumps(frame())


@pytest.fixture
async def spark() -> AsyncIterator[SparkSimulator]:
    async with SparkSimulator() as simulator:
        yield simulator
    assert simulator.stats()["connections_open"] == 0


async def told(
    spark: SparkSimulator, script: SparkScript, request: str = REQUEST
) -> tuple[list[str | bytes], ClientConnection]:
    """Every message of one answer, and the websocket that is closed by then."""
    spark.script(script)
    async with opened(spark) as ws:
        await ws.send(request)
        return await rest(ws), ws


@pytest.mark.parametrize("cut", ["fin", "rst"])
async def test_an_answer_is_cut_without_a_closing_frame(spark: SparkSimulator, cut: Any) -> None:
    messages, ws = await told(spark, SparkScript(chunks=9, cut_after=3, cut=cut))
    assert len(messages) == 3
    assert (ws.close_code, spark.requests[0].outcome) == (1006, "cut")


async def test_an_answer_is_cut_with_a_closing_frame(spark: SparkSimulator) -> None:
    messages, ws = await told(spark, SparkScript(chunks=9, cut_after=3, cut="clean", close_code=1011))
    assert (len(messages), ws.close_code) == (3, 1011)


@pytest.mark.parametrize("code", [1000, 1001, 1008, 1011, 1012, 4000])
async def test_it_closes_with_the_code_that_is_asked_for(spark: SparkSimulator, code: int) -> None:
    _, ws = await told(spark, SparkScript(close_code=code, close_reason="because"))
    assert (ws.close_code, ws.close_reason) == (code, "because")


async def test_it_closes_without_a_code(spark: SparkSimulator) -> None:
    _, ws = await told(spark, SparkScript(close_code=0))
    assert ws.close_code == 1005


@pytest.mark.parametrize("close", ["drop", "rst"])
async def test_a_whole_answer_may_end_in_a_drop(spark: SparkSimulator, close: Any) -> None:
    messages, ws = await told(spark, SparkScript(chunks=2, close=close))
    assert (len(messages), ws.close_code) == (2, 1006)
    assert spark.requests[0].outcome == "whole"


async def test_after_the_last_status_is_left_out_there_is_silence_until_the_client_goes(
    spark: SparkSimulator,
) -> None:
    spark.script(SparkScript(chunks=1, last_status="missing", close="never"))
    async with opened(spark) as ws:
        await ws.send(REQUEST)
        await ws.recv()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await ws.recv()
        assert spark.requests[0].outcome == "whole"
    await spark.wait_until(lambda: not spark.stats()["connections_open"])
    assert spark.requests[0].close_code == 1000


async def test_a_client_that_leaves_in_the_middle_is_noticed(spark: SparkSimulator) -> None:
    spark.script(SparkScript(chunks=9, stall_after=2))
    async with opened(spark) as ws:
        await ws.send(REQUEST)
        await ws.recv()
        ws.transport.abort()
    await spark.wait_until(lambda: not spark.stats()["connections_open"])
    assert spark.requests[0].aborted
    assert spark.requests[0].close_code is None


async def test_garbage_and_binary_and_late_messages_come_where_they_are_asked_for(
    spark: SparkSimulator,
) -> None:
    script = SparkScript(
        chunks=2, inject={0: "first", 1: "not json"}, inject_binary={1: "\udcff"}, after_done="late"
    )
    messages, ws = await told(spark, script)
    kinds = [one if isinstance(one, bytes) or one[0] != "{" else "frame" for one in messages]
    assert kinds == ["first", "frame", "not json", b"\xff", "frame", "late"]
    assert ws.close_code == 1000
    binary, _ = await told(spark, SparkScript(chunks=2, frames="binary"))
    assert [type(one) for one in binary] == [bytes, bytes]


async def test_bytes_that_are_no_frame_break_the_protocol(spark: SparkSimulator) -> None:
    messages, ws = await told(spark, SparkScript(chunks=2, inject_raw={1: "\xff\xff\xff"}))
    assert len(messages) == 1
    assert ws.protocol.close_sent is not None
    assert ws.protocol.close_sent.code == 1002


@pytest.mark.parametrize(
    "script",
    [
        SparkScript(fragment=7),
        SparkScript(split_at=3),
        SparkScript(join=3),
        SparkScript(pace_ms=1, ping_ms=0.2),
    ],
)
async def test_however_it_is_cut_up_the_answer_is_the_same(
    spark: SparkSimulator, script: SparkScript
) -> None:
    assert (await talk(spark, script)).text == "You said: hello there"


async def test_a_second_request_ends_the_first(spark: SparkSimulator) -> None:
    spark.script(SparkScript(chunks=9, stall_after=1))
    async with opened(spark) as ws:
        await ws.send(REQUEST)
        await ws.recv()
        await ws.send(REQUEST)
        (last,) = await rest(ws)
        assert json.loads(last)["header"]["code"] == 10007
        assert ws.close_code == 1000


async def test_who_asks_nothing_is_dropped(spark: SparkSimulator) -> None:
    spark.idle_s = 0.01
    async with opened(spark) as ws:
        assert await rest(ws) == []
        assert ws.close_code == 1006


async def test_who_only_pings_is_told_so(spark: SparkSimulator) -> None:
    spark.idle_s, spark.pings_only_s = 0.5, 0.6
    async with opened(spark) as ws:
        await (await ws.ping())
        (only,) = await rest(ws)
        assert json.loads(only)["header"]["code"] == 10018
        assert ws.close_code == 1000


async def test_a_message_beyond_eight_megabytes_is_too_big(spark: SparkSimulator) -> None:
    async with opened(spark) as ws:
        ws.transport.write(b"\x81\xff" + struct.pack("!Q", 8 * 1024 * 1024 + 1) + b"mask")  # what is to come
        assert await rest(ws) == []
        assert ws.close_code == 1009


async def test_a_model_of_which_the_client_closes_stays_open(spark: SparkSimulator) -> None:
    request = frame(header={"patch_id": ["r1"]}, chat={"domain": "my-service"}, path="/v1.1/chat")
    async with opened(spark, "/v1.1/chat") as ws:
        await ws.send(json.dumps(request))
        await spark.wait_until(lambda: spark.requests[0].finished)
        async with asyncio.timeout(10):
            while json.loads(await ws.recv())["header"]["status"] != 2:
                pass
        assert ws.state == 1
    await spark.wait_until(lambda: not spark.stats()["connections_open"])


async def test_a_handshake_may_be_cut_short(spark: SparkSimulator) -> None:
    spark.script(SparkScript(cut_head_at=20))
    with pytest.raises(InvalidMessage):
        async with opened(spark):
            pass
