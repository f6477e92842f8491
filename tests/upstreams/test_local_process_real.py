"""The owner of the embedded model's process over the real model."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession

from server.upstreams.local_engine import INSTALL, find_model
from server.upstreams.local_process import Endpoint, LocalProcess
from tests.upstreams.local_children import QUICK, closing, exists, until

real_model = pytest.mark.skipif(
    importlib.util.find_spec("xllamacpp") is None or find_model() is None,
    reason=f"THE EMBEDDED MODEL IS NOT TESTED: it is not installed; run: {INSTALL}",
)


def real() -> LocalProcess:
    return LocalProcess(path=None, threads=1, slots=1, context=1024, backoff=QUICK)


def body(*, stream: bool, max_tokens: int) -> dict[str, Any]:
    messages = [{"role": "user", "content": "Why is the sky blue?"}]
    # Without an end of its own the answer goes on until its limit.
    return {"messages": messages, "stream": stream, "max_tokens": max_tokens, "ignore_eos": True}


@asynccontextmanager
async def client(endpoint: Endpoint) -> AsyncIterator[ClientSession]:
    # llama.cpp promises to keep a connection, and closes it after a stream all the same.
    headers = {"Authorization": f"Bearer {endpoint.key}", "Connection": "close"}
    async with ClientSession(endpoint.base_url.removesuffix("v1"), headers=headers) as session:
        yield session


async def chat(session: ClientSession) -> Any:
    async with session.post("v1/chat/completions", json=body(stream=False, max_tokens=4)) as response:
        assert response.status == 200
        return await response.json()


@real_model
async def test_the_real_model_answers_plainly_and_streamed_and_a_dropped_stream_frees_its_slot() -> None:
    async with closing(real()) as local, client(await local.ready()) as session:
        answer = await chat(session)
        assert answer["usage"]["completion_tokens"] == 4
        assert answer["choices"][0]["message"]["content"]

        async with session.post("v1/chat/completions", json=body(stream=True, max_tokens=4)) as response:
            lines = [line async for line in response.content if line.startswith(b"data:")]
        assert lines[-1] == b"data: [DONE]\n"
        assert len(lines) >= 4

        # There is one slot, and this answer would hold it for a quarter of a minute.
        async with session.post("v1/chat/completions", json=body(stream=True, max_tokens=900)) as response:
            await response.content.readline()
            response.close()
        async with asyncio.timeout(5):
            await chat(session)


@real_model
async def test_the_real_model_wants_its_key_and_listens_on_loopback() -> None:
    async with closing(real()) as local:
        endpoint = await local.ready()
        assert endpoint.base_url.startswith("http://127.0.0.1:")
        for key in ("", "wrong"):
            stranger = Endpoint(base_url=endpoint.base_url, key=key)
            async with (
                client(stranger) as session,
                session.post("v1/chat/completions", json=body(stream=False, max_tokens=1)) as response,
            ):
                assert response.status == 401


@real_model
async def test_the_real_model_is_restarted_after_it_was_killed_and_leaves_nothing_behind() -> None:
    async with closing(real()) as local:
        before = await local.ready()
        (pid,) = children()
        os.kill(pid, signal.SIGKILL)
        await until(lambda: local.state == "failed")
        after = await local.ready()
        assert after.key != before.key
        async with client(after) as session:
            await chat(session)
        (second,) = children()
    assert not exists(pid)
    assert not exists(second)


def children() -> list[int]:
    """The embedded model's processes of this one."""
    if not Path("/proc/self").exists():
        pytest.skip("NOT TESTED HERE: children are found in /proc")
    mine = []
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            parent = int(status.read_text().split("PPid:")[1].split()[0])
            words = (status.parent / "cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended while we looked
        if parent == os.getpid() and b"server.upstreams.local_child" in words:
            mine.append(int(status.parent.name))
    return mine
