"""What an answer that passes through looks like to clients of all sorts, and in the run's log."""

from __future__ import annotations

import asyncio
from typing import Any

from server.app_keys import ACCOUNTS, METRICS, RUNS
from server.settings import Routing, Settings
from server.simulators.openai import OpenAISimulator
from server.simulators.script import Script
from tests.behaviour.asking import asked, both, chat_request, error_of, get, post
from tests.behaviour.running import QUIET, channel

SPEAK = {"model": "m", "voice": "alloy", "input": "one two three"}
SPEECH = "/v1/audio/speech"
MINE = "run_" + "a" * 32


def settings(sim: OpenAISimulator) -> Settings:
    return Settings(
        channels=(channel(sim), channel(sim, "m", name="spare", priority=-1)),
        routing=Routing(tell_channels=True),
        logging=QUIET,
    )


async def events(server: Any, run_id: str) -> list[tuple[str, dict[str, Any]]]:
    told = (await get(server, f"/v1/runs/{run_id}/events")).json()["data"]
    return [(event["type"], event["data"]) for event in told]


async def test_the_run_tells_the_call_its_channel_and_its_end() -> None:
    async with both(settings) as (server, sim):
        sim.script(Script(status=500), route="embeddings")
        answer = await post(server, {"model": "m", "input": "a b"}, path="/v1/embeddings")
        assert answer.headers["x-antiphon-attempts"] == "sim=upstream_error, spare=ok"
        told = await events(server, answer.headers["x-run-id"])
        kinds = [kind for kind, _ in told]
        assert kinds[0] == "run.created"
        assert "model.retrying" in kinds
        assert kinds[-1] == "run.completed"
        assert told[-1][1]["usage"]["prompt_tokens"] == 2


async def test_a_failed_run_and_one_without_usage() -> None:
    async with both(settings) as (server, sim):
        sim.script(Script(status=400), route="audio/speech")
        failed = await post(server, SPEAK, path=SPEECH)
        assert error_of(failed, 400)
        assert (await events(server, failed.headers["x-run-id"]))[-1][0] == "run.failed"
        spoken = await post(server, SPEAK, path=SPEECH)
        kind, data = (await events(server, spoken.headers["x-run-id"]))[-1]
        assert (kind, data["usage"]) == ("run.completed", None)


async def test_a_run_that_a_watcher_cancels_is_410_or_a_cut() -> None:
    async with both(settings) as (server, sim):
        sim.script(Script(silent=True), route="embeddings")
        body = {"model": "m", "input": "a"}
        request = chat_request(body, f"x-run-id: {MINE}", path="/v1/embeddings")
        async with asked(server, request) as raw:
            await sim.wait_until(lambda: sim.stats()["live"] == 1)
            assert (await post(server, b"", path=f"/v1/runs/{MINE}/cancel")).status < 300
            assert error_of(await raw.answer(), 410)["code"] == "run_cancelled"
        sim.script(Script(stall_after=1), route="audio/speech")
        async with asked(server, chat_request(SPEAK, path=SPEECH)) as raw:
            run_id = (await raw.head()).headers["x-run-id"]
            assert await raw.chunk()
            await post(server, b"", path=f"/v1/runs/{run_id}/cancel")
            assert not (await raw.rest()).endswith(b"0\r\n\r\n")
        await sim.wait_until(lambda: sim.stats()["live"] == 0)


async def test_an_older_client_gets_sound_that_ends_with_the_connection() -> None:
    async with both(settings) as (server, _):
        request = chat_request(SPEAK, path=SPEECH).replace(b"HTTP/1.1", b"HTTP/1.0")
        async with asked(server, request) as raw:
            answer = await raw.answer()
        assert answer.status == 200
        assert "transfer-encoding" not in answer.headers
        assert len(answer.body) == 3010


async def test_a_known_length_is_told_and_a_short_body_never_looks_whole() -> None:
    async with both(settings) as (server, sim):
        sim.script(Script(framing="length", pace_ms=5), route="audio/speech")
        answer = await post(server, SPEAK, path=SPEECH)
        assert answer.headers["content-length"] == str(len(answer.body)) == "3010"
        sim.script(Script(framing="length", cut_after=1), route="audio/speech")
        async with asked(server, chat_request(SPEAK, path=SPEECH)) as raw:
            assert (await raw.head()).headers["content-length"] == "3010"
            assert len(await raw.rest()) < 3010


async def test_only_what_belongs_to_the_body_comes_from_the_upstreams_head() -> None:
    async with both(settings) as (server, sim):
        sim.script(Script(headers={"set-cookie": "a=b", "x-secret": "y", "server": "z"}), route="embeddings")
        answer = await post(server, {"model": "m", "input": "a"}, path="/v1/embeddings")
        assert answer.headers["server"] == "antiphon"
        assert not {"set-cookie", "x-secret", "openai-organization"} & set(answer.headers)


async def test_the_end_of_the_server_ends_what_flows() -> None:
    async with both(settings) as (server, sim):
        sim.script(Script(stall_after=1), route="audio/speech")
        async with asked(server, chat_request(SPEAK, path=SPEECH)) as raw:
            await raw.head()
            assert await raw.chunk()
            server.app[RUNS].cancel_all("shutdown")
            assert not (await raw.rest()).endswith(b"0\r\n\r\n")
        async with asyncio.timeout(10):
            await server.app[RUNS].all_ended()
        server.app[ACCOUNTS].flush()
        assert server.app[METRICS].requests[SPEECH, "POST", "200"] == 1
