"""The whole server in front of a simulated upstream, as the product starts it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
from aiohttp import web

from server.app import create_app, drain, last_words
from server.settings import Channel, Logging, Settings
from server.simulators.openai import OpenAISimulator
from tests.raw_http import PATIENCE_S
from tests.served import served

QUIET = Logging(access=False)


@dataclass(frozen=True)
class Antiphon:
    """A running server: its address, and the application behind it."""

    port: int
    app: web.Application
    client: aiohttp.ClientSession

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@asynccontextmanager
async def antiphon(
    settings: Settings, *, patience_s: float = PATIENCE_S, **options: object
) -> AsyncIterator[Antiphon]:
    """Serve ``settings`` on a free port, until the end of the block, which may take ``patience_s``."""
    app = create_app(settings)
    hooks = {"on_drain": lambda: drain(app), "on_drain_timeout": lambda: last_words(app)}
    async with (
        served(app, patience_s=patience_s, **{**hooks, **options}) as port,
        aiohttp.ClientSession() as client,
    ):
        yield Antiphon(port, app, client)


def channel(sim: OpenAISimulator, *models: str, name: str = "sim", **more: object) -> Channel:
    """A channel to a simulated upstream."""
    return Channel(name=name, kind="openai", base_url=sim.base_url, models=models or ("m",), **more)  # type: ignore[arg-type]


def ask(model: str = "m", text: str = "hello", **fields: object) -> dict[str, object]:
    """A chat request's body."""
    return {"model": model, "messages": [{"role": "user", "content": text}], **fields}
