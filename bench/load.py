"""The load generator. ``python -m bench.load`` reads a Job from stdin and prints a Measured, both as JSON.

While it runs it only keeps what comes, with the time of each read; answers are judged afterwards, so the
check costs the measured window nothing.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from typing import NamedTuple, cast

import msgspec
import uvloop

from bench import cpu
from bench.framing import HEAD_END, LAST_CHUNK, content_length, is_chunked
from bench.results import Measured, Spread
from bench.tally import Answer, Job, Tally

HEADERS = {
    "user-agent": "OpenAI/Python 1.99.0",
    "accept": "application/json",
    "accept-encoding": "identity",
    "content-type": "application/json",
}
ASKED_CHARS = 700
_FILL = "Tell me how the river finds its way below the old stone bridge. "
_TO_THE_END = -1  # the body ends with the connection
_IN_CHUNKS = -2
_NO_HEAD_YET = -3
SAMPLE_S = 0.5
GIVE_UP_AFTER = 2000  # faults


def now_us() -> int:
    """The monotonic clock, which the mock reads too."""
    return time.monotonic_ns() // 1000


class RequestText:
    """The bytes of a request; all nonces have one width, so only they change."""

    def __init__(self, job: Job) -> None:
        text = (_FILL * (ASKED_CHARS // len(_FILL) + 1))[:ASKED_CHARS]
        body: dict[str, object] = {
            "model": job.model,
            "messages": [
                {"role": "system", "content": "You are a helpful assistant."},
                {"role": "user", "content": f"[ask {'0' * 12}] {text}"},
            ],
            "temperature": 0.7,
            "max_tokens": 512,
        }
        if job.load.stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        encoded = msgspec.json.encode(body)
        headers = {
            "host": f"127.0.0.1:{job.port}",
            **HEADERS,
            **job.headers,
            "content-length": str(len(encoded)),
        }
        lines = [f"POST {job.path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        before, after = encoded.split(b"0" * 12)
        self._before = "\r\n".join(lines).encode() + HEAD_END + before
        self._after = after

    def numbered(self, nonce: int) -> bytes:
        # A nonce begins with 1, so that it reads the same with and without leading zeros.
        return b"%b%012d%b" % (self._before, nonce, self._after)


class Connection(asyncio.Protocol):
    """One connection: at most one answer at a time."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._transport: asyncio.WriteTransport | None = None
        self.answer: Answer | None = None
        self._left = _NO_HEAD_YET
        self._tail = b""

    @property
    def is_open(self) -> bool:
        return self._transport is not None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)  # uvloop's are of no class of asyncio's

    def ask(self, answer: Answer, request: bytes) -> None:
        """Send a request; what comes is kept in ``answer``."""
        self.answer = answer
        self._left = _NO_HEAD_YET
        self._tail = b""
        if self._transport is not None:
            self._transport.write(request)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        answer = self.answer
        if answer is None:
            self._driver.fault("bytes that were not asked for")
            self.close()
            return
        answer.at_us.append(time.monotonic_ns() // 1000)
        answer.reads.append(data)
        if self._left == _NO_HEAD_YET:
            head, found, data = b"".join(answer.reads).partition(HEAD_END)
            if not found:
                return
            head += HEAD_END
            length = content_length(head)
            self._left = _IN_CHUNKS if is_chunked(head) else _TO_THE_END if length is None else length
            # An empty chunked body follows its head with nothing but the last chunk.
            self._tail = b"\r\n"
        if self._left == _IN_CHUNKS:
            self._tail = data[-7:] if len(data) >= 7 else (self._tail + data)[-7:]
            if self._tail == LAST_CHUNK:
                self._finish(answer)
        elif self._left >= 0:
            self._left -= len(data)
            if self._left <= 0:
                self._finish(answer)

    def _finish(self, answer: Answer) -> None:
        answer.fault = None
        self.answer = None
        self._driver.finished(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        answer = self.answer
        if answer is not None:
            self.answer = None
            answer.fault = None if self._left == _TO_THE_END else f"connection lost: {error or 'closed'}"
        self._driver.lost(self, had_answer=answer is not None)


class Driver:
    """Opens the connections, asks as the load says, and keeps all answers."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.answers: list[Answer] = []
        self.live = self.held = 0
        self.faults: list[str] = []
        self.asking = True
        self.idle = asyncio.Event()  # nothing is on its way
        self._texts = RequestText(job)
        self._free: list[Connection] = []
        self._opened: list[Connection] = []
        self._again: asyncio.Queue[None] = asyncio.Queue(job.load.connections)

    def fault(self, text: str) -> None:
        """Note what went wrong besides answers; too much of it ends the asking."""
        self.faults.append(text)
        if len(self.faults) > GIVE_UP_AFTER:
            self.asking = False

    def _ask(self, connection: Connection, due_us: int) -> None:
        nonce = 10**11 + len(self.answers)
        answer = Answer(nonce, due_us)
        self.answers.append(answer)
        self.live += 1
        self.held = max(self.held, self.live)
        self.idle.clear()
        connection.ask(answer, self._texts.numbered(nonce))

    def _left_off(self) -> None:
        self.live -= 1
        if not self.live:
            self.idle.set()

    def finished(self, connection: Connection) -> None:
        """An answer has come: ask again, or be there for the next."""
        self._left_off()
        load = self.job.load
        if load.once:
            connection.close()
        elif load.per_s:
            self._free.append(connection)
        elif self.asking:
            self._ask(connection, now_us())

    def lost(self, connection: Connection, had_answer: bool) -> None:
        """A connection has ended; another takes its place in a closed loop."""
        if had_answer:
            self._left_off()
        if connection in self._free:
            self._free.remove(connection)
        if self.asking and not self.job.load.once and not self.job.load.per_s and not self._again.full():
            self._again.put_nowait(None)

    async def _open(self) -> Connection | None:
        loop = asyncio.get_running_loop()
        try:
            _, connection = await loop.create_connection(lambda: Connection(self), "127.0.0.1", self.job.port)
        except OSError as error:
            self.fault(f"cannot connect: {error}")
            return None
        self._opened.append(connection)
        return connection

    async def _begin(self, due_us: int, after_s: float = 0) -> None:
        """Open a connection and ask; ``due_us`` 0: it is due when the connection stands."""
        await asyncio.sleep(after_s)
        connection = await self._open()
        if connection is not None and self.asking:
            self._ask(connection, due_us or now_us())

    async def _reopen(self) -> None:
        while True:
            await self._again.get()
            await self._begin(0, 0.02)

    async def _schedule(self, group: asyncio.TaskGroup) -> None:
        """The open loop: each request at its time, whatever became of those before."""
        start_us, count = now_us(), 0
        while True:
            due_us = start_us + round(count * 1e6 / self.job.load.per_s)
            await asyncio.sleep(max(0, due_us - now_us()) / 1e6)
            if not self.asking:
                return
            count += 1
            if self._free:
                self._ask(self._free.pop(), due_us)
            elif self.live < self.job.load.connections:
                group.create_task(self._begin(due_us))
            else:
                self.fault("all connections are busy")

    def start(self, group: asyncio.TaskGroup) -> None:
        """Begin as the load says; the tasks end with ``group``."""
        load = self.job.load
        if load.per_s:
            group.create_task(self._schedule(group))
            return
        for number in range(load.connections):
            group.create_task(self._begin(0, load.ramp_s * number / load.connections))
        group.create_task(self._reopen())

    def close(self) -> None:
        for connection in self._opened:
            connection.close()


class Reading(NamedTuple):
    """CPU seconds so far, at a moment of the monotonic clock; None: unknown."""

    at_us: int
    server_s: float | None
    rig_s: float | None
    waited_s: float | None


class Meter:
    """CPU and memory of the server and of the rig, at the window's edges and within."""

    def __init__(self, job: Job) -> None:
        self._server = [] if job.server_pid is None else cpu.tree(job.server_pid)
        self._mock = [] if job.mock_pid is None else [job.mock_pid]
        self.peak_mb: float | None = None

    def read(self) -> Reading:
        server = cpu.seconds(self._server) if self._server else None
        waited = cpu.waited(self._server) if self._server else None
        mock = cpu.seconds(self._mock)
        return Reading(now_us(), server, None if mock is None else mock + time.process_time(), waited)

    async def watch_memory(self) -> None:
        while self._server:
            found = cpu.resident_mb(self._server)
            if found is None:
                return
            self.peak_mb = max(self.peak_mb or 0, found)
            await asyncio.sleep(SAMPLE_S)


async def run(job: Job) -> Measured:
    """Carry out a job; takes warm-up, window, and what the last answers take."""
    load, meter = job.load, Meter(job)
    gc.disable()  # what is kept has no cycles, and a full collection would be seen in the tails
    driver = Driver(job)
    async with asyncio.TaskGroup() as group:
        sampler = group.create_task(meter.watch_memory())
        asker = group.create_task(ask_all(driver))
        await asyncio.sleep(load.warmup_s)
        opened = meter.read()
        await asyncio.sleep(load.window_s)
        closed = meter.read()
        driver.asking = False
        try:
            async with asyncio.timeout(load.drain_s):
                if driver.live:
                    await driver.idle.wait()
        except TimeoutError:
            pass  # what has not come is counted as unfinished
        sampler.cancel()
        asker.cancel()
    driver.close()
    tally = Tally(job, opened.at_us, closed.at_us)
    for answer in driver.answers:
        tally.add(answer)
    return measured(driver, tally, meter, opened, closed)


def measured(driver: Driver, tally: Tally, meter: Meter, opened: Reading, closed: Reading) -> Measured:
    """What a run comes to."""
    faults = driver.faults + tally.faults
    return Measured(
        window_s=(closed.at_us - opened.at_us) / 1e6,
        answers=tally.answers,
        words=tally.words,
        good=tally.good,
        bad=len(faults),
        first_fault=faults[0] if faults else None,
        held=driver.held,
        whole_us=Spread.of(tally.whole),
        first_us=Spread.of(tally.first),
        gap_us=Spread.of(tally.gaps),
        transit_us=Spread.of(tally.transits),
        server_cpu_s=_between(opened.server_s, closed.server_s),
        rig_cpu_s=_between(opened.rig_s, closed.rig_s),
        server_waited_s=_between(opened.waited_s, closed.waited_s),
        peak_mb=meter.peak_mb,
    )


def _between(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else after - before


async def ask_all(driver: Driver) -> None:
    """Ask as the load says, until it is cancelled."""
    async with asyncio.TaskGroup() as group:
        driver.start(group)


def main() -> None:
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
    sys.stdout.buffer.write(msgspec.json.encode(uvloop.run(run(job))) + b"\n")


if __name__ == "__main__":
    main()
