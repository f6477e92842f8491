"""A server started as the product starts it, for tests that speak to it in bytes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from server.serving import ServeOptions, serve
from tests.raw_http import PATIENCE_S, Answer, connect

HOST = b"Host: localhost\r\n"
GET = b"GET / HTTP/1.1\r\n" + HOST + b"\r\n"


async def echo(request: web.Request) -> web.Response:
    body = await request.read()
    # Every property that may raise on odd input is asked for.
    seen = {"method": request.method, "path": request.path, "length": len(body), "url": str(request.url)}
    return web.json_response({**seen, "query": dict(request.query), "remote": request.remote})


def echo_app() -> web.Application:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", echo)
    return app


@asynccontextmanager
async def served(
    app: web.Application, *, patience_s: float = PATIENCE_S, **options: object
) -> AsyncIterator[int]:
    """Serve ``app`` for real; yield the port. The block may take ``patience_s``."""
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    chosen = ServeOptions(**{"port": 0, **options})  # type: ignore[arg-type]
    task = asyncio.create_task(serve(app, chosen, on_ready=ready.set_result))
    try:
        async with asyncio.timeout(patience_s):
            yield int((await ready).rpartition(":")[2])
    finally:
        task.cancel()
        await asyncio.wait({task}, timeout=PATIENCE_S)
        assert task.done()


async def exchange(port: int, data: bytes, *, to_head: bool = False) -> Answer:
    async with connect("127.0.0.1", port) as client:
        await client.send(data)
        return await client.answer(to_head=to_head)


def post(*headers: bytes, body: bytes = b"", version: bytes = b"1.1") -> bytes:
    lines = b"".join(header + b"\r\n" for header in headers)
    return b"POST / HTTP/" + version + b"\r\n" + HOST + lines + b"\r\n" + body


def assert_refused(answer: Answer, status: int = 400, code: str = "malformed_request") -> None:
    """Every refusal, from whatever layer, has this shape."""
    assert answer.status == status
    assert answer.headers["content-type"].startswith("application/json")
    assert answer.headers["server"] == "antiphon"
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["x-request-id"].startswith("req_")
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", None, code)
