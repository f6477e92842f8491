"""The minimal relay, which everything is measured against: aiohttp on both sides, and no feature.

It parses every chunk, changes it and writes it again, as a server must that knows what passes through it.
``python -m bench.relay --port N --upstream URL`` serves until it is told to end.
"""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator

import aiohttp
import orjson
import uvloop
from aiohttp import web

SESSION = web.AppKey("SESSION", aiohttp.ClientSession)
UPSTREAM = web.AppKey("UPSTREAM", str)
EVENT_STREAM = {"content-type": "text/event-stream", "cache-control": "no-cache"}


def rewritten(data: bytes, model: str) -> bytes:
    """A chunk or an answer with the model's public name."""
    chunk = orjson.loads(data)
    chunk["model"] = model
    return orjson.dumps(chunk)


async def relay(request: web.Request) -> web.StreamResponse:
    """Ask the upstream, and hand its answer on."""
    raw = await request.read()
    asked = orjson.loads(raw)
    model = asked["model"]
    headers = {"content-type": "application/json", "authorization": "Bearer upstream"}
    url = request.app[UPSTREAM] + "/v1/chat/completions"
    async with request.app[SESSION].post(url, data=raw, headers=headers) as answer:
        if answer.status != 200 or not asked.get("stream"):
            body = await answer.read()
            body = rewritten(body, model) if answer.status == 200 else body
            return web.Response(body=body, status=answer.status, content_type="application/json")
        response = web.StreamResponse(headers=EVENT_STREAM)
        await response.prepare(request)
        held = b""
        async for read in answer.content.iter_any():
            *events, held = (held + read).split(b"\n\n")
            for event in events:
                data = event.removeprefix(b"data: ")
                changed = data if data == b"[DONE]" else rewritten(data, model)
                await response.write(b"data: " + changed + b"\n\n")
        await response.write_eof()
        return response


async def session(app: web.Application) -> AsyncIterator[None]:
    """One client for the relay's whole life, without a limit to its connections."""
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as client:
        app[SESSION] = client
        yield


def create_app(upstream: str) -> web.Application:
    app = web.Application(client_max_size=32 * 2**20)
    app[UPSTREAM] = upstream
    app.cleanup_ctx.append(session)
    app.router.add_post("/v1/chat/completions", relay)
    return app


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.relay", description="The minimal relay.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--upstream", required=True, help="base URL without /v1")
    given = parser.parse_args()
    web.run_app(
        create_app(given.upstream),
        host="127.0.0.1",
        port=given.port,
        access_log=None,
        print=None,
        handler_cancellation=True,
        loop=uvloop.new_event_loop(),
    )


if __name__ == "__main__":
    main()
