from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from server.serving import ServeOptions, run, serve
from tests.raw_http import PATIENCE_S, RawClient, connect
from tests.served import GET, HOST, echo_app, exchange

ROOT = Path(__file__).parent.parent


async def test_a_start_that_fails_is_cleaned_up() -> None:
    cleaned = False

    async def lifetime(_app: web.Application) -> AsyncIterator[None]:
        nonlocal cleaned
        yield
        cleaned = True

    async def fail(_app: web.Application) -> None:
        raise RuntimeError("no store")

    app = web.Application()
    app.cleanup_ctx.append(lifetime)
    app.on_startup.append(fail)
    with pytest.raises(RuntimeError, match="no store"):
        await serve(app, ServeOptions(port=0), on_ready=lambda _url: pytest.fail("ready"))
    assert cleaned


async def test_a_failing_reload_leaves_the_server_as_it_was() -> None:
    tried: asyncio.Queue[None] = asyncio.Queue(maxsize=10)

    async def reload() -> None:
        tried.put_nowait(None)
        raise ValueError("bad file")

    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    options = ServeOptions(port=0)
    task = asyncio.create_task(serve(echo_app(), options, on_ready=ready.set_result, reload=reload))
    port = int((await ready).rpartition(":")[2])
    async with asyncio.timeout(PATIENCE_S):
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGHUP)
            await tried.get()
    assert (await exchange(port, GET)).status == 200
    task.cancel()
    await asyncio.wait({task})


def test_run_chooses_uvloop_and_returns_what_main_returns() -> None:
    uvloop = pytest.importorskip("uvloop")

    async def main() -> bool:
        return isinstance(asyncio.get_running_loop(), uvloop.Loop)

    assert run(main())


class Process:
    """``tests/serving_program.py``, running."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.port = 0

    async def says(self, word: str) -> None:
        async with asyncio.timeout(PATIENCE_S):
            assert self.process.stdout is not None
            line = (await self.process.stdout.readline()).decode().strip()
        assert line == word

    def signal(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def release(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(b"go\n")

    async def ends(self, *words: str) -> None:
        """It says ``words``, then nothing, and leaves with status 0 and an empty stderr."""
        async with asyncio.timeout(PATIENCE_S):
            out, err = await self.process.communicate()
        assert out.decode().split() == list(words)
        assert (self.process.returncode, err.decode()) == (0, "")

    @asynccontextmanager
    async def get(self, path: bytes, *headers: bytes) -> AsyncIterator[RawClient]:
        async with connect("127.0.0.1", self.port) as client:
            lines = b"".join(header + b"\r\n" for header in headers)
            await client.send(b"GET " + path + b" HTTP/1.1\r\n" + HOST + lines + b"\r\n")
            yield client


Start = Callable[..., Awaitable[Process]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    started: list[asyncio.subprocess.Process] = []

    async def start(drain_s: float = 30, reload: str = "reload") -> Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "tests.serving_program", str(drain_s), reload),
            cwd=ROOT,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        started.append(process)
        program = Process(process)
        async with asyncio.timeout(PATIENCE_S):
            assert process.stdout is not None
            program.port = int((await process.stdout.readline()).decode().rpartition(":")[2])
        return program

    yield start
    for process in started:
        if process.returncode is None:
            process.kill()
            await process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_an_idle_server_and_closes_idle_connections(start: Start, number: int) -> None:
    process = await start()
    async with connect("127.0.0.1", process.port) as client:
        await client.send(b"GET /nothing HTTP/1.1\r\n" + HOST + b"\r\n")
        await client.answer()
        process.signal(number)
        assert await client.rest() == b""
        await process.ends("draining", "cleaned", "ended")


async def test_a_running_answer_is_finished_and_closes_while_nobody_new_is_let_in(start: Start) -> None:
    process = await start()
    async with process.get(b"/wait") as client, process.get(b"/stream") as stream:
        await process.says("waiting")
        assert (await stream.head()).status == 200
        assert await stream.chunk() == b"begun"
        process.signal()
        await process.says("draining")
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", process.port)
        process.release()
        answer = await client.answer()
        assert (answer.body, answer.headers["connection"]) == (b"done", "close")
        assert await client.rest() == b""
        assert await stream.chunk() == b"done"
        assert await stream.chunk() == b""
        assert await stream.rest() == b""
        await process.ends("cleaned", "ended")


async def test_a_body_that_is_still_coming_is_read_while_draining(start: Start) -> None:
    process = await start()
    async with connect("127.0.0.1", process.port) as client:
        await client.send(b"POST /body HTTP/1.1\r\nContent-Length: 4\r\n" + HOST + b"\r\nab")
        await process.says("waiting")
        async with connect("127.0.0.1", process.port) as idle:
            process.signal()
            assert await idle.rest() == b""  # it was opened later: now the other was looked at, too
        await process.says("draining")
        await client.send(b"cd")
        assert (await client.answer()).body == b"4"
        await process.ends("cleaned", "ended")


async def test_a_websocket_closes_first_and_an_answer_still_has_its_time(start: Start) -> None:
    process = await start()
    upgrade = (
        *(b"Connection: Upgrade", b"Upgrade: websocket"),
        *(b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="),
    )
    async with process.get(b"/socket", *upgrade) as watcher, process.get(b"/wait") as client:
        assert (await watcher.head()).status == 101
        async with asyncio.timeout(PATIENCE_S):
            assert process.process.stdout is not None
            lines = {await process.process.stdout.readline() for _ in range(2)}
        assert lines == {b"connected\n", b"waiting\n"}
        process.signal()
        async with asyncio.timeout(PATIENCE_S):
            assert await watcher.reader.readexactly(4) == b"\x88\x02\x03\xe9"  # close, 1001
        await watcher.send(b"\x88\x82\0\0\0\0\x03\xe9")
        assert await watcher.rest() == b""
        await process.says("draining")
        await process.says("closed")
        process.release()
        assert (await client.answer()).body == b"done"
        await process.ends("cleaned", "ended")


async def test_what_outlives_the_drain_says_its_last_word_or_is_cancelled(start: Start) -> None:
    process = await start(drain_s=0.2)
    async with process.get(b"/stuck") as stuck, process.get(b"/stream") as stream:
        await process.says("waiting")
        assert await stream.head()
        assert await stream.chunk() == b"begun"
        process.signal()
        assert await stream.chunk() == b"error: shutting_down"
        assert await stuck.rest() == b""
        await process.ends("draining", "over", "cancelled", "cleaned", "ended")


async def test_a_second_signal_ends_the_drain_at_once(start: Start) -> None:
    process = await start(drain_s=600)
    async with process.get(b"/stuck") as stuck:
        await process.says("waiting")
        process.signal()
        await process.says("draining")
        process.signal(signal.SIGINT)
        assert await stuck.rest() == b""
        await process.ends("cancelled", "cleaned", "ended")


async def test_hangup_reloads_and_goes_on(start: Start) -> None:
    process = await start()
    for _ in range(2):
        process.signal(signal.SIGHUP)
        await process.says("reloaded")
    process.signal()
    await process.ends("draining", "cleaned", "ended")


async def test_hangup_drains_where_there_is_nothing_to_reload(start: Start) -> None:
    process = await start(reload="plain")
    process.signal(signal.SIGHUP)
    await process.ends("draining", "cleaned", "ended")
