"""The embedded model's own program, run as its parent runs it, and as nobody should."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession

from server.upstreams.local_engine import INSTALL, find_model

PATIENCE_S = 30.0
ROOT = Path(__file__).resolve().parents[2]
PROGRAM = (sys.executable, "-m", "server.upstreams.local_child")
# Stands between: tells the child's process id, passes on what the child says, and dies when it is killed.
PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-m", "server.upstreams.local_child"], stdin=-1, stdout=-1)
child.stdin.write(sys.stdin.readline().encode()); child.stdin.flush()
print(child.pid, flush=True)
print(child.stdout.readline().decode(), end="", flush=True)
child.wait()
"""
real_model = pytest.mark.skipif(
    importlib.util.find_spec("xllamacpp") is None or find_model() is None,
    reason=f"THE EMBEDDED MODEL IS NOT TESTED: it is not installed; run: {INSTALL}",
)


def settings(**changes: Any) -> bytes:
    wanted = {"path": str(find_model()), "threads": 1, "slots": 1, "context": 512} | changes
    return json.dumps(wanted).encode() + b"\n"


@asynccontextmanager
async def started(*command: str) -> AsyncIterator[Process]:
    process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, stderr=PIPE, cwd=ROOT)
    try:
        async with asyncio.timeout(PATIENCE_S):
            yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def say(process: Process, line: bytes) -> None:
    assert process.stdin is not None
    process.stdin.write(line)
    await process.stdin.drain()


async def report(process: Process) -> dict[str, str]:
    assert process.stdout is not None
    words: dict[str, str] = json.loads(await process.stdout.readline())
    return words


@pytest.mark.parametrize(
    ("line", "detail"),
    [
        pytest.param(b"not json\n", "the configuration is not JSON", id="no-json"),
        pytest.param(b"\xff\n", "the configuration is not JSON", id="no-utf8"),
        pytest.param(b"[]\n", "path must be a string", id="no-object"),
        pytest.param(settings(path=5), "path must be a string", id="path"),
        pytest.param(settings(threads=0), "threads must be an integer above 0", id="threads"),
        pytest.param(settings(slots=True), "slots must be an integer above 0", id="slots"),
        pytest.param(settings(context="many"), "context must be an integer above 0", id="context"),
        pytest.param(b"x" * 100_000, "no configuration on standard input", id="no-line"),
    ],
)
async def test_wrong_settings_are_refused_in_words(line: bytes, detail: str) -> None:
    async with started(*PROGRAM) as child:
        await say(child, line)
        assert await report(child) == {"reason": "config", "detail": detail}
        assert await child.wait() == 1


async def test_no_settings_at_all_are_refused() -> None:
    process = await asyncio.create_subprocess_exec(*PROGRAM, stdin=DEVNULL, stdout=PIPE, cwd=ROOT)
    async with asyncio.timeout(PATIENCE_S):
        output, _ = await process.communicate()
    assert json.loads(output)["reason"] == "config"
    assert process.returncode == 1


@real_model
async def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    damaged = tmp_path / "model.gguf"
    damaged.write_bytes(b"GGUF" + bytes(1000))
    for path in (damaged, tmp_path / "none.gguf"):
        async with started(*PROGRAM) as child:
            await say(child, settings(path=str(path)))
            words = await report(child)
            assert words["reason"] == "load"
            assert str(tmp_path) not in words["detail"]
            assert await child.wait() == 1


@real_model
async def test_the_report_is_all_that_it_ever_prints() -> None:
    async with started(*PROGRAM) as child:
        await say(child, settings())
        words = await report(child)
        headers = {"Authorization": f"Bearer {words['key']}"}
        question = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}
        async with (
            ClientSession(headers=headers) as session,
            session.post(f"{words['base_url']}/chat/completions", json=question) as response,
        ):
            assert response.status == 200
        child.send_signal(signal.SIGTERM)
        output, errors = await child.communicate()
        assert (output, errors) == (b"", b"")
        assert child.returncode == -signal.SIGTERM


@real_model
async def test_an_interrupt_from_the_terminal_is_its_parents_affair() -> None:
    async with started(*PROGRAM) as child:
        await say(child, settings())
        words = await report(child)
        child.send_signal(signal.SIGINT)
        async with (
            ClientSession() as session,
            session.get(words["base_url"].removesuffix("v1") + "health") as response,
        ):
            assert response.status == 200
        assert child.returncode is None


@real_model
async def test_it_ends_when_its_input_ends() -> None:
    async with started(*PROGRAM) as child:
        await say(child, settings())
        await report(child)
        assert child.stdin is not None
        child.stdin.close()
        assert await child.wait() == 0


@real_model
@pytest.mark.parametrize("loaded", [True, False], ids=["when-loaded", "while-loading"])
async def test_it_does_not_outlive_a_parent_that_was_killed(loaded: bool) -> None:
    async with started(sys.executable, "-c", PARENT) as parent:
        await say(parent, settings())
        assert parent.stdout is not None
        pid = int(await parent.stdout.readline())
        if loaded:
            await report(parent)
        parent.send_signal(signal.SIGKILL)
        await until_gone(pid)


async def until_gone(pid: int) -> None:
    while runs(pid):  # noqa: ASYNC110 - another's process: there is nothing to wait on
        await asyncio.sleep(0.01)


def runs(pid: int) -> bool:
    """Does the process run? Whoever inherited it may leave it a zombie for long."""
    try:
        os.kill(pid, 0)
        stat = Path(f"/proc/{pid}/stat")
        return not Path("/proc/self").exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False
