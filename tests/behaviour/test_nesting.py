"""Combinations that reach each other through servers do not ask each other for ever."""

from __future__ import annotations

from server.settings import Combination, Member, Settings, Summary
from server.simulators.openai import OpenAISimulator
from tests.behaviour.running import QUIET, antiphon, ask, channel


async def test_a_members_call_tells_how_many_combinations_it_is_within() -> None:
    panel = Combination(
        name="panel", members=(Member(model="m"), Member(model="m")), summary=Summary(model="m"), quorum=2
    )
    async with OpenAISimulator() as sim:
        settings = Settings(channels=(channel(sim),), combinations=(panel,), logging=QUIET)
        async with antiphon(settings) as server:
            async with server.client.post(f"{server.url}/v1/chat/completions", json=ask("panel")) as answer:
                assert answer.status == 200
            async with server.client.post(f"{server.url}/v1/chat/completions", json=ask("m")) as answer:
                assert answer.status == 200
        depths = [request.header("x-antiphon-depth") for request in sim.requests]
        assert depths == ["1", "1", "1", None]


async def test_a_combination_is_refused_to_a_request_from_two_combinations_deep() -> None:
    panel = Combination(name="panel", members=(Member(model="m"),), summary=Summary(model="m"), quorum=1)
    async with OpenAISimulator() as sim:
        settings = Settings(channels=(channel(sim),), combinations=(panel,), logging=QUIET)
        async with antiphon(settings) as server:
            url, deep = f"{server.url}/v1/chat/completions", {"x-antiphon-depth": "2"}
            async with server.client.post(url, json=ask("panel"), headers=deep) as answer:
                assert answer.status == 400
                assert (await answer.json())["error"]["code"] == "recursion_limit"
            async with server.client.post(url, json=ask("m"), headers=deep) as answer:
                assert answer.status == 200
