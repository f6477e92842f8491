from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest

from bench.results import Measured
from bench.scenarios import MODELS, WHOLE, Load
from bench.tally import Job
from tests.bench.programs import PATIENCE_S, load, mock

SHORT = Load(2, warmup_s=0.05, window_s=0.5, drain_s=5)


def job(port: int, model: str, asked: Load) -> Job:
    return Job(port, "/v1/chat/completions", {}, model, asked, MODELS[model].words)


class Scripted(asyncio.Protocol):
    """Says the same bytes to every request, and closes."""

    def __init__(self, answer: bytes, open_ones: set[Scripted], none_open: asyncio.Event) -> None:
        self._answer, self._open, self._none_open = answer, open_ones, none_open
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._open.add(self)
        self._none_open.clear()

    def data_received(self, _data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(self._answer)
            self._transport.close()

    def connection_lost(self, _error: Exception | None) -> None:
        self._open.discard(self)
        if not self._open:
            self._none_open.set()


@asynccontextmanager
async def scripted(answer: bytes) -> AsyncIterator[int]:
    """A server that says ``answer`` to every request; yields its port."""
    open_ones: set[Scripted] = set()
    none_open = asyncio.Event()
    none_open.set()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Scripted(answer, open_ones, none_open), "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]
    async with asyncio.timeout(PATIENCE_S):
        await none_open.wait()


async def measured(model: str, asked: Load) -> Measured:
    async with mock() as port:
        found = await load(job(port, model, asked))
    assert found.is_good, found.first_fault
    return found


async def test_streams_in_a_closed_loop_are_counted_and_timed() -> None:
    found = await measured("rig-short", SHORT)
    assert found.held == 2
    assert found.words > 0
    assert found.first_us is not None
    assert found.first_us.p50 >= 19_000
    assert found.gap_us is not None
    assert found.transit_us is not None
    assert found.transit_us.p50 >= 0


async def test_whole_answers_on_a_schedule_keep_its_rate() -> None:
    asked = msgspec.structs.replace(SHORT, stream=False, per_s=50)
    found = await measured(WHOLE, asked)
    # 27.5 are due within warm-up and window; each is sent at its time or as soon as the machine lets it.
    assert 20 <= found.good <= 30
    assert found.first_us is None


async def test_a_connection_that_asks_once_asks_once() -> None:
    asked = msgspec.structs.replace(SHORT, connections=5, once=True, ramp_s=0.1)
    assert (await measured("rig-short", asked)).good == 5


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (b"", "connection lost"),
        (b"HTTP/1.1 500 Oh\r\ncontent-length: 4\r\n\r\nboom", "500"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\ndata:", "connection lost"),
        (b"HTTP/1.1 200 OK\r\n\r\ndata: [DONE]\n\n", "0 words of 20"),
    ],
)
async def test_wrong_answers_are_faults_and_no_result(answer: bytes, fault: str) -> None:
    async with scripted(answer) as port:
        found = await load(job(port, "rig-short", SHORT))
    assert not found.is_good
    assert fault in (found.first_fault or "")


async def test_an_answer_that_never_ends_is_a_fault() -> None:
    async with mock() as port:
        found = await load(job(port, "rig-slow", msgspec.structs.replace(SHORT, drain_s=0.1)))
    assert found.bad == 2
    assert "unfinished" in (found.first_fault or "")


async def test_a_port_where_nobody_listens_is_a_fault() -> None:
    async with scripted(b"") as port:
        pass
    found = await load(job(port, "rig-short", SHORT))
    assert "cannot connect" in (found.first_fault or "")
