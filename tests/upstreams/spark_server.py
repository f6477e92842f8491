"""A scripted Spark on a loopback socket: it refuses, answers, stalls and breaks off as it is told."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeAlias
from urllib.parse import parse_qs, urlsplit

from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

Script: TypeAlias = Callable[[ServerConnection], Awaitable[None]]
Refusal: TypeAlias = Callable[[Request], tuple[int, dict[str, str], bytes] | None]


class SparkServer:
    """What came in, and what is told about it. ``gone`` is set when a connection has ended."""

    def __init__(self, script: Script, refuse: Refusal) -> None:
        self.script = script
        self.refuse = refuse
        self.port = 0
        self.urls: list[str] = []
        self.requests: list[dict[str, Any]] = []
        self.asked = asyncio.Event()
        self.gone = asyncio.Event()
        self.close_codes: list[int | None] = []

    @property
    def base_url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    def dates(self) -> list[str]:
        """The signed dates, one for each dial."""
        return [parse_qs(urlsplit(url).query)["date"][0] for url in self.urls]

    async def answer(self, socket: ServerConnection) -> None:
        try:
            self.requests.append(json.loads(await socket.recv()))
            self.asked.set()
            await self.script(socket)
        finally:
            await socket.close(1000, "close this ws conn")
            self.close_codes.append(socket.close_code)
            self.gone.set()

    def admit(self, socket: ServerConnection, request: Request) -> Response | None:
        self.urls.append(request.path)
        refused = self.refuse(request)
        if refused is None:
            return None
        status, headers, body = refused
        response = socket.respond(status, body.decode())
        for name, value in headers.items():
            if name in response.headers:
                del response.headers[name]
            for line in value.splitlines():  # each a header of its own
                response.headers[name] = line
        return response


def frame(text: str, status: int = 1, usage: bool = False) -> str:
    """A frame with text."""
    payload: dict[str, Any] = {"choices": {"status": status, "seq": 0, "text": [{"content": text}]}}
    if usage:
        figures = {"question_tokens": 1, "prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
        payload["usage"] = {"text": figures}
    return json.dumps({"header": {"code": 0, "sid": "s", "status": status}, "payload": payload})


def error(code: int, message: str = "No") -> str:
    """An error's frame."""
    return json.dumps({"header": {"code": code, "message": message, "sid": "s", "status": 2}})


def saying(*frames: str | bytes) -> Script:
    """Send these, then close."""

    async def script(socket: ServerConnection) -> None:
        for one in frames:
            await socket.send(one)

    return script


def stalling(*frames: str) -> Script:
    """Send these, then nothing until the client goes."""

    async def script(socket: ServerConnection) -> None:
        await saying(*frames)(socket)
        await socket.wait_closed()

    return script


def breaking(*frames: str) -> Script:
    """Send these, then break the connection without a close frame."""

    async def script(socket: ServerConnection) -> None:
        await saying(*frames)(socket)
        socket.transport.close()  # what was sent still arrives

    return script


PONG = saying(frame("po", 0), frame("ng", 1), frame("", 2, usage=True))


@asynccontextmanager
async def spark_server(
    script: Script = PONG,
    *,
    refuse: Refusal = lambda request: None,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[SparkServer]:
    """Serve on a free port until the end of the block."""
    played = SparkServer(script, refuse)
    async with serve(
        played.answer,
        "127.0.0.1",
        0,
        process_request=played.admit,
        compression=None,
        ping_interval=None,
        close_timeout=1,
        max_size=16 * 1024 * 1024,
        ssl=tls,
    ) as server:
        played.port = next(iter(server.sockets)).getsockname()[1]
        yield played
