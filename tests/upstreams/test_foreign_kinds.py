"""What every upstream does that speaks a dialect of its own: cuts, splits, silence, and who leaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass
from typing import Any

import pytest

from server.deltas import TextDelta
from server.errors import (
    InvalidRequest,
    Overloaded,
    UpstreamCut,
    UpstreamError,
    UpstreamInvalid,
    UpstreamTimeout,
)
from server.settings import Timeouts
from server.simulators.anthropic import AnthropicSimulator
from server.simulators.anthropic_said import AnthropicScript
from server.simulators.gemini import GeminiSimulator
from server.simulators.gemini_said import GeminiScript
from server.simulators.ollama import OllamaSimulator
from server.simulators.ollama_said import OllamaScript
from server.simulators.script import Script
from server.upstreams.base import Call, Upstream
from tests.channels import answer, chat, deltas, failure, said_and_failed
from tests.upstreams.openai_cases import TEXT, upstream

PLAIN = chat(stream=False)


@dataclass(frozen=True)
class Kind:
    """A kind of channel, its simulator, and how the dialect tells what all dialects can tell."""

    name: str
    model: str
    simulator: type[AnthropicSimulator | GeminiSimulator | OllamaSimulator]
    script: type[Script]
    refused: dict[str, Any]  # fields of a request that cannot be made
    in_midstream: type[Exception]  # what an error after some words is
    half: type[Exception]  # what half of a whole answer is, where nothing tells how long it was
    end: int  # bytes at the end of a stream without which it is whole
    between: dict[str, Any]  # fields of a script that puts something between the pieces
    beat: str | None  # what a server sends that only says it is there

    async def whole_bytes(self, sim: Any) -> int:
        """How long a stream is."""
        async with self.channel(sim) as channel:
            await deltas(channel)
        return int(sim.requests[0].sent_bytes)

    def channel(self, sim: Any) -> AbstractAsyncContextManager[Upstream]:
        return upstream(sim.url, kind=self.name, models={"m": {"model": self.model}})

    def say(self, sim: Any, **fields: Any) -> None:
        """What the simulator answers next."""
        sim.script(self.script(text=TEXT, **fields))


EVENTS = [
    Kind(
        "anthropic",
        "claude-sonnet-4-6",
        AnthropicSimulator,
        AnthropicScript,
        refused={"n": 2},
        in_midstream=Overloaded,
        half=UpstreamInvalid,
        end=2,
        between={"ping_between": True},
        beat='event: ping\ndata: {"type": "ping"}\n\n',
    ),
    Kind(
        "gemini",
        "gemini-3.8-flash",
        GeminiSimulator,
        GeminiScript,
        refused={"modalities": ["audio"]},
        in_midstream=Overloaded,
        half=UpstreamInvalid,
        end=4,
        between={"comments_between": True},
        beat=": beat\r\n\r\n",
    ),
]
KINDS = [
    *EVENTS,
    Kind(
        "ollama",
        "llama3.2",
        OllamaSimulator,
        OllamaScript,
        refused={"n": 2},
        in_midstream=UpstreamError,
        half=UpstreamCut,
        end=1,
        between={"extras": True},
        beat=None,
    ),
]
of_events = pytest.mark.parametrize("kind", EVENTS, ids=lambda kind: kind.name)
"""For kinds whose streams are server-sent events."""


@pytest.fixture(params=KINDS, ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest) -> Kind:
    found: Kind = request.param
    return found


@pytest.fixture
async def sim(kind: Kind) -> AsyncIterator[Any]:
    simulator: Any = kind.simulator
    async with simulator(default=kind.script(text=TEXT)) as serving:
        yield serving


@pytest.mark.parametrize("stream", [True, False])
async def test_a_request_that_cannot_be_made_is_refused_before_anything_is_sent(
    kind: Kind, sim: Any, stream: bool
) -> None:
    async with kind.channel(sim) as channel:
        assert type(await failure(channel, request=chat(stream=stream, **kind.refused))) is InvalidRequest
    assert sim.requests == []


async def test_an_error_in_midstream_ends_the_answer_after_what_was_said(kind: Kind, sim: Any) -> None:
    kind.say(sim, chunks=4, error_after=2)
    async with kind.channel(sim) as channel:
        said, error = await said_and_failed(channel)
    assert TEXT.startswith("".join(said))
    assert (len(said), type(error)) == (2, kind.in_midstream)


@pytest.mark.parametrize("cut", ["fin", "rst", "clean"])
@pytest.mark.parametrize("chunks", [0, 2, 4])
async def test_a_stream_that_is_cut_is_no_answer(kind: Kind, sim: Any, cut: str, chunks: int) -> None:
    kind.say(sim, chunks=4, cut_after=chunks, cut=cut)
    async with kind.channel(sim) as channel:
        _, error = await said_and_failed(channel)
        assert isinstance(error, UpstreamError)
        assert error.retryable
        assert await answer(channel) == TEXT


async def test_cut_at_whatever_byte_a_stream_is_never_taken_for_whole(kind: Kind, sim: Any) -> None:
    whole = await kind.whole_bytes(sim)
    async with kind.channel(sim) as channel:
        for at in range(0, whole - kind.end, 13):
            kind.say(sim, cut_at_byte=at, cut="clean")
            said, error = await said_and_failed(channel)
            assert TEXT.startswith("".join(said))
            assert isinstance(error, UpstreamError)


async def test_half_a_whole_answer_is_no_answer(kind: Kind, sim: Any) -> None:
    kind.say(sim, cut_at_byte=40)
    kind.say(sim, cut_at_byte=40, framing="close")
    async with kind.channel(sim) as channel:
        assert type(await failure(channel, request=PLAIN)) is UpstreamCut
        assert type(await failure(channel, request=PLAIN)) is kind.half


@of_events
async def test_a_whole_answer_for_a_stream_and_the_other_way_round(kind: Kind, sim: Any) -> None:
    kind.say(sim, answer_as="json")
    kind.say(sim, answer_as="sse")
    async with kind.channel(sim) as channel:
        assert await answer(channel) == TEXT
        assert await answer(channel, request=PLAIN) == TEXT


@pytest.mark.parametrize("split", [1, 7])
async def test_however_a_stream_is_split_it_says_the_same(kind: Kind, sim: Any, split: int) -> None:
    kind.say(sim, split_at=split, **kind.between)
    async with kind.channel(sim) as channel:
        assert await answer(channel) == TEXT


@of_events
async def test_a_beating_heart_does_not_keep_a_silent_stream_alive(kind: Kind, sim: Any) -> None:
    assert kind.beat is not None
    kind.say(sim, chunks=3, inject={1: kind.beat * 3}, stall_after=1)
    async with kind.channel(sim) as channel:
        said, error = await said_and_failed(channel, Call(timeouts=lambda said: Timeouts(idle_s=0.2)))
    assert (len(said), type(error), error.code) == (1, UpstreamTimeout, "upstream_timeout_idle")


async def test_who_leaves_closes_the_connection(kind: Kind, sim: Any) -> None:
    kind.say(sim, chunks=3, stall_after=1)
    async with kind.channel(sim) as channel:
        async with asyncio.timeout(10), aclosing(channel.stream(chat(), Call())) as batches:
            async for batch in batches:
                if any(type(delta) is TextDelta for delta in batch):
                    break
        await sim.wait_until(lambda: sim.requests[0].aborted)


async def test_a_connection_is_used_again(kind: Kind, sim: Any) -> None:
    async with kind.channel(sim) as channel:
        for request in (chat(), PLAIN, chat()):
            assert await answer(channel, request=request) == TEXT
    assert len({request.connection for request in sim.requests}) == 1
