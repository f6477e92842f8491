from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bench.results import Measured
from bench.scenarios import Load
from bench.tally import Job
from tests.bench.answers import UPGRADED, frame, told
from tests.bench.programs import PATIENCE_S, mock, watched

LOAD = Load(1, once=True, watchers=2, warmup_s=0.05, drain_s=3)
SUBSCRIBED = frame(b'{"type": "subscribed", "id": "1"}')


class Channel(asyncio.Protocol):
    """A status channel that says ``telling`` to whoever subscribes; it answers no chat."""

    def __init__(self, telling: bytes, gone: asyncio.Event) -> None:
        self._telling, self._gone = telling, gone
        self._transport: asyncio.Transport | None = None
        self._got = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._got += data
        assert self._transport is not None
        if self._got.startswith(b"POST"):
            self._transport.close()
        elif b"subscribe" in self._got:
            self._transport.write(self._telling)
        elif self._got.endswith(b"\r\n\r\n"):
            self._transport.write(UPGRADED)

    def connection_lost(self, _error: Exception | None) -> None:
        self._gone.set()


@asynccontextmanager
async def channel(telling: bytes) -> AsyncIterator[int]:
    gone = asyncio.Event()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Channel(telling, gone), "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]
        async with asyncio.timeout(PATIENCE_S):
            await gone.wait()


async def measured(port: int) -> Measured:
    return await watched(
        Job(port, "/v1/chat/completions", {}, "rig-short", LOAD, 20, watch_path="/v1/events")
    )


async def test_watchers_that_hear_of_another_run_are_faults() -> None:
    async with channel(SUBSCRIBED + told("run.failed")) as port:
        found = await measured(port)
    assert not found.is_good
    assert "connection lost" in (found.first_fault or "")
    assert found.bad == 3  # the asker, and both watchers


async def test_a_server_without_a_status_channel_is_a_fault() -> None:
    async with mock() as port:
        found = await measured(port)
    assert not found.is_good
    assert found.bad == 2
    assert "404 in place of a websocket" in (found.first_fault or "")


async def test_a_port_where_nobody_listens_is_a_fault() -> None:
    async with mock() as port:
        pass
    found = await measured(port)
    assert "0 of 2 watchers could connect" in (found.first_fault or "")
