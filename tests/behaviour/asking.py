"""Clients for the tests of what a server answers: in bytes, and in events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from server.app_keys import RUNS, TASKS
from server.settings import Settings
from server.simulators.openai import OpenAISimulator
from tests.behaviour.running import Antiphon, antiphon
from tests.raw_http import PATIENCE_S, Answer, RawClient, connect

CHAT = "/v1/chat/completions"


def chat_request(
    body: bytes | Mapping[str, Any],
    *headers: str,
    path: str = CHAT,
    host: str = "localhost",
    content_type: str | None = "application/json",
) -> bytes:
    """A POST of ``body``, in bytes."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"POST {path} HTTP/1.1", f"Host: {host}", *headers, f"Content-Length: {len(data)}"]
    if content_type is not None:
        lines.append(f"Content-Type: {content_type}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + data


def get_request(path: str, *headers: str, method: str = "GET", host: str = "localhost") -> bytes:
    """A request without a body, in bytes."""
    return "\r\n".join([f"{method} {path} HTTP/1.1", f"Host: {host}", *headers, "", ""]).encode()


async def exchange(server: Antiphon, data: bytes, *, to_head: bool = False) -> Answer:
    """Send these bytes on a connection of their own, and read one answer."""
    async with connect("127.0.0.1", server.port) as raw:
        await raw.send(data)
        return await raw.answer(to_head=to_head)


async def post(server: Antiphon, body: bytes | Mapping[str, Any], *headers: str, **options: Any) -> Answer:
    """Ask for a chat completion."""
    return await exchange(server, chat_request(body, *headers, **options))


async def get(server: Antiphon, path: str, *headers: str, **options: Any) -> Answer:
    """Ask for ``path``."""
    request = get_request(path, *headers, **options)
    return await exchange(server, request, to_head=options.get("method") == "HEAD")


def error_of(answer: Answer, status: int) -> dict[str, Any]:
    """The error that this answer tells, after a look at everything that all errors share."""
    assert answer.status == status, answer.body
    assert answer.headers["content-type"].startswith("application/json")
    assert answer.headers["server"] == "antiphon"
    assert answer.headers["x-request-id"]
    error: dict[str, Any] = answer.json()["error"]
    assert set(error) - {"details"} == {"message", "type", "param", "code"}
    assert isinstance(error["message"], str)
    assert error["message"]
    assert error["code"] is None or isinstance(error["code"], str)
    return error


def data_lines(body: bytes) -> list[bytes]:
    """What the events of a stream say; every line of it is data, a comment or blank."""
    assert body.endswith(b"\n\n"), body[-100:]
    said = []
    for event in body.split(b"\n\n")[:-1]:
        if not event.startswith(b":"):
            assert event.startswith(b"data: "), event
            assert b"\n" not in event, event
            said.append(event.removeprefix(b"data: "))
    return said


def chunks_of(body: bytes) -> list[dict[str, Any]]:
    """The chunks of a complete stream."""
    *chunks, done = data_lines(body)
    assert done == b"[DONE]"
    return [json.loads(chunk) for chunk in chunks]


def text_of(chunks: list[dict[str, Any]]) -> str:
    """The text that chunks bring to the first choice."""
    return "".join(
        choice["delta"].get("content") or ""
        for chunk in chunks
        for choice in chunk["choices"]
        if choice["index"] == 0
    )


@asynccontextmanager
async def asked(server: Antiphon, data: bytes) -> AsyncIterator[RawClient]:
    """A client that has sent these bytes and has not read its answer."""
    async with connect("127.0.0.1", server.port) as raw:
        await raw.send(data)
        yield raw


@asynccontextmanager
async def both(settings_of: Any) -> AsyncIterator[tuple[Antiphon, OpenAISimulator]]:
    """A server before a simulated upstream; ``settings_of`` makes its settings from the simulator."""
    async with OpenAISimulator() as sim:
        settings: Settings = settings_of(sim)
        async with antiphon(settings) as server:
            yield server, sim


async def until(holds: Callable[[], object]) -> None:
    """Return once ``holds()`` is true of something that wakes nobody. Raises TimeoutError."""
    async with asyncio.timeout(PATIENCE_S):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


def assert_nothing_left(server: Antiphon) -> None:
    """No run under way, and no task of the application's."""
    assert server.app[RUNS].in_progress == 0
    assert len(server.app[TASKS]) == 0
