"""Antiphon as a user starts it: the program, with a configuration file, ended by signals."""

from __future__ import annotations

import asyncio
import re
import signal
import sys
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

from tests.raw_http import PATIENCE_S

ROOT = Path(__file__).resolve().parents[2]

T = TypeVar("T")


class Program:
    """A running ``antiphon serve``. ``log`` is what it has said so far, line by line."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.log: list[str] = []
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def says(self, words: str) -> str:
        """Read on until a line has ``words``; that line."""
        assert self.process.stderr is not None
        while line := (await in_time(self.process.stderr.readline())).decode().rstrip():
            self.log.append(line)
            if words in line:
                return line
        raise AssertionError(f"it ended without {words!r}: {self.log}")

    def signal(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    async def ended(self) -> int:
        """Wait for its end; the exit status."""
        _, rest = await in_time(self.process.communicate())
        self.log += rest.decode().splitlines()
        assert self.process.returncode is not None
        return self.process.returncode


@asynccontextmanager
async def program(config: Path, *arguments: str) -> AsyncIterator[Program]:
    """Run ``serve`` until the end of the block; it listens when the block begins."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "server", "serve", "--config", str(config), *(arguments or ("--port", "0"))),
        cwd=ROOT,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        started = Program(process)
        found = re.search(r"serves http://[^ ]*:(\d+)/v1", await started.says("Antiphon serves"))
        assert found is not None
        started.port = int(found[1])
        yield started
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def in_time(work: Awaitable[T]) -> T:
    """What ``work`` gives; fails if that takes too long."""
    async with asyncio.timeout(PATIENCE_S):
        return await work
