"""Channels that serve whatever their upstream lists, through the whole server."""

from __future__ import annotations

import asyncio

from server.app import replace_settings
from server.settings import AUTO, Channel, Settings
from server.simulators.openai import OpenAISimulator
from server.simulators.script import Script
from tests.behaviour.asking import error_of, get, post
from tests.behaviour.running import QUIET, Antiphon, antiphon, ask
from tests.raw_http import PATIENCE_S


def settings(sim: OpenAISimulator, **more: object) -> Settings:
    auto = Channel(name="sim", kind="openai", base_url=sim.base_url, models=AUTO, **more)  # type: ignore[arg-type]
    return Settings(channels=(auto,), logging=QUIET)


async def ids(server: Antiphon) -> list[str]:
    return [one["id"] for one in (await get(server, "/v1/models")).json()["data"]]


async def test_what_the_upstream_lists_is_listed_and_served_from_the_first_request_on() -> None:
    async with (
        OpenAISimulator(models={"big": Script(), "small": Script()}) as sim,
        antiphon(settings(sim)) as server,
    ):
        assert await ids(server) == ["sim", "big", "small"]
        assert (await post(server, ask("big"))).status == 200
        error_of(await post(server, ask("medium")), 404)


async def test_a_model_that_comes_later_is_served_without_a_restart() -> None:
    async with (
        OpenAISimulator() as sim,
        antiphon(settings(sim, list_every_s=0.01)) as server,
    ):
        assert await ids(server) == ["sim"]
        sim.models["new"] = Script()
        async with asyncio.timeout(PATIENCE_S):
            while await ids(server) != ["sim", "new"]:
                pass
        assert (await post(server, ask("new"))).status == 200


async def test_a_call_under_way_is_not_disturbed_by_a_new_list() -> None:
    async with (
        OpenAISimulator() as sim,
        antiphon(settings(sim, list_every_s=0.01)) as server,
    ):
        sim.script(Script(delay_ms=200, text="all of it"))
        asked = asyncio.ensure_future(post(server, ask("sim")))
        await sim.wait_until(lambda: sim.stats()["live"] == 1)
        sim.models["new"] = Script()
        async with asyncio.timeout(PATIENCE_S):
            while await ids(server) != ["sim", "new"]:
                pass
        assert (await asked).json()["choices"][0]["message"]["content"] == "all of it"


async def test_a_server_whose_upstream_is_down_starts_and_serves_the_rest() -> None:
    fixed = Channel("down", "openai", AUTO, base_url="http://127.0.0.1:1/v1")
    async with OpenAISimulator() as sim:
        both = Settings(
            channels=(fixed, Channel("sim", "openai", ("m",), base_url=sim.base_url)), logging=QUIET
        )
        async with antiphon(both) as server:
            assert await ids(server) == ["m"]
            assert (await post(server, ask())).status == 200


async def test_a_reload_brings_it_and_takes_it_away() -> None:
    async with OpenAISimulator() as sim:
        fixed = Settings(channels=(Channel("sim", "openai", ("m",), base_url=sim.base_url),), logging=QUIET)
        async with antiphon(fixed) as server:
            replace_settings(server.app, settings(sim))
            async with asyncio.timeout(PATIENCE_S):
                while await ids(server) != ["sim"]:
                    pass
            replace_settings(server.app, fixed)
            assert await ids(server) == ["m"]
