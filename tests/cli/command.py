"""``python -m server …`` as a process of its own, in a folder of its own."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.raw_http import PATIENCE_S

ROOT = Path(__file__).parent.parent.parent


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it said."""

    status: int
    out: str
    err: str


class Command:
    """A running command. Its standard error is read line by line."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.heard = ""

    def signal(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    async def says(self, pattern: str) -> re.Match[str]:
        """Read its standard error up to a line with ``pattern``. Raises AssertionError if it ends first."""
        assert self.process.stderr is not None
        async with asyncio.timeout(PATIENCE_S):
            while line := (await self.process.stderr.readline()).decode():
                self.heard += line
                if found := re.search(pattern, line):
                    return found
        raise AssertionError(f"it ended without {pattern!r}:\n{self.heard}")

    async def end(self) -> Ended:
        """Wait until it has ended."""
        async with asyncio.timeout(PATIENCE_S):
            out, err = await self.process.communicate()
        assert self.process.returncode is not None
        return Ended(self.process.returncode, out.decode(), self.heard + err.decode())


@asynccontextmanager
async def command(*arguments: str, folder: Path, **variables: str) -> AsyncIterator[Command]:
    """Start a command; it is killed at the end of the block if it still runs."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ANTIPHON_")}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "server", *arguments),
        cwd=folder,
        env={**kept, "PYTHONPATH": str(ROOT), **variables},
        # A shell lets what it runs in the background ignore SIGINT, and its children's children too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield Command(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def ended(*arguments: str, folder: Path, **variables: str) -> Ended:
    """Run a command to its end."""
    async with command(*arguments, folder=folder, **variables) as running:
        return await running.end()
