"""Models that are pulled when they are first asked for."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from server.chat import JsonObject
from server.errors import ServerError, UpstreamCut, UpstreamInvalid, UpstreamRefused, UpstreamTimeout
from server.settings import Timeouts
from server.simulators.ollama import OllamaSimulator
from server.simulators.ollama_said import OllamaScript
from server.surfaces import EMBEDDINGS, AnswerHead, JsonRequest
from server.upstreams.base import Call, Upstream, surfaces_of
from tests.channels import answer, chat, failure
from tests.upstreams.openai_cases import TEXT, upstream


@pytest.fixture
async def sim() -> AsyncIterator[OllamaSimulator]:
    default = OllamaScript(text=TEXT)
    async with OllamaSimulator(
        models=("other:latest",), pullable=("llama3.2",), default=default
    ) as simulator:
        yield simulator


def pulling(
    sim: OllamaSimulator, theirs: str = "llama3.2", **ollama: Any
) -> AbstractAsyncContextManager[Upstream]:
    settings = {"kind": "ollama", "api_key": None, "models": {"m": {"model": theirs}}}
    return upstream(sim.url, **settings, ollama={"pull": True, **ollama})


def paths(sim: OllamaSimulator) -> list[str]:
    return [request.path for request in sim.requests]


@pytest.mark.parametrize("stream", [False, True])
async def test_what_is_not_there_is_pulled_once_and_answers(
    sim: OllamaSimulator, caplog: pytest.LogCaptureFixture, stream: bool
) -> None:
    caplog.set_level(logging.INFO)
    async with pulling(sim) as channel:
        assert await answer(channel, request=chat(stream=stream)) == TEXT
        assert await answer(channel, request=chat(stream=stream)) == TEXT
    assert paths(sim) == ["/api/chat", "/api/pull", "/api/chat", "/api/chat"]
    assert sim.requests[1].json() == {"model": "llama3.2", "stream": True}
    assert "channel a: has pulled llama3.2" in caplog.text


async def embedded(channel: Upstream) -> list[Any]:
    surfaces = surfaces_of(channel)
    assert surfaces is not None
    request = JsonRequest(EMBEDDINGS, "m", JsonObject(b'{"model":"m","input":"a"}'))
    return [part async for part in surfaces.ask(request, "m", Call())]


async def test_embeddings_have_their_model_pulled_too(sim: OllamaSimulator) -> None:
    async with pulling(sim) as channel:
        assert isinstance((await embedded(channel))[0], AnswerHead)
    assert paths(sim) == ["/api/embed", "/api/pull", "/api/embed"]


async def test_a_pull_for_embeddings_that_fails_is_told(sim: OllamaSimulator) -> None:
    async with pulling(sim, "nobody") as channel:
        with pytest.raises(UpstreamRefused) as raised:
            await embedded(channel)
    assert raised.value.code == "model_not_found"
    assert paths(sim) == ["/api/embed", "/api/pull"]


async def test_all_who_ask_meanwhile_share_the_pull(sim: OllamaSimulator) -> None:
    sim.script(OllamaScript(stall_after=2, stall_ms=100), route="pull")
    async with pulling(sim) as channel, asyncio.TaskGroup() as group:
        asked = [group.create_task(answer(channel, request=chat(stream=at % 2 == 0))) for at in range(5)]
    assert [one.result() for one in asked] == [TEXT] * 5
    assert paths(sim).count("/api/pull") == 1


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("theirs", "script", "kind"),
    [
        ("nobody", None, UpstreamRefused),
        ("llama3.2", OllamaScript(status=500), ServerError),
        ("llama3.2", OllamaScript(cut_after=2), UpstreamCut),
    ],
)
async def test_a_pull_that_fails_is_told(
    sim: OllamaSimulator, theirs: str, script: OllamaScript | None, kind: type[ServerError], stream: bool
) -> None:
    if script is not None:
        sim.script(script, route="pull")
    async with pulling(sim, theirs) as channel:
        error = await failure(channel, request=chat(stream=stream))
        assert isinstance(error, kind)
        if theirs == "nobody":
            assert error.code == "model_not_found"
        else:
            assert await answer(channel) == TEXT, "the next one goes on"


async def test_a_pull_ends_with_the_calls_time(sim: OllamaSimulator) -> None:
    sim.script(OllamaScript(stall_after=1), route="pull")
    async with pulling(sim) as channel:
        limits = Timeouts(total_s=0.3)
        error = await failure(channel, Call(timeouts=lambda said: limits))
        assert isinstance(error, UpstreamTimeout)
        await sim.wait_until(lambda: sim.stats()["live"] == 0)


async def test_who_waits_for_anothers_pull_waits_no_longer_than_its_own_call_may_take(
    sim: OllamaSimulator,
) -> None:
    sim.script(OllamaScript(stall_after=1), route="pull")
    async with pulling(sim) as channel, asyncio.TaskGroup() as group:
        patient = group.create_task(answer(channel))
        await sim.wait_until(lambda: "/api/pull" in paths(sim))
        limits = Timeouts(total_s=0.3)
        async with asyncio.timeout(30):
            error = await failure(channel, Call(timeouts=lambda said: limits))
        assert isinstance(error, UpstreamTimeout)
        assert paths(sim).count("/api/pull") == 1
        patient.cancel()


async def test_a_client_that_leaves_ends_its_pull_and_the_next_one_pulls(sim: OllamaSimulator) -> None:
    sim.script(OllamaScript(stall_after=1), route="pull")
    async with pulling(sim) as channel:
        leaving = asyncio.create_task(answer(channel))
        await sim.wait_until(lambda: "/api/pull" in paths(sim))
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        await sim.wait_until(lambda: sim.stats()["live"] == 0)
        assert await answer(channel) == TEXT


async def test_other_refusals_pull_nothing(sim: OllamaSimulator) -> None:
    async with pulling(sim, "other") as channel:
        for stream in (False, True):
            sim.script(OllamaScript(status=400))
            assert isinstance(await failure(channel, request=chat(stream=stream)), UpstreamRefused)
    assert "/api/pull" not in paths(sim)


async def test_without_the_setting_nothing_is_pulled(sim: OllamaSimulator) -> None:
    async with pulling(sim, pull=False) as channel:
        assert (await failure(channel)).code == "model_not_found"
    assert paths(sim) == ["/api/chat"]


@pytest.mark.parametrize("body", ["<html>", "{}\n{bad"])
async def test_what_is_no_pull_is_no_success(sim: OllamaSimulator, body: str) -> None:
    sim.script(OllamaScript(body=body), route="pull")
    async with pulling(sim) as channel:
        assert isinstance(await failure(channel), UpstreamInvalid)
