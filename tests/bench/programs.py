"""The rig's programs, as the rig starts them."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from bench.results import Measured
from bench.tally import Job

ROOT = Path(__file__).parent.parent.parent
PATIENCE_S = 60


@asynccontextmanager
async def mock() -> AsyncIterator[int]:
    """A mock upstream in a process of its own; yields its port."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.mock", cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(PATIENCE_S):
            yield int(await process.stdout.readline())
    finally:
        process.terminate()
        await process.wait()


async def run(program: str, job: Job) -> Measured:
    """Run a job in a process of its own."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", program),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(PATIENCE_S):
        output, _ = await process.communicate(msgspec.json.encode(job))
    return msgspec.json.decode(output, type=Measured)


async def load(job: Job) -> Measured:
    """Requests as the job says."""
    return await run("bench.load", job)


async def watched(job: Job) -> Measured:
    """Watchers of one stream as the job says."""
    return await run("bench.watchers", job)
