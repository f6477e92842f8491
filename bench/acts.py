"""The loads of scenarios WA to WJ: many watchers, slow ones, late ones, and those who steer.

``python -m bench.acts`` is used as bench.load is; ``Load.act`` names the function. What is counted as words
is events: every one that every watcher was told.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import msgspec
import uvloop
from msgspec.structs import replace

from bench import cpu
from bench.channel import Channel, open_all, open_channel, told_us
from bench.contestants import KEY_BESIDE
from bench.framing import HEAD_END, BadFraming
from bench.load import Driver, Meter, ask_all, measured, now_us
from bench.results import Measured, Spread
from bench.scenarios import TEXT_PANEL, Load
from bench.tally import Job, Tally

CANCELS = 30
SETTLE_S = 0.5
LOOK_S = 0.05
UPDATES = ("model.delta", "summary.delta")


class Stage:
    """What an act works with, and what it comes to."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.meter = Meter(job)
        self.faults: list[str] = []
        self.figures: dict[str, float] = {}
        self.good = self.told = 0
        self.opened = self.closed = self.meter.read()

    def note(self, name: str, us: list[int]) -> None:
        """Tell some times in ms: their p50, p90 and p99."""
        if (spread := Spread.of(us)) is not None:
            for share in ("p50", "p90", "p99"):
                self.figures[f"{name} {share}"] = getattr(spread, share) / 1000

    def memory_mb(self) -> float | None:
        return cpu.resident_mb(cpu.tree(self.job.server_pid)) if self.job.server_pid is not None else None

    def result(self) -> Measured:
        tally = Tally(self.job, self.opened.at_us, self.closed.at_us)
        tally.good, tally.words, tally.faults = self.good, self.told, self.faults
        driver = Driver(self.job)
        return replace(measured(driver, tally, self.meter, self.opened, self.closed), figures=self.figures)


@asynccontextmanager
async def asking(job: Job) -> AsyncIterator[Driver]:
    """Chats as the job's load says, for the length of the block; those on their way are then waited for."""
    driver = Driver(job)
    async with asyncio.TaskGroup() as group:
        asker = group.create_task(ask_all(driver))
        try:
            yield driver
            driver.asking = False
            async with asyncio.timeout(job.load.drain_s):
                if driver.live:
                    await driver.idle.wait()
        finally:
            asker.cancel()
            driver.close()


async def ask_once(job: Job) -> Driver:
    """One chat, to its end."""
    async with asking(replace(job, load=Load(1, stream=job.load.stream, once=True, drain_s=30))) as driver:
        await driver.idle.wait()
    return driver


def judged(stage: Stage, job: Job, driver: Driver) -> Tally:
    """The chats of ``driver``, all of them within the window."""
    tally = Tally(job, 0, sys.maxsize)
    for answer in driver.answers:
        tally.add(answer)
    stage.faults += driver.faults + tally.faults
    stage.good += tally.good
    return tally


async def told(stage: Stage) -> None:
    """WA: one event of each of a few chats is told to everybody."""
    job = stage.job
    before = stage.memory_mb()
    watchers = await open_all(job, "self", types=["run.completed"])
    await asyncio.sleep(SETTLE_S)
    after = stage.memory_mb()
    if before is not None and after is not None:
        stage.figures["KB each"] = (after - before) * 1024 / len(watchers)
    whole = replace(job, load=replace(job.load, stream=False))
    stage.opened = stage.meter.read()
    for number in range(1, (chats := job.load.connections) + 1):
        judged(stage, whole, await ask_once(whole))
        for one in watchers:
            await _until(lambda one=one, number=number: one.count(b'"run.completed"') >= number)  # type: ignore[misc]
    stage.closed = stage.meter.read()
    late = [at - told_us(event) for one in watchers for at, event in one.heard()]
    stage.told = len(late)
    if stage.told != chats * len(watchers):
        stage.faults.append(f"{stage.told} events were told, not {chats * len(watchers)}")
    stage.note("told", late)
    _close(watchers)


async def texts(stage: Stage) -> None:
    """WT: all texts of one run are told to everybody."""
    job = stage.job
    watchers = await open_all(job, "self", include=["drafts", "answer"])
    stage.opened = stage.meter.read()
    judged(stage, job, await ask_once(job))
    await _until(lambda: all(b'"run.completed"' in one.reads[-1][1] for one in watchers))
    stage.closed = stage.meter.read()
    late: list[int] = []
    rates: list[float] = []
    for one in watchers:
        heard = list(one.heard())
        stage.told += len(heard)
        late += [at - told_us(event) for at, event in heard]
        updates = [at for at, event in heard if event.type in UPDATES]
        rates.append(len(updates) * 1e6 / (updates[-1] - updates[0]))
    stage.figures["updates/s"] = min(rates)
    stage.note("told", late)
    _close(watchers)


async def beside(stage: Stage) -> None:
    """WC: how long words of other chats are on their way, alone and beside watchers of two sorts."""
    job, load = stage.job, stage.job.load
    chats = replace(job, headers={**job.headers, "authorization": f"Bearer {KEY_BESIDE}"})
    panel = replace(job, model=TEXT_PANEL, load=Load(1, warmup_s=0, drain_s=30))
    flood = replace(job, model="rig-flood", load=Load(1, warmup_s=0, drain_s=30))
    alone: list[int] = []

    async def chatting() -> list[int]:
        async with asking(replace(chats, load=replace(load, watchers=0))) as driver:
            await asyncio.sleep(load.window_s)
        return judged(stage, chats, driver).transits

    alone += await chatting()
    stage.opened = stage.meter.read()
    watchers = await open_all(job, "self", include=["drafts", "answer"])
    async with asking(panel):
        await asyncio.sleep(1)  # by then all members speak
        watched = await chatting()
    _close(watchers)
    stage.closed = stage.meter.read()
    alone += await chatting()
    stuck = await _stuck(replace(job, load=replace(load, watchers=100)))
    async with asking(flood):
        await asyncio.sleep(4)  # by then they are full
        held_up = await chatting()
    _close(stuck)
    for name, times in (("alone", alone), ("watched", watched), ("stuck", held_up)):
        stage.note(name, times)
    for name in ("watched", "stuck"):
        for share in ("p50", "p90", "p99"):
            stage.figures[f"{name} +{share}"] = (
                stage.figures[f"{name} {share}"] - stage.figures[f"alone {share}"]
            )


async def stuck(stage: Stage) -> None:
    """WS: what watchers cost who subscribe to texts and read nothing, and when they are closed."""
    job = stage.job
    pids = cpu.tree(job.server_pid) if job.server_pid is not None else []
    judged(stage, job, await ask_once(job))  # what the chat itself takes
    before_mb, before = stage.memory_mb(), cpu.open_files(pids)
    watchers = await _stuck(job)
    began, peak = time.monotonic(), 0.0
    stage.opened = stage.meter.read()
    async with asking(replace(job, load=Load(1, warmup_s=0, drain_s=30))) as driver:
        while time.monotonic() - began < job.load.drain_s:
            await asyncio.sleep(LOOK_S)
            peak = max(peak, stage.memory_mb() or 0)
            if before is not None and (cpu.open_files(pids) or 0) <= before + 2:
                break
        stage.closed = stage.meter.read()
        stage.figures["closed s"] = time.monotonic() - began
    judged(stage, job, driver)
    if before_mb is not None:
        stage.figures["growth MB"] = peak - before_mb
    _close(watchers)


async def joins(stage: Stage) -> None:
    """WJ: how soon a late watcher has the snapshot, and how soon a command closes the upstream."""
    job, load = stage.job, stage.job.load
    steering = await open_channel(job)
    id, panel = _named(replace(job, model=TEXT_PANEL))
    took: list[int] = []
    async with asking(panel):
        await asyncio.sleep(load.warmup_s)  # by then there is text
        for one in await asyncio.gather(*(open_channel(job) for _ in range(load.connections))):
            took.append(await one.subscribe(f"run:{id}", include=["drafts", "answer"]))
            one.close()
        steering.say(type="control", id="c", verb="cancel_run", run_id=id)
    stage.note("joined", took)
    effects: list[int] = []
    for _ in range(min(load.connections, CANCELS)):
        id, named = _named(job)
        async with asking(named) as driver:
            await _until(lambda driver=driver: any(len(one.reads) > 2 for one in driver.answers))  # type: ignore[misc]
            known = await _cuts(job)
            began = now_us()
            steering.say(type="control", id="c", verb="cancel_run", run_id=id)
            await steering.until(b'"result"')
            while len(cuts := await _cuts(job)) <= len(known):  # noqa: ASYNC110  # the mock tells nobody
                await asyncio.sleep(0.002)
        effects.append(cuts[-1] - began)
    steering.close()
    stage.note("closed", effects)
    stage.good += len(took) + len(effects)


def _named(job: Job) -> tuple[str, Job]:
    """One chat whose run's id is known."""
    id = f"run_{os.urandom(16).hex()}"
    return id, replace(job, headers={**job.headers, "x-run-id": id}, load=Load(1, once=True, drain_s=30))


async def _stuck(job: Job) -> list[Channel]:
    watchers = await open_all(job, "self", include=["drafts", "answer"])
    for one in watchers:
        if one.transport is not None:
            one.transport.pause_reading()
    return watchers


async def _cuts(job: Job) -> list[int]:
    """When the mock lost connections amid an answer, µs of the monotonic clock."""
    reader, writer = await asyncio.open_connection("127.0.0.1", job.mock_port)
    writer.write(b"GET /cuts HTTP/1.1\r\nhost: mock" + HEAD_END)
    head = await reader.readuntil(HEAD_END)
    length = int(head.partition(b"content-length: ")[2].split(b"\r\n")[0])
    cuts = msgspec.json.decode(await reader.readexactly(length), type=list[int])
    writer.close()
    return cuts


async def _until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110  # what reads must not wait for those who look
        await asyncio.sleep(0.005)


def _close(channels: list[Channel]) -> None:
    for one in channels:
        one.close()


ACTS: dict[str, Callable[[Stage], Awaitable[None]]] = {
    "told": told,
    "texts": texts,
    "beside": beside,
    "stuck": stuck,
    "joins": joins,
}


async def run(job: Job) -> Measured:
    """Carry out a job's act."""
    stage = Stage(job)
    async with asyncio.TaskGroup() as group:
        sampler = group.create_task(stage.meter.watch_memory())
        try:
            async with asyncio.timeout(job.load.drain_s + 60):
                await ACTS[job.load.act](stage)
        except (OSError, TimeoutError, BadFraming, msgspec.DecodeError) as error:
            stage.faults.append(f"{job.load.act}: {error or 'not over in time'}")
        sampler.cancel()
    if stage.closed is stage.opened:
        stage.closed = stage.meter.read()
    return stage.result()


def main() -> None:
    gc.disable()  # what is kept has no cycles, and a full collection would be seen in the tails
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
    sys.stdout.buffer.write(msgspec.json.encode(uvloop.run(run(job))) + b"\n")


if __name__ == "__main__":
    main()
