"""SIGTERM, as a client and as a watcher of its run sees it."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from server.simulators.openai import OpenAISimulator
from server.simulators.script import Script
from tests.behaviour.program import Program, in_time, program
from tests.behaviour.running import ask
from tests.raw_http import PATIENCE_S


@asynccontextmanager
async def serving(
    sim: OpenAISimulator, path: Path, drain_s: float, notice_s: float = 0
) -> AsyncIterator[Program]:
    config = path / "config.yaml"
    config.write_text(
        f"server: {{drain_s: {drain_s}, drain_notice_s: {notice_s}}}\n"
        f"channels: [{{name: sim, kind: openai, base_url: '{sim.base_url}', models: [m]}}]\n"
    )
    async with program(config) as server:
        yield server


async def begin_watching(socket: ClientConnection) -> None:
    await socket.send(json.dumps({"type": "connection_init"}))
    await socket.send(json.dumps({"type": "subscribe", "id": "1", "topic": "self", "include": ["answer"]}))
    await in_time(socket.recv())
    assert json.loads(await in_time(socket.recv()))["type"] == "subscribed"


async def read_out(socket: ClientConnection) -> tuple[list[Any], int, str]:
    """All messages up to the close; its code and reason."""
    async with asyncio.timeout(PATIENCE_S):
        messages = [json.loads(message) async for message in socket]  # ends quietly with 1000 and 1001
    assert socket.close_code is not None
    return messages, socket.close_code, socket.close_reason or ""


@pytest.mark.parametrize(
    ("script", "drain_s", "end", "by"),
    [
        (Script(text="one two three", chunks=3, stall_after=2, stall_ms=300), 30, "run.completed", None),
        (Script(text="one two three", chunks=3, stall_after=2), 0.2, "run.cancelled", "shutdown"),
    ],
    ids=["finishes", "outlasts"],
)
@pytest.mark.parametrize("transport", ["websocket", "event stream"])
async def test_a_watcher_sees_the_end_of_a_run_that_ends_in_the_drain(
    tmp_path: Path, transport: str, script: Script, drain_s: float, end: str, by: str | None
) -> None:
    async with (
        OpenAISimulator() as sim,
        serving(sim, tmp_path, drain_s) as server,
        aiohttp.ClientSession() as client,
        connect(
            f"ws://127.0.0.1:{server.port}/v1/events",
            subprotocols=[Subprotocol("antiphon.events.v1")],
            proxy=None,
        ) as socket,
        client.get(f"{server.url}/v1/events", headers={"Accept": "text/event-stream"}) as events,
    ):
        sim.script(script)
        await begin_watching(socket)
        async with client.post(f"{server.url}/v1/chat/completions", json=ask(stream=True)) as answer:
            await in_time(answer.content.readline())
            server.signal()
            told = (await in_time(answer.read())).decode()
        if transport == "websocket":
            messages, code, reason = await read_out(socket)
            assert (code, reason) == (1001, "shutdown")
            assert messages[-1]["type"] == "goaway"
            last = messages[-2]["event"]
        else:
            text = (await in_time(events.read())).decode()
            last = json.loads(text.rstrip().rpartition("data: ")[2])
        assert last["type"] == end
        assert last["data"].get("by") == by
        assert ("[DONE]" in told) == (by is None)
        assert ('"shutting_down"' in told) == (by is not None)
        await socket.close()
        assert await server.ended() == 0


async def test_with_notice_a_load_balancer_sees_it_unready_before_connections_are_refused(
    tmp_path: Path,
) -> None:
    async with (
        OpenAISimulator() as sim,
        serving(sim, tmp_path, 30, notice_s=3600) as server,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as client,
    ):
        server.signal(signal.SIGTERM)
        async with asyncio.timeout(PATIENCE_S):
            while True:
                async with client.get(f"{server.url}/readyz") as answer:
                    if answer.status == 503:
                        break
        async with client.post(f"{server.url}/v1/chat/completions", json=ask()) as answer:
            assert answer.status == 200
        server.signal(signal.SIGINT)  # ends the notice
        assert await server.ended() == 0
        with pytest.raises(aiohttp.ClientConnectorError):
            await client.get(f"{server.url}/readyz")


async def test_watchers_without_a_run_are_closed_at_once(tmp_path: Path) -> None:
    async with (
        OpenAISimulator() as sim,
        serving(sim, tmp_path, 30) as server,
        connect(
            f"ws://127.0.0.1:{server.port}/v1/events",
            subprotocols=[Subprotocol("antiphon.events.v1")],
            proxy=None,
        ) as socket,
    ):
        await begin_watching(socket)
        server.signal()
        messages, code, _ = await read_out(socket)
        assert ([message["type"] for message in messages], code) == (["goaway"], 1001)
        assert await server.ended() == 0


async def test_a_second_signal_closes_watchers_with_their_reason(tmp_path: Path) -> None:
    async with (
        OpenAISimulator() as sim,
        serving(sim, tmp_path, 30) as server,
        aiohttp.ClientSession() as client,
        connect(
            f"ws://127.0.0.1:{server.port}/v1/events",
            subprotocols=[Subprotocol("antiphon.events.v1")],
            proxy=None,
        ) as socket,
    ):
        sim.script(Script(text="one two three", chunks=3, stall_after=2))
        await begin_watching(socket)
        async with client.post(f"{server.url}/v1/chat/completions", json=ask(stream=True)) as answer:
            await in_time(answer.content.readline())
            server.signal(signal.SIGTERM)
            server.signal(signal.SIGINT)  # two of one kind may arrive as one
            _, code, reason = await read_out(socket)
        assert (code, reason) == (1001, "shutdown")
        assert await server.ended() == 0
