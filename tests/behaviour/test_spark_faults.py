"""What a Spark does wrong, or refuses, and what the client hears of it, through the whole server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from server.settings import Channel, Settings, TimeoutsPatch
from server.simulators.spark import SparkSimulator
from server.simulators.spark_errors import CODES
from server.simulators.spark_limits import SparkLimits
from server.simulators.spark_script import SparkScript
from tests.behaviour.asking import assert_nothing_left, chunks_of, data_lines, error_of, post, text_of
from tests.behaviour.running import QUIET, Antiphon, antiphon, ask

# Moderation before any text is a refusal of the request; 10019 is one only then.
MODERATED = {10013, 10014, 10019, 10021, 10022}


@asynccontextmanager
async def house(**more: Any) -> AsyncIterator[tuple[Antiphon, SparkSimulator]]:
    async with SparkSimulator() as sim:
        made = Channel(
            name="spark",
            kind="spark",
            base_url=sim.ws_url,
            app_id="simulate",
            api_key="sim-key",
            api_secret="sim-secret",
            models=("spark-max",),
            **more,
        )
        async with antiphon(Settings(channels=(made,), logging=QUIET)) as server:
            yield server, sim
            assert_nothing_left(server)


def error_at_the_end(body: bytes) -> dict[str, Any]:
    """The error that ends a stream, which has no ``[DONE]``."""
    told: dict[str, Any] = json.loads(data_lines(body)[-1])["error"]
    return told


@pytest.mark.parametrize("code", sorted(set(CODES) - MODERATED))
async def test_every_code_after_text_cuts_the_stream_and_is_named(code: int) -> None:
    async with house() as (server, sim):
        sim.script(SparkScript(chunks=5, error_code=code, error_after=2))
        answer = await post(server, ask("spark-max", stream=True))
        assert answer.status == 200
        assert error_at_the_end(answer.body)["details"]["upstream_code"] == code
        assert b"[DONE]" not in answer.body


@pytest.mark.parametrize("code", sorted(MODERATED))
async def test_every_word_of_moderation_after_text_ends_it_as_filtered(code: int) -> None:
    async with house() as (server, sim):
        after = None if code == 10019 else 2  # a warning comes when all is said
        sim.script(SparkScript(text="one two three", error_code=code, error_after=after))
        chunks = chunks_of((await post(server, ask("spark-max", stream=True))).body)
        assert text_of(chunks).startswith("one two")
        assert chunks[-1]["choices"][0]["finish_reason"] == "content_filter"


@pytest.mark.parametrize("cut", ["fin", "rst", "clean"])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_connection_that_breaks_in_the_middle_is_a_cut(cut: Any, stream: bool) -> None:
    script = SparkScript(chunks=5, cut_after=2, cut=cut)
    async with house() as (server, sim):
        sim.script(script)
        sim.script(script)  # a plain answer is asked for once more
        answer = await post(server, ask("spark-max", stream=stream))
        if stream:
            assert error_at_the_end(answer.body)["code"] == "upstream_cut"
        else:
            assert error_of(answer, 502)["code"] == "upstream_cut"


async def test_silence_after_the_first_words_ends_by_the_idle_clock() -> None:
    async with house(timeouts=TimeoutsPatch(idle_s=0.05)) as (server, sim):
        sim.script(SparkScript(chunks=5, stall_after=2))
        answer = await post(server, ask("spark-max", stream=True))
        assert error_at_the_end(answer.body)["code"] == "upstream_timeout_idle"


async def test_a_first_frame_may_be_late_and_not_too_late() -> None:
    late = SparkScript(first_ms=60, text="late")
    async with house() as (server, sim):
        sim.script(late)
        answer = await post(server, ask("spark-max", stream=True))
        assert text_of(chunks_of(answer.body)) == "late"
    async with house(timeouts=TimeoutsPatch(first_token_s=0.02)) as (server, sim):
        sim.default = SparkScript(stall_after=0)
        error = error_of(await post(server, ask("spark-max", stream=True)), 504)
        assert error["code"] == "upstream_timeout_first_token"


async def test_a_session_too_many_is_waited_out() -> None:
    async with house() as (server, sim):
        sim.limits = SparkLimits(sessions=1)
        sim.script(SparkScript(chunks=3, pace_ms=50))
        answers = await asyncio.gather(*(post(server, ask("spark-max")) for _ in range(2)))
        assert [answer.status for answer in answers] == [200, 200]


async def test_who_comes_while_spark_asks_for_a_moment_is_served_too() -> None:
    async with house() as (server, sim):
        sim.script(SparkScript(error_code=11203))
        first = asyncio.create_task(post(server, ask("spark-max")))
        await sim.wait_until(lambda: len(sim.requests) == 1 and sim.requests[0].outcome != "live")
        second = await post(server, ask("spark-max"))
        assert [second.status, (await first).status] == [200, 200]


async def test_no_more_sessions_are_opened_than_the_channel_may() -> None:
    async with house(max_concurrency=2) as (server, sim):
        sim.limits = SparkLimits(sessions=2)
        sim.default = SparkScript(chunks=3, pace_ms=5)
        answers = await asyncio.gather(*(post(server, ask("spark-max")) for _ in range(12)))
        assert {answer.status for answer in answers} == {200}
        assert len(sim.requests) == 12  # nobody was refused and asked again


async def test_one_user_asks_twice_at_once() -> None:
    async with house() as (server, sim):
        sim.default = SparkScript(chunks=3, pace_ms=20)
        answers = await asyncio.gather(*(post(server, ask("spark-max", user="me")) for _ in range(3)))
        assert {answer.status for answer in answers} == {200}
        assert len(sim.requests) == 3


@pytest.mark.parametrize("status", [400, 404, 429, 500, 502, 503])
async def test_a_handshake_refused_otherwise_is_no_credentials_trouble(status: int) -> None:
    async with house() as (server, sim):
        for _ in range(3):
            sim.script(SparkScript(status=status))
        answer = await post(server, ask("spark-max"))
        assert answer.status in (429, 502, 503)
        assert answer.json()["error"]["code"] != "upstream_auth"


@pytest.mark.parametrize("at", [0, 20, 60])
async def test_a_handshake_that_is_cut_short_is_the_upstreams_failure(at: int) -> None:
    async with house() as (server, sim):
        for _ in range(3):
            sim.script(SparkScript(cut_head_at=at))
        assert error_of(await post(server, ask("spark-max")), 502)["code"] == "upstream_unreachable"


async def test_bytes_that_are_no_websocket_frame_are_an_invalid_answer_or_a_cut() -> None:
    async with house() as (server, sim):
        for _ in range(3):
            sim.script(SparkScript(chunks=3, inject_raw={0: "\xff\xff\xff\xff"}))
        assert error_of(await post(server, ask("spark-max")), 502)["code"] in (
            "upstream_invalid",
            "upstream_cut",
        )
