"""The processes of the rig: started on their core, awaited, and ended with all that they started."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from bench import cpu
from bench.check import BadAnswer, Expected, check_whole
from bench.contestants import KEY, ROOT, Contestant, filled
from bench.results import Measured, Start
from bench.scenarios import MODELS, WHOLE
from bench.tally import Job

POLL_S = 0.02
SETTLE_S = 1.0  # until a server that has answered once is idle
END_S = 6.0  # to end after SIGTERM, before SIGKILL
NONCE = 1
#: Everybody's environment. What configures an Antiphon of the user's own must not reach the one here.
OUTSIDE = {name: value for name, value in os.environ.items() if not name.startswith("ANTIPHON_")}


class RigFailure(Exception):
    """The rig itself could not do its work."""


class NotStarted(Exception):
    """A contestant did not come to answer; the text holds the end of its log."""


@dataclass(frozen=True)
class Running:
    """A contestant that answers."""

    contestant: Contestant
    port: int
    pid: int | None  # None: the mock itself
    start: Start | None


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def headers(contestant: Contestant) -> dict[str, str]:
    """What each request to a contestant bears."""
    return {"authorization": f"Bearer {KEY}", **contestant.headers}


async def _end(process: asyncio.subprocess.Process) -> None:
    """End a process and all that descends from it. It leads a group of its own."""
    pids = cpu.tree(process.pid)
    for number, patience_s in ((signal.SIGTERM, END_S), (signal.SIGKILL, END_S)):
        try:
            if process.returncode is None:
                os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        try:
            async with asyncio.timeout(patience_s):
                await process.wait()
            break
        except TimeoutError:
            continue
    for pid in pids:  # those that have left the group
        if pid != process.pid:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


async def _spawn(
    command: list[str],
    core: int | None,
    cwd: Path,
    *,
    env: dict[str, str] | None = None,
    stdin: int = asyncio.subprocess.DEVNULL,
    stdout: int | None = None,
    stderr: int | None = None,
) -> asyncio.subprocess.Process:
    """Start a process on a core. The core is inherited: so no thread of it ever runs elsewhere."""
    before = os.sched_getaffinity(0) if core is not None else set()
    cpu.pin(core)
    try:
        return await asyncio.create_subprocess_exec(
            *command,
            cwd=cwd,
            env={**OUTSIDE, **(env or {})},
            start_new_session=True,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
        )
    finally:
        if core is not None:
            os.sched_setaffinity(0, before)


@asynccontextmanager
async def mock(core: int | None) -> AsyncIterator[tuple[int, int]]:
    """The mock upstream for the length of the block: its port and process id. Raises RigFailure."""
    process = await _spawn([sys.executable, "-m", "bench.mock"], core, ROOT, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None
        async with asyncio.timeout(30):
            line = await process.stdout.readline()
        if not line.strip().isdigit():
            raise RigFailure("the mock upstream did not start; its words are above")
        yield int(line), process.pid
    finally:
        await _end(process)


async def answers(port: int, contestant: Contestant) -> bool:
    """Does a whole chat come back right?"""
    text = msgspec.json.encode(
        {"model": contestant.asked(WHOLE), "messages": [{"role": "user", "content": f"[ask {NONCE}] ready?"}]}
    )
    lines = {
        "host": f"127.0.0.1:{port}",
        "content-type": "application/json",
        "content-length": str(len(text)),
        "connection": "close",
        **headers(contestant),
    }
    head = f"POST {contestant.path} HTTP/1.1\r\n" + "".join(f"{name}: {lines[name]}\r\n" for name in lines)
    try:
        async with asyncio.timeout(10):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(head.encode() + b"\r\n" + text)
                got = await reader.read(-1)
            finally:
                writer.close()
        check_whole([(0, got)], Expected(NONCE, MODELS[WHOLE].words))
    except (OSError, TimeoutError, BadAnswer):
        return False
    return True


async def _first_answer(process: asyncio.subprocess.Process, port: int, contestant: Contestant) -> None:
    """Return when a contestant answers. Raises NotStarted, without the log."""
    try:
        async with asyncio.timeout(contestant.start_timeout_s):
            while not await answers(port, contestant):
                if process.returncode is not None:
                    raise NotStarted(f"{contestant.name} ended with {process.returncode}")
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        raise NotStarted(
            f"{contestant.name} gave no right answer in {contestant.start_timeout_s:g} s"
        ) from None


@asynccontextmanager
async def contestant_running(
    contestant: Contestant, upstream_port: int, core: int | None
) -> AsyncIterator[Running]:
    """A contestant, freshly started, for the length of the block. Raises NotStarted."""
    if not contestant.command:
        yield Running(contestant, upstream_port, None, None)
        return
    with tempfile.TemporaryDirectory(prefix="antiphon-bench-", ignore_cleanup_errors=True) as name:
        folder, port = Path(name), free_port()
        places = {
            "port": str(port),
            "upstream": f"http://127.0.0.1:{upstream_port}",
            "upstream_port": str(upstream_port),
            "dir": name,
            "python": sys.executable,
        }
        for file, text in contestant.files.items():
            (folder / file).write_text(filled(text, places))
        command = [filled(part, places) for part in contestant.command]
        env = {key: filled(value, places) for key, value in contestant.env.items()}
        log = folder / "rig.log"
        began = time.monotonic()
        try:
            with log.open("wb") as output:
                process = await _spawn(
                    command, core, folder, env=env, stdout=output.fileno(), stderr=output.fileno()
                )
        except OSError as error:
            raise NotStarted(f"{contestant.name}: {error}") from error
        try:
            try:
                await _first_answer(process, port, contestant)
            except NotStarted as error:
                raise NotStarted(
                    f"{error}. Its log ends: {log.read_text(errors='replace')[-1500:]}"
                ) from None
            cold_s = time.monotonic() - began
            await asyncio.sleep(SETTLE_S)
            pids = cpu.tree(process.pid)
            yield Running(contestant, port, process.pid, Start(cold_s, cpu.proportional_mb(pids), len(pids)))
        finally:
            await _end(process)


async def run_load(job: Job, core: int | None) -> Measured:
    """Run a job's load in a process of its own. Raises RigFailure."""
    pipe = asyncio.subprocess.PIPE
    program = "bench.acts" if job.load.act else "bench.watchers" if job.load.watchers else "bench.load"
    process = await _spawn([sys.executable, "-m", program], core, ROOT, stdin=pipe, stdout=pipe, stderr=pipe)
    load = job.load
    try:
        async with asyncio.timeout(load.warmup_s + load.window_s + load.drain_s + 120):
            output, words = await process.communicate(msgspec.json.encode(job))
    except TimeoutError:
        raise RigFailure("the load generator did not end") from None
    finally:
        await _end(process)
    try:
        return msgspec.json.decode(output, type=Measured)
    except msgspec.DecodeError:
        raise RigFailure(f"the load generator failed: {words.decode(errors='replace')[-1500:]}") from None
