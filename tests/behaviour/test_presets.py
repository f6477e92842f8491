"""Vendors by their presets, behind the whole server: what was adapted is told, what would be lost refused."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from server.settings import Routing, Settings
from server.simulators.openai import OpenAISimulator
from server.simulators.script import Script
from tests.behaviour.asking import error_of, post
from tests.behaviour.running import QUIET, Antiphon, antiphon, ask, channel


@asynccontextmanager
async def serving(preset: str) -> AsyncIterator[tuple[Antiphon, OpenAISimulator]]:
    async with OpenAISimulator() as sim:
        settings = Settings(
            channels=(channel(sim, preset=preset),), routing=Routing(attempts=1), logging=QUIET
        )
        async with antiphon(settings) as server:
            yield server, sim


async def test_what_was_adapted_is_told_in_a_header_and_what_fits_in_none() -> None:
    async with serving("mistral") as (server, _):
        for stream in (True, False):
            told = await post(server, ask(stream=stream, seed=1, user="u", temperature=0.1))
            assert told.headers["x-antiphon-warnings"] == "user was left out"
            assert "x-antiphon-warnings" not in (await post(server, ask(stream=stream, seed=1))).headers


async def test_what_would_change_the_meaning_is_the_clients_error() -> None:
    async with serving("groq") as (server, sim):
        error = error_of(await post(server, ask(n=2)), 400)
        assert (error["param"], error["code"]) == ("n", "unsupported_parameter")
        assert sim.requests == []


async def test_a_vendors_code_is_told_as_what_it_means() -> None:
    async with serving("zhipu") as (server, sim):
        sim.script(
            Script(status=429, error_code="1113", error_message="余额不足"),
            Script(status=400, error_code="1261", error_message="prompt too long"),
            Script(text="a", finish="sensitive"),
        )
        assert error_of(await post(server, ask()), 429)["code"] == "insufficient_quota"
        assert error_of(await post(server, ask()), 400)["code"] == "context_length_exceeded"
        assert (await post(server, ask())).json()["choices"][0]["finish_reason"] == "content_filter"
