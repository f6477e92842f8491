"""The openai upstream and time: its clocks, and clients that leave at any moment."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from server.chat import ChatRequest
from server.deltas import TextDelta
from server.errors import (
    UpstreamTimeout,
)
from server.simulators.openai import OpenAISimulator
from server.simulators.script import Script
from server.upstreams.base import Call
from tests.channels import answer, chat, deltas, failure, said_and_failed, until
from tests.upstreams.openai_cases import TEXT, all_closed, upstream
from tests.upstreams.raw_upstream import Peer, raw_upstream

SOON = 0.05
"""A limit of a clock that is meant to run out. (seconds)"""
PATIENCE = {"connect_s": 10, "first_token_s": 10, "idle_s": 10, "total_s": 10}


# ── clocks ──


@pytest.mark.parametrize(
    ("script", "timeouts", "code"),
    [
        (Script(silent=True), {"first_token_s": SOON}, "first_token"),
        (Script(drip_ms=20), {"first_token_s": SOON}, "first_token"),
        (Script(stall_after=0), {"first_token_s": SOON}, "first_token"),
        (Script(stall_after=0, keep_alive_ms=2), {"first_token_s": SOON}, "first_token"),
        (Script(stall_after=0, keep_alive_ms=2), {"first_token_s": SOON, "idle_s": 0.01}, "first_token"),
        (Script(text=TEXT, chunks=4, stall_after=2), {"idle_s": SOON}, "idle"),
        (Script(text=TEXT, chunks=4, stall_after=2, keep_alive_ms=2), {"idle_s": SOON}, "idle"),
        (Script(text=TEXT, chunks=4, stall_after=2, keep_alive_ms=2, split_at=3), {"idle_s": SOON}, "idle"),
        (Script(chunks=4, stall_after=2, keep_alive_ms=2, line_end="crlf"), {"idle_s": SOON}, "idle"),
        (Script(text=TEXT, chunks=4, stall_after=2), {"idle_s": SOON, "first_token_s": 0}, "idle"),
        (Script(silent=True), {"total_s": SOON}, "total"),
        (Script(stall_after=0), {"total_s": SOON}, "total"),
        (Script(text=TEXT, chunks=4, stall_after=2), {"total_s": SOON}, "total"),
        (Script(chunks=100_000, pace_ms=1), {"total_s": SOON}, "total"),
    ],
)  # fmt: skip
async def test_each_clock_ends_the_call_with_its_own_code_and_closes_the_connection(
    sim: OpenAISimulator, script: Script, timeouts: dict[str, float], code: str, http: str
) -> None:
    sim.script(script)
    async with upstream(sim.base_url, http=http, timeouts=PATIENCE | timeouts) as channel:
        said, error = await said_and_failed(channel)
        assert isinstance(error, UpstreamTimeout)
        assert (error.status, error.code) == (504, f"upstream_timeout_{code}")
        assert error.retryable == (code != "total")
        assert len(said) == 2 or script.stall_after != 2
        await all_closed(sim)
    assert sim.requests[-1].outcome == "aborted"


@pytest.mark.parametrize("script", [Script(silent=True), Script(stall_at_byte=20), Script(stall_after=0)])
async def test_a_plain_answer_runs_under_the_total_clock_alone(
    sim: OpenAISimulator, script: Script, http: str
) -> None:
    sim.script(script)
    timeouts = PATIENCE | {"first_token_s": 0.001, "idle_s": 0.001, "total_s": SOON}
    async with upstream(sim.base_url, http=http, timeouts=timeouts) as channel:
        assert (await failure(channel, request=chat(stream=False))).code == "upstream_timeout_total"
        await all_closed(sim)


async def test_a_model_may_think_for_long_before_a_plain_answer(sim: OpenAISimulator, http: str) -> None:
    sim.script(Script(text=TEXT, delay_ms=30, first_ms=30, keep_alive_ms=5))
    timeouts = PATIENCE | {"first_token_s": 0.01, "idle_s": 0.01}
    async with upstream(sim.base_url, http=http, timeouts=timeouts) as channel:
        assert await answer(channel, request=chat(stream=False)) == TEXT


async def test_a_slow_steady_stream_lives(sim: OpenAISimulator, http: str) -> None:
    sim.script(Script(chunks=40, pace_ms=20))
    timeouts = PATIENCE | {"first_token_s": 0.5, "idle_s": 0.5}
    async with upstream(sim.base_url, http=http, timeouts=timeouts) as channel:
        assert len((await answer(channel)).split()) == 40  # in 0.8 s


async def test_zero_switches_every_clock_off(sim: OpenAISimulator, http: str) -> None:
    sim.script(Script(text=TEXT, delay_ms=30, first_ms=30, chunks=4, pace_ms=30))
    timeouts = dict.fromkeys(PATIENCE, 0)
    async with upstream(sim.base_url, http=http, timeouts=timeouts) as channel:
        assert await answer(channel) == TEXT


async def test_a_calls_own_clocks_replace_the_channels(sim: OpenAISimulator) -> None:
    sim.script(Script(silent=True))
    async with upstream(sim.base_url, timeouts=PATIENCE) as channel:
        call = Call(deadline=asyncio.get_running_loop().time() + SOON)
        assert (await failure(channel, call)).code == "upstream_timeout_total"


async def test_a_caller_that_takes_its_time_is_no_silence_of_the_upstream(
    sim: OpenAISimulator, http: str
) -> None:
    sim.script(Script(text=TEXT, chunks=4, pace_ms=1))
    got = ""
    async with (
        upstream(sim.base_url, http=http, timeouts=PATIENCE | {"idle_s": SOON}) as channel,
        aclosing(channel.stream(chat(), Call())) as batches,
    ):
        async for batch in batches:
            got += "".join(delta.text for delta in batch if type(delta) is TextDelta)
            await asyncio.sleep(2 * SOON)
    assert got == TEXT


async def test_a_handshake_that_does_not_end_is_ended_by_the_connect_clock(http: str) -> None:
    async def serve(peer: Peer) -> None:
        await peer.gone()

    async with raw_upstream(serve) as raw:
        timeouts = PATIENCE | {"connect_s": SOON}
        async with upstream(f"https://localhost:{raw.port}/v1", http=http, timeouts=timeouts) as channel:
            error = await failure(channel)
            assert (error.status, error.code) == (504, "upstream_timeout_connect")
            assert error.retryable
            await until(lambda: not raw.open)


# ── clients that leave ──


@pytest.mark.parametrize(
    "script",
    [
        Script(silent=True),
        Script(drip_ms=5),
        Script(stall_after=0),
        Script(text=TEXT, chunks=4, stall_at_byte=150),
        Script(status=500, stall_at_byte=5),
    ],
)
@pytest.mark.parametrize(("stream", "turns"), [(True, 0), (True, 50), (False, 50)])
async def test_a_cancelled_call_closes_its_connection_at_once_and_leaves_nothing(
    sim: OpenAISimulator, script: Script, stream: bool, turns: int, http: str
) -> None:
    sim.script(script)
    async with upstream(sim.base_url, http=http) as channel:
        before = asyncio.all_tasks()
        task = asyncio.create_task(deltas(channel, request=chat(stream=stream)))
        await sim.wait_until(lambda: sim.stats()["live"] == 1)
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()
        await all_closed(sim)
        assert {one for one in asyncio.all_tasks() - before if "simulator" not in one.get_name()} == set()
        assert sim.requests[0].aborted
        assert await answer(channel) == TEXT


async def test_closing_the_stream_closes_the_connection(sim: OpenAISimulator, http: str) -> None:
    sim.script(Script(chunks=1000, pace_ms=1))
    async with upstream(sim.base_url, http=http) as channel:
        async with aclosing(channel.stream(chat(), Call())) as batches:
            await anext(batches)
        await all_closed(sim)
        assert await answer(channel) == TEXT


@pytest.mark.parametrize("turns", range(0, 60, 4))
async def test_cancelled_after_any_number_of_turns_nothing_is_left(
    sim: OpenAISimulator, turns: int, http: str
) -> None:
    sim.default = Script(text=TEXT, chunks=4, split_at=50)
    async with upstream(sim.base_url, http=http) as channel:
        tasks = [asyncio.create_task(answer(channel)) for _ in range(5)]
        for _ in range(turns):
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(result == TEXT or isinstance(result, asyncio.CancelledError) for result in results)
        # What is open is kept for the next request, and answers nobody.
        await sim.wait_until(lambda: not sim.stats()["live"])
        assert await answer(channel) == TEXT


async def test_many_at_once_do_not_mix(sim: OpenAISimulator, http: str) -> None:
    async with upstream(sim.base_url, http=http) as channel:
        asked: list[ChatRequest] = []
        for number in range(40):
            sim.script(Script(), times=1)
            asked.append(chat(messages=[{"role": "user", "content": f"number {number}"}]))
        said = await asyncio.gather(*(answer(channel, request=one) for one in asked))
    assert [f"number {number}" in text for number, text in enumerate(said)] == [True] * 40
    assert len(set(said)) == 40


async def test_a_slow_end_of_the_body_holds_up_nobody(sim: OpenAISimulator, http: str) -> None:
    """After [DONE] the answer is whole; only the connection is lost."""

    async def serve(peer: Peer) -> None:
        await peer.request()
        event = b'data: {"choices":[{"index":0,"delta":{"content":"x"},"finish_reason":"stop"}]}\n\n'
        body = event + b"data: [DONE]\n\n"
        await peer.send(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n" % (len(body), body)
        )
        await peer.gone()

    async with raw_upstream(serve) as raw, upstream(f"http://127.0.0.1:{raw.port}", http=http) as channel:
        assert await answer(channel) == "x"
        await until(lambda: not raw.open)
        assert await answer(channel) == "x"
        assert len(raw.peers) == 2
