"""Asks a simulator as a bare client would, and reads what comes byte by byte."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from server.simulators.openai import OpenAISimulator
from server.simulators.script import Script
from tests.raw_http import Answer, RawClient, connect


def chat_body(*, stream: bool = True, **fields: Any) -> bytes:
    chat = {"model": "m", "stream": stream, "messages": [{"role": "user", "content": "hello"}]}
    return json.dumps({**chat, **fields}).encode()


def post(body: bytes, path: str = "/v1/chat/completions", headers: str = "") -> bytes:
    """A POST request's bytes. ``headers`` are lines, each with its end."""
    head = f"POST {path} HTTP/1.1\r\nHost: sim\r\nContent-Type: application/json\r\n{headers}"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def get(path: str, headers: str = "") -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: sim\r\n{headers}\r\n".encode()


@asynccontextmanager
async def asked(
    sim: OpenAISimulator, script: Script | None = None, *, headers: str = "", **fields: Any
) -> AsyncIterator[RawClient]:
    """A connection that has sent one chat request, to be answered by ``script``."""
    if script is not None:
        sim.script(script)
    async with connect(sim.host, sim.port) as client:
        await client.send(post(chat_body(**fields), headers=headers))
        yield client


async def answer(
    sim: OpenAISimulator, script: Script | None = None, *, headers: str = "", **fields: Any
) -> Answer:
    """The whole answer to one chat request on a connection of its own."""
    async with asked(sim, script, headers=headers, **fields) as client:
        return await client.answer()


async def raw(sim: OpenAISimulator, script: Script | None = None, **fields: Any) -> bytes:
    """Every byte that comes until the simulator closes."""
    async with asked(sim, script, **fields) as client:
        return await client.rest()


def events(body: bytes) -> list[Any]:
    """The JSON of a stream in OpenAI's own form; ``[DONE]`` as a string."""
    assert body == b"" or body.endswith(b"\n\n")
    lines = body.split(b"\n\n")[:-1]
    assert all(line.startswith(b"data: ") and b"\n" not in line for line in lines)
    return ["[DONE]" if line[6:] == b"[DONE]" else json.loads(line[6:]) for line in lines]


def deltas(body: bytes) -> list[dict[str, Any]]:
    """The deltas of a stream in OpenAI's own form."""
    return [
        choice["delta"] for event in events(body) if event != "[DONE]" for choice in event.get("choices", ())
    ]
