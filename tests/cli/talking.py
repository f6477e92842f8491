"""A server of the status channel that does what it is told, also what the real one seldom does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from server.cli.watching import Heard, StatusClient
from tests.cli.told import event_json

Talk = Callable[["Line"], Awaitable[None]]


class Line:
    """The server's side of one connection."""

    def __init__(self, connection: ServerConnection, number: int) -> None:
        self._connection = connection
        self.number = number  # from 0: how often somebody has connected before

    async def say(self, type: str, **fields: Any) -> None:
        await self._connection.send(json.dumps({"type": type, **fields}))

    async def get(self, type: str) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(await self._connection.recv())
        assert message["type"] == type
        return message

    async def welcome(self, epoch: str = "e1", **subscribed: Any) -> dict[str, Any]:
        """Acknowledge and answer the subscription, which is returned."""
        await self.get("connection_init")
        await self.say("connection_ack", connection_id="c", epoch=epoch, ping_interval_ms=1, limits={})
        asked = await self.get("subscribe")
        told = {"head": "7", "recovered": False, "was_recovering": False, **subscribed}
        await self.say("subscribed", id=asked["id"], **told)
        return asked

    async def tell(self, number: int, offset: str | None = None, **more: Any) -> None:
        event = {**event_json("run.in_progress", number, number, {}), **more}
        await self.say("next", id="1", event=event, **({"offset": offset} if offset else {}))

    async def raw(self, text: str | bytes) -> None:
        await self._connection.send(text)

    async def close(self, code: int, reason: str = "") -> None:
        await self._connection.close(code, reason)


@asynccontextmanager
async def talking(*talks: Talk) -> AsyncIterator[str]:
    """A server that holds the first talk with who comes first, and so on; its address."""
    count = 0
    failed: list[BaseException] = []

    async def hold(connection: ServerConnection) -> None:
        nonlocal count
        line = Line(connection, count)
        count += 1
        try:
            await talks[min(line.number, len(talks) - 1)](line)
            await connection.wait_closed()
        except AssertionError as error:
            failed.append(error)

    async with serve(hold, "127.0.0.1", 0, subprotocols=[Subprotocol("antiphon.events.v1")]) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    assert not failed


async def refuse_with(status: int, then: Talk, body: bytes = b"") -> Any:
    """A server whose first handshake is refused."""
    refused = False

    def process(connection: ServerConnection, request: Request) -> Response | None:
        nonlocal refused
        if refused:
            return None
        refused = True
        response = connection.respond(status, "")
        response.body = body
        del response.headers["Content-Length"]
        response.headers["Content-Length"] = str(len(body))
        return response

    async def hold(connection: ServerConnection) -> None:
        await then(Line(connection, 0))
        await connection.wait_closed()

    protocols = [Subprotocol("antiphon.events.v1")]
    return await serve(hold, "127.0.0.1", 0, subprotocols=protocols, process_request=process)


async def hear(client: StatusClient, until: Callable[[Heard], bool] = lambda _: False) -> list[Heard]:
    """All that is heard, up to and with what ``until`` is true of."""
    everything: list[Heard] = []
    async with asyncio.timeout(20), aclosing(client.listen()) as heard:
        async for one in heard:
            everything.append(one)
            if until(one):
                break
    return everything
