"""Whatever went wrong, the next request is answered, and nothing of the fault is left."""

from __future__ import annotations

import asyncio

import pytest

from server.settings import Combination, Member, Settings, Summary, TimeoutsPatch
from server.simulators.openai import OpenAISimulator
from server.simulators.script import Script
from tests.behaviour.asking import (
    asked,
    assert_nothing_left,
    both,
    chat_request,
    chunks_of,
    exchange,
    get,
    post,
    text_of,
    until,
)
from tests.behaviour.running import QUIET, Antiphon, ask, channel
from tests.raw_http import PATIENCE_S, connect

UPSTREAM_FAULTS = {
    "refused with a body": Script(status=400),
    "credentials": Script(status=401),
    "html": Script(status=502, error_form="html"),
    "nothing at all": Script(cut_head_at=0),
    "half a head": Script(cut_head_at=20),
    "half a head, reset": Script(cut_head_at=20, cut="rst"),
    "cut after the head": Script(cut_after=0),
    "cut amid the text": Script(chunks=5, cut_after=2),
    "reset amid the text": Script(chunks=5, cut_after=2, cut="rst"),
    "ended in good order without an end": Script(chunks=5, cut_after=2, cut="clean"),
    "no last chunk": Script(final_chunk=False),
    "a length too long": Script(length_extra=10, framing="length"),
    "a length too short": Script(length_extra=-10, framing="length"),
    "no json": Script(body="not json"),
    "json of another kind": Script(body='{"hello": 1}'),
    "empty": Script(body=""),
    "no choices": Script(body='{"choices": []}'),
    "an error within a 200": Script(error_after=0),
    "an error amid the text": Script(chunks=5, error_after=2),
    "said nothing": Script(pieces=()),
    "garbage first": Script(inject={0: "data: {{{\n\n"}),
    "an unknown encoding": Script(headers={"Content-Encoding": "br"}),
    "silence": Script(silent=True),
    "silence amid the text": Script(chunks=5, stall_after=2),
    "a redirect": Script(redirect="http://127.0.0.1:1/v1"),
    "text behind the end": Script(after_done="data: more\n\n"),
}


def settings(sim: OpenAISimulator) -> Settings:
    short = TimeoutsPatch(first_token_s=0.4, idle_s=0.4, total_s=0.8)
    members = (Member(model="m"), Member(model="n"))
    panel = Combination(name="panel", members=members, summary=Summary(model="s"), quorum=2, grace_s=60)
    patient = channel(sim, "well", name="patient")  # over the same connections, whatever time it takes
    channels = (channel(sim, "m", "n", "s", timeouts=short), patient)
    return Settings(channels=channels, combinations=(panel,), logging=QUIET)


async def clear(sim: OpenAISimulator, server: Antiphon) -> None:
    async with server.client.delete(f"{sim.url}/sim/script") as cleared:
        assert cleared.status < 300


@pytest.mark.parametrize("stream", [True, False])
async def test_after_every_fault_of_an_upstream_the_next_answer_is_whole_and_its_own(stream: bool) -> None:
    """On a new server for each, so that no channel is left alone for the faults before."""
    for name, script in UPSTREAM_FAULTS.items():
        async with both(settings) as (server, sim):
            sim.script(script, times=20)
            failed = await post(server, ask(stream=stream))
            assert failed.status < 600, name
            await clear(sim, server)
            before = len(sim.requests)
            answer = await post(server, ask("well", text="only this", stream=True))
            assert answer.status == 200, (name, answer.body)
            assert "only this" in text_of(chunks_of(answer.body)), name
            assert len(sim.requests) == before + 1, f"{name}: a spoilt connection was used again"
            await until(lambda sim=sim: sim.stats()["live"] == 0)  # type: ignore[misc]
            assert_nothing_left(server)


CLIENT_FAULTS = {
    "no http": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "half a head": b"POST /v1/chat/completions HTTP/1.1\r\nHost: loc",
    "half a body": chat_request(ask())[:-10],
    "no json": chat_request(b"{"),
    "two lengths": b"POST /v1/models HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "a nul": b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nX: \x00\r\n\r\n",
    "an endless line": b"GET /" + b"a" * 100_000,
    "chunks that break": b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
    b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    "nothing": b"",
}


async def test_after_every_fault_of_a_client_the_next_one_is_answered() -> None:
    async with both(settings) as (server, sim):
        for name, data in CLIENT_FAULTS.items():
            async with connect("127.0.0.1", server.port) as raw:
                await raw.send(data)
                raw.writer.write_eof()
                await raw.rest()
            assert (await post(server, ask())).status == 200, name
        await until(lambda: sim.stats()["live"] == 0)
        assert_nothing_left(server)


async def test_many_who_wait_do_not_hold_up_those_who_ask_for_little() -> None:
    async with both(lambda sim: Settings(channels=(channel(sim, "m"),), logging=QUIET)) as (server, sim):
        sim.script(Script(silent=True), times=60)
        async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as group:
            release = asyncio.Event()

            async def wait() -> None:
                async with asked(server, chat_request(ask(stream=True))):
                    await release.wait()

            for _ in range(60):
                group.create_task(wait())
            await sim.wait_until(lambda: sim.stats()["live"] == 60)
            assert (await get(server, "/v1/models")).status == 200
            assert (await get(server, "/healthz")).status == 200
            release.set()
        await sim.wait_until(lambda: sim.stats()["live"] == 0)
        await until(lambda: len(sim.requests) == 60)


async def test_a_watchers_nonsense_costs_nobody_else_anything() -> None:
    async with both(settings) as (server, sim):
        upgrade = (
            b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            b"Sec-WebSocket-Protocol: antiphon.events.v1\r\n\r\n"
        )
        sim.script(Script(pieces=("y" * 100_000,) * 100))
        async with asked(server, chat_request(ask("s", stream=True))) as raw:
            await raw.head()
            for nonsense in (b"\xff" * 200, b"\x81\x05hello", b"\x88", b"GET / HTTP/1.1\r\n\r\n"):
                async with connect("127.0.0.1", server.port) as watcher:
                    await watcher.send(upgrade + nonsense)
                    await watcher.head()
            body = []
            while piece := await raw.chunk():
                body.append(piece)
            assert b"".join(body).endswith(b"data: [DONE]\n\n")
        assert (await exchange(server, chat_request(ask()))).status == 200
