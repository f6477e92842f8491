"""A small server for tests that send signals: it tells what happens to it on stdout, one word a line.

A line on stdin lets every waiting request finish. Arguments: drain_s, and "reload" or "plain".
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator

from aiohttp import WSCloseCode, web

from server.serving import ServeOptions, run, serve


def say(word: str) -> None:
    sys.stdout.write(word + "\n")
    sys.stdout.flush()


class Program:
    def __init__(self) -> None:
        self.released = asyncio.Event()
        self.told = asyncio.Event()
        self.sockets: set[web.WebSocketResponse] = set()

    async def wait(self, _request: web.Request) -> web.StreamResponse:
        """A plain answer that waits for the release."""
        say("waiting")
        await self.released.wait()
        return web.Response(text="done")

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """A stream that ends at the release, or with an error event when the drain is over."""
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"begun")
        async with asyncio.TaskGroup() as group:
            ends = [group.create_task(self.released.wait()), group.create_task(self.told.wait())]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            for end in ends:
                end.cancel()
        await response.write(b"done" if self.released.is_set() else b"error: shutting_down")
        return response

    async def stuck(self, _request: web.Request) -> web.StreamResponse:
        """An answer that never comes."""
        say("waiting")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            say("cancelled")
            raise
        raise AssertionError("unreachable")

    async def body(self, request: web.Request) -> web.StreamResponse:
        say("waiting")
        return web.Response(text=str(len(await request.read())))

    async def socket(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self.sockets.add(socket)
        say("connected")
        async for _message in socket:
            pass
        say("closed")
        return socket

    async def close_sockets(self, _app: web.Application) -> None:
        for socket in self.sockets:
            await socket.close(code=WSCloseCode.GOING_AWAY)

    async def tell(self) -> None:
        say("over")
        self.told.set()

    async def reload(self) -> None:
        say("reloaded")

    async def lifetime(self, _app: web.Application) -> AsyncIterator[None]:
        yield
        say("cleaned")


async def main() -> None:
    program = Program()
    app = web.Application()
    for name in ("wait", "stream", "stuck", "socket"):
        app.router.add_get(f"/{name}", getattr(program, name))
    app.router.add_post("/body", program.body)
    app.on_shutdown.append(program.close_sockets)
    app.cleanup_ctx.append(program.lifetime)
    asyncio.get_running_loop().add_reader(sys.stdin, program.released.set)
    options = ServeOptions(
        port=0,
        drain_s=float(sys.argv[1]),
        on_drain=lambda: say("draining"),
        on_drain_timeout=program.tell,
    )
    await serve(app, options, on_ready=say, reload=program.reload if sys.argv[2] == "reload" else None)
    say("ended")


if __name__ == "__main__":
    run(main())
