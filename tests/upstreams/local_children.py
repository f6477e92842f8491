"""Processes in place of the embedded model's, which fail on purpose."""

from __future__ import annotations

import asyncio
import os
import sys
import textwrap
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from server.upstreams.local_process import Backoff, LocalProcess

PATIENCE_S = 30.0
QUICK = Backoff(first_s=0.001, most_s=0.002)
# A fake child: it notes its process id in the file that it is given, and plays one part.
PRELUDE = """
import json, os, signal, sys, time
with open(sys.argv[1], "a") as notes:
    notes.write(f"{os.getpid()}\\n")
births = len(open(sys.argv[1]).read().split())
settings = json.loads(sys.stdin.readline())
def ready():
    print(json.dumps({"base_url": f"http://127.0.0.1:{births}/v1", "key": "secret"}), flush=True)
"""
SERVES = "ready(); sys.stdin.read()"


class Fake:
    """A LocalProcess over a fake child, and what the child's births left behind."""

    def __init__(self, local: LocalProcess, notes: Path) -> None:
        self.local = local
        self._notes = notes

    @property
    def pids(self) -> list[int]:
        return [int(line) for line in self._notes.read_text().split()] if self._notes.exists() else []


def fake(tmp_path: Path, part: str, *, prelude: str = PRELUDE, **changes: Any) -> Fake:
    program, notes = tmp_path / "child.py", tmp_path / "births"
    program.write_text(prelude + textwrap.dedent(part))
    arguments: dict[str, Any] = {
        "path": tmp_path / "model.gguf",
        "threads": 1,
        "slots": 2,
        "context": 512,
        "backoff": QUICK,
        "command": (sys.executable, "-S", str(program), str(notes)),
    }
    return Fake(LocalProcess(**(arguments | changes)), notes)


def exists(pid: int) -> bool:
    """Is there such a process, were it only a zombie?"""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - of another process, which sets no event of ours
            await asyncio.sleep(0.005)


@asynccontextmanager
async def closing(local: LocalProcess) -> AsyncIterator[LocalProcess]:
    try:
        async with asyncio.timeout(PATIENCE_S):
            yield local
    finally:
        await local.aclose()
