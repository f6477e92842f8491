"""Channels that play a script, for tests of what stands above them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Any, TypeAlias

import msgspec

from server.chat import ChatRequest
from server.deltas import Batch, Delta, Finished, Opening, TextDelta
from server.errors import ServerError
from server.openai_wire import parse_chat
from server.routed_model import RoutedModel
from server.routing.channel import ChannelState
from server.settings import Channel, ChannelModel, Routing
from server.upstreams.base import Call, Upstream

# A batch to yield, something to wait for, an error to raise.
Step: TypeAlias = "Batch | asyncio.Event | ServerError"
Script: TypeAlias = "Sequence[Step]"


def says(*texts: str) -> Script:
    """The script of an answer: its pieces, one a batch, and its end."""
    return [[Opening()], *([TextDelta(text)] for text in texts), [Finished("stop")]]


def chat(model: str = "m", **fields: Any) -> ChatRequest:
    asked = {"model": model, "stream": True, "messages": [{"role": "user", "content": "hello"}]}
    return parse_chat(msgspec.json.encode(asked | fields))


class ScriptedChannel:
    """A channel's upstream that plays one script a call, the last one for ever.

    ``asked`` holds the requests that came, ``asked_by`` the calls they came with; ``open`` counts those under
    way.
    """

    def __init__(self, name: str, *scripts: Script) -> None:
        self.name = name
        self.scripts = list(scripts) or [says("hello")]
        self.asked: list[ChatRequest] = []
        self.asked_by: list[Call] = []
        self.open = 0
        self.unavailable: str | None = None
        self.warnings: tuple[str, ...] = ()

    async def stream(self, chat: ChatRequest, call: Call) -> AsyncGenerator[Batch, None]:
        script = self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]
        self.asked.append(chat)
        self.asked_by.append(call)
        self.open += 1
        if self.warnings:
            call.adapted(self.name, self.warnings)
        try:
            for step in script:
                if isinstance(step, asyncio.Event):
                    await step.wait()
                elif isinstance(step, ServerError):
                    raise step
                else:
                    yield step
        finally:
            self.open -= 1

    async def aclose(self) -> None:
        pass


class Eager(random.Random):
    """Chance that waits for nothing in a back-off, and otherwise is what it is."""

    def uniform(self, a: float, b: float) -> float:
        return min(a, b)


class Listener:
    """An ``Observer`` that notes what it hears."""

    def __init__(self) -> None:
        self.heard: list[tuple[Any, ...]] = []
        self.delays: list[float] = []
        self.notes: list[tuple[str, str, str | None]] = []
        self.adaptations: list[tuple[str, tuple[str, ...]]] = []

    def queued(self, channel: str) -> None:
        self.heard.append(("queued", channel))

    def attempt(self, number: int, channel: str) -> None:
        self.heard.append(("attempt", number, channel))

    def retrying(self, error: ServerError, *, delay_s: float, next_attempt: int, same_channel: bool) -> None:
        self.heard.append(("retrying", error.code, next_attempt, same_channel))
        self.delays.append(delay_s)

    def noted(
        self, channel: str, state: str, *, reason: str | None = None, for_s: float | None = None
    ) -> None:
        self.notes.append((channel, state, reason))

    def adapted(self, channel: str, warnings: tuple[str, ...]) -> None:
        self.adaptations.append((channel, warnings))


def channel(name: str, *scripts: Script, **settings: Any) -> ChannelState:
    """A channel of kind openai that serves ``m`` by its scripts."""
    fields = {"name": name, "kind": "openai", "models": ("m",)} | settings
    return ChannelState(msgspec.convert(fields, Channel), [ScriptedChannel(name, *scripts)])


def played(state: ChannelState) -> ScriptedChannel:
    assert isinstance(state.upstream, ScriptedChannel)
    return state.upstream


def model(*states: ChannelState, rng: random.Random | None = None, **routing: Any) -> RoutedModel:
    channels = [(state, ChannelModel()) for state in states]
    return RoutedModel("m", channels, rng or Eager(1), msgspec.convert(routing, Routing))


async def answer(upstream: Upstream, call: Call | None = None, request: ChatRequest | None = None) -> str:
    """The text of a whole answer."""
    return "".join(
        [delta.text for delta in await deltas(upstream, call, request) if type(delta) is TextDelta]
    )


async def deltas(
    upstream: Upstream, call: Call | None = None, request: ChatRequest | None = None
) -> list[Delta]:
    """Every delta of a whole answer; no batch is empty."""
    got: list[Delta] = []
    async with asyncio.timeout(10), aclosing(upstream.stream(request or chat(), call or Call())) as batches:
        async for batch in batches:
            assert batch
            got += batch
    return got


async def failure(
    upstream: Upstream, call: Call | None = None, request: ChatRequest | None = None
) -> ServerError:
    """The error that a call ends with."""
    return (await said_and_failed(upstream, call, request))[1]


async def said_and_failed(
    upstream: Upstream, call: Call | None = None, request: ChatRequest | None = None
) -> tuple[list[str], ServerError]:
    """The texts that came before the error that a call ends with, and the error."""
    said: list[str] = []
    try:
        async with (
            asyncio.timeout(10),
            aclosing(upstream.stream(request or chat(), call or Call())) as batches,
        ):
            async for batch in batches:
                assert batch
                said += [delta.text for delta in batch if type(delta) is TextDelta]
    except ServerError as error:
        return said, error
    raise AssertionError("the call did not fail")


async def until(true: Callable[[], object]) -> None:
    """Give the others their turns until it is so."""
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110 - what changes is told by nobody
            await asyncio.sleep(0)
