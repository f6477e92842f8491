"""A server before two upstreams that serve one model, for tests of what happens between them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from server.settings import (
    Routing,
    Settings,
)
from server.simulators.openai import OpenAISimulator
from server.simulators.script import Script
from tests.behaviour.asking import (
    assert_nothing_left,
    chunks_of,
    text_of,
)
from tests.behaviour.running import QUIET, Antiphon, antiphon, channel
from tests.raw_http import Answer

ATTEMPTS = "x-antiphon-attempts"


@dataclass(frozen=True)
class House:
    """A server before two upstreams of one model; ``one`` is asked first."""

    server: Antiphon
    one: OpenAISimulator
    two: OpenAISimulator

    @property
    def asked(self) -> tuple[int, int]:
        return len(self.one.requests), len(self.two.requests)


@asynccontextmanager
async def house(routing: Routing = Routing(), **first: Any) -> AsyncIterator[House]:  # noqa: B008 - frozen
    """``first``: more settings of the channel that is asked first."""
    async with OpenAISimulator() as one, OpenAISimulator(default=Script(text="from two")) as two:
        settings = pair(one, two, routing, **first)
        async with antiphon(settings) as server:
            yield House(server, one, two)
            one.default = two.default = Script()
            assert_nothing_left(server)


def pair(
    one: OpenAISimulator,
    two: OpenAISimulator,
    routing: Routing = Routing(),  # noqa: B008 - frozen
    **first: Any,
) -> Settings:
    channels = (
        channel(one, name="one", priority=1, **first),
        channel(two, name="two"),
    )
    return Settings(channels=channels, routing=routing, logging=QUIET)


def content(answer: Answer) -> str:
    assert answer.status == 200, answer.body
    if answer.headers["content-type"].startswith("text/event-stream"):
        return text_of(chunks_of(answer.body))
    text: str = answer.json()["choices"][0]["message"]["content"]
    return text
