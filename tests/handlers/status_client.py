"""A strict websocket client of the status channel, and what tests read in what it was told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from server.events import TEXT_TYPES, decode
from server.run_check import RunChecker
from server.settings import Settings
from tests.schemas import check_message
from tests.scripted_runs import KEYS, Site, site

EVENTS = Subprotocol("antiphon.events.v1")
KEYED = Settings(access=KEYS)


def code_of(error: ConnectionClosed) -> int:
    """With what the server closed; 1006 if without a close frame."""
    return error.rcvd.code if error.rcvd is not None else 1006


class Client:
    """A watcher. Every wait fails after ten seconds."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    async def send(self, type: str, **fields: Any) -> None:
        await self.socket.send(json.dumps({"type": type, **fields}))

    async def get(self, type: str | None = None) -> Any:
        async with asyncio.timeout(10):
            message = json.loads(await self.socket.recv())
        check_message(message)
        assert type is None or message["type"] == type, message
        return message

    async def until(self, type: str) -> list[Any]:
        """All messages up to and with the first of this type."""
        messages = [await self.get()]
        while messages[-1]["type"] != type:
            messages.append(await self.get())
        return messages

    async def begin(self, **fields: Any) -> Any:
        await self.send("connection_init", **fields)
        return await self.get("connection_ack")

    async def subscribe(self, topic: str, id: str = "1", **fields: Any) -> Any:
        await self.send("subscribe", id=id, topic=topic, **fields)
        return await self.get("subscribed")

    async def closed(self) -> int:
        """Read on until the server closes; the code."""
        try:
            async with asyncio.timeout(10):
                while True:
                    await self.socket.recv()
        except ConnectionClosed as error:
            return code_of(error)


@asynccontextmanager
async def client(shown: Site, key: str | None = None, **options: Any) -> AsyncIterator[Client]:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    headers |= options.pop("headers", {})
    protocols = options.pop("subprotocols", [EVENTS])
    address = f"ws://127.0.0.1:{shown.port}/v1/events{options.pop('query', '')}"
    async with connect(
        address, subprotocols=protocols, additional_headers=headers, proxy=None, compression=None, **options
    ) as socket:
        yield Client(socket)


@asynccontextmanager
async def watching(settings: Settings | None = None, **events: Any) -> AsyncIterator[tuple[Site, Client]]:
    async with site(settings, **events) as shown, client(shown) as watcher:
        await watcher.begin()
        yield shown, watcher


def told(messages: list[Any]) -> list[Any]:
    return [message["event"] for message in messages if message["type"] == "next"]


def numbers(messages: list[Any]) -> list[int]:
    return [event["sequence_number"] for event in told(messages) if "volatile" not in event]


def text_of(messages: list[Any], lane: str) -> str:
    """The text of a lane; each delta has to begin where the one before ended."""
    text = ""
    for event in told(messages):
        if event["type"] in TEXT_TYPES and event.get("member", {"id": "summary"})["id"] == lane:
            assert event["data"]["text_offset"] == len(text)
            text += event["data"]["text"]
    return text


def check(messages: list[Any], *, joined: bool) -> None:
    checker = RunChecker(joined=joined)
    for event in told(messages):
        decoded = decode(json.dumps(event).encode())
        assert decoded is not None
        checker.apply(decoded)
    assert checker.finish() == []


class Viewer:
    def __init__(self, name: str, admin: bool = False) -> None:
        self.name = name
        self.admin = admin
