"""The load of scenario W: many watchers of one stream. ``python -m bench.watchers`` is used as bench.load is.

What is counted as words is events: every one that every watcher was told.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from typing import cast

import msgspec
import uvloop

from bench.check import RUN_ENDS, BadAnswer, Expected, check_watcher
from bench.framing import HEAD_END
from bench.load import Driver, Meter, ask_all, measured
from bench.results import Measured
from bench.tally import Job, Tally
from bench.websocket import handshake, masked_text

IS_READY = b'"subscribed"'
IS_OVER = tuple(f'"{end}"'.encode() for end in RUN_ENDS)
LONGEST = max(len(sign) for sign in (IS_READY, *IS_OVER))
SUBSCRIBING = (
    {"type": "connection_init"},
    {"type": "subscribe", "id": "1", "topic": "self", "include": ["answer"]},
)


class Audience:
    """How far all watchers are."""

    def __init__(self, size: int) -> None:
        self.all_ready, self.all_over = asyncio.Event(), asyncio.Event()
        self._not_ready = self._not_over = size

    def ready(self) -> None:
        self._not_ready -= 1
        if not self._not_ready:
            self.all_ready.set()

    def over(self) -> None:
        self._not_over -= 1
        if not self._not_over:
            self.all_over.set()


class Watcher(asyncio.Protocol):
    """Keeps all that one watcher is told, until a run has ended."""

    def __init__(self, request: bytes, audience: Audience) -> None:
        self._request = request
        self._audience = audience
        self._transport: asyncio.WriteTransport | None = None
        self._is_upgraded = self._is_ready = self._is_over = False
        self._tail = b""
        self.reads: list[tuple[int, bytes]] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self.reads.append((time.monotonic_ns() // 1000, data))
        seen = self._tail + data
        if not self._is_upgraded and HEAD_END in seen and self._transport is not None:
            self._is_upgraded = True
            for message in SUBSCRIBING:
                self._transport.write(masked_text(msgspec.json.encode(message)))
        if not self._is_ready and IS_READY in seen:
            self._is_ready = True
            self._audience.ready()
        if not self._is_over and any(end in seen for end in IS_OVER):
            self._end()
        self._tail = seen[-LONGEST:]

    def connection_lost(self, _error: Exception | None) -> None:
        self._transport = None
        if not self._is_ready:
            self._is_ready = True
            self._audience.ready()
        if not self._is_over:
            self._end()

    def _end(self) -> None:
        self._is_over = True
        self._audience.over()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()


def request(job: Job) -> bytes:
    """What a watcher asks."""
    assert job.watch_path is not None  # who has none is not asked
    return handshake(job.watch_path, {"host": f"127.0.0.1:{job.port}", **job.headers})


async def seat(job: Job, audience: Audience, watchers: list[Watcher]) -> None:
    """Connect one watcher after the other. Raises OSError."""
    asked = request(job)
    loop = asyncio.get_running_loop()
    for _ in range(job.load.watchers):
        _, watcher = await loop.create_connection(lambda: Watcher(asked, audience), "127.0.0.1", job.port)
        watchers.append(watcher)


async def run(job: Job) -> Measured:
    """Carry out a job: seat the watchers, then have the one stream; the window is its length."""
    gc.disable()
    load, meter, driver = job.load, Meter(job), Driver(job)
    audience = Audience(load.watchers)
    watchers: list[Watcher] = []
    try:
        async with asyncio.timeout(load.drain_s):
            await seat(job, audience, watchers)
            await audience.all_ready.wait()
    except (OSError, TimeoutError) as error:
        driver.fault(
            f"{len(watchers)} of {load.watchers} watchers could connect: {error or 'no subscription'}"
        )
    async with asyncio.TaskGroup() as group:
        sampler = group.create_task(meter.watch_memory())
        await asyncio.sleep(load.warmup_s)
        opened = meter.read()
        asker = group.create_task(ask_all(driver))
        try:
            async with asyncio.timeout(load.drain_s):
                await driver.idle.wait()
                await audience.all_over.wait()
        except TimeoutError:
            driver.fault(f"not all watchers were told the run's end in {load.drain_s:g} s")
        closed = meter.read()
        sampler.cancel()
        asker.cancel()
    driver.close()
    for watcher in watchers:
        watcher.close()
    tally = Tally(job, opened.at_us, closed.at_us)
    for answer in driver.answers:
        tally.add(answer)
        # Who asked is no watcher: what it read is not what the watchers were told.
        tally.words = 0
        tally.transits.clear()
        hear(tally, watchers, Expected(answer.nonce, job.words))
    return measured(driver, tally, meter, opened, closed)


def hear(tally: Tally, watchers: list[Watcher], expected: Expected) -> None:
    """Judge what each watcher was told, and count it."""
    for watcher in watchers:
        try:
            seen, told = check_watcher(watcher.reads, expected)
        except BadAnswer as error:
            tally.faults.append(f"a watcher: {error}")
            continue
        tally.good += 1
        tally.words += told
        tally.transits += [at - sent for at, sent in zip(seen.arrived_us, seen.sent_us, strict=True)]


def main() -> None:
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
    sys.stdout.buffer.write(msgspec.json.encode(uvloop.run(run(job))) + b"\n")


if __name__ == "__main__":
    main()
