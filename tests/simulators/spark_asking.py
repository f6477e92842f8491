"""Asks a simulated Spark as a bare client would, with a signer of its own."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from email.utils import format_datetime
from typing import Any, NamedTuple
from urllib.parse import urlencode

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from server.simulators.spark import SparkSimulator
from server.simulators.spark_script import SparkScript

MAX = "/v3.5/chat"
DOMAINS = {MAX: "generalv3.5", "/v1.1/chat": "lite", "/v1/x1": "spark-x", "/v2.1/image": "imagev3"}


class Told(NamedTuple):
    """What came on a websocket until it closed."""

    frames: list[dict[str, Any]]
    close_code: int | None
    close_reason: str | None

    @property
    def text(self) -> str:
        return "".join(item["content"] for item in items(self.frames))

    @property
    def code(self) -> int:
        return int(self.frames[-1]["header"]["code"])

    @property
    def message(self) -> str:
        return str(self.frames[-1]["header"]["message"])


def signature(secret: str, host: str, date: str, path: str, method: str = "GET") -> str:
    origin = f"host: {host}\ndate: {date}\n{method} {path} HTTP/1.1"
    return base64.b64encode(hmac.new(secret.encode(), origin.encode(), hashlib.sha256).digest()).decode()


def authorization(key: str, signed: str, field: str = "api_key", comma: str = ", ") -> str:
    fields = [f'{field}="{key}"', 'algorithm="hmac-sha256"', 'headers="host date request-line"']
    return base64.b64encode(comma.join([*fields, f'signature="{signed}"']).encode()).decode()


def signed_target(
    path: str, now: datetime, host: str, key: str = "sim-key", secret: str = "sim-secret"
) -> str:
    date = format_datetime(now, usegmt=True)
    query = {
        "authorization": authorization(key, signature(secret, host, date, path)),
        "date": date,
        "host": host,
    }
    return f"{path}?{urlencode(query)}"


def signed_url(sim: SparkSimulator, path: str = MAX) -> str:
    return f"{sim.ws_url}{signed_target(path, sim.now(), sim.host)}"


def frame(
    text: object = "hello there",
    *,
    path: str = MAX,
    header: dict[str, Any] | None = None,
    chat: dict[str, Any] | None = None,
    payload: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """A request; ``text`` is the user's, or the whole list of messages."""
    messages = [{"role": "user", "content": text}] if isinstance(text, str) else text
    return {
        "header": {"app_id": "simulate", **(header or {})},
        "parameter": {"chat": {"domain": DOMAINS[path], **(chat or {})}},
        "payload": {"message": {"text": messages}, **(payload or {})},
    }


@asynccontextmanager
async def opened(sim: SparkSimulator, path: str = MAX, **headers: str) -> AsyncIterator[ClientConnection]:
    async with connect(
        signed_url(sim, path), additional_headers=headers, compression=None, max_size=None, proxy=None
    ) as ws:
        yield ws


async def talk(
    sim: SparkSimulator,
    script: SparkScript | None = None,
    request: dict[str, Any] | str | None = None,
    *,
    path: str = MAX,
) -> Told:
    """The whole answer to one request, by ``script``."""
    if script is not None:
        sim.script(script)
    if not isinstance(request, str):
        request = json.dumps(frame(path=path) if request is None else request)
    async with opened(sim, path) as ws:
        await ws.send(request)
        return Told([json.loads(message) for message in await rest(ws)], ws.close_code, ws.close_reason)


async def rest(ws: ClientConnection) -> list[str | bytes]:
    """Every message until the websocket closes, in whatever way."""
    messages: list[str | bytes] = []
    try:
        while True:
            messages.append(await ws.recv())
    except ConnectionClosed:
        return messages


def items(frames: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The text items of the frames that have one."""
    return [one for each in frames for one in each.get("payload", {}).get("choices", {}).get("text", ())]


def statuses(frames: list[dict[str, Any]]) -> list[tuple[int, int]]:
    return [(one["header"]["status"], one["payload"]["choices"]["status"]) for one in frames]
