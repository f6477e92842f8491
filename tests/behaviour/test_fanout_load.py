"""What a combination asks of the channels: spread over hosts, by turns, and not more than it needs."""

from __future__ import annotations

import asyncio
from typing import Any

from server.settings import Access, AccessKey, Combination, Member, Routing, Settings, Summary
from server.simulators.openai import OpenAISimulator
from server.simulators.script import Script
from tests.behaviour.asking import assert_nothing_left, get, post
from tests.behaviour.houses import ATTEMPTS
from tests.behaviour.running import QUIET, Antiphon, antiphon, ask, channel

DRAFT = "A draft that is long enough to be one."


def panel(*models: str, **fields: Any) -> Combination:
    given: dict[str, Any] = {
        "name": "panel",
        "members": tuple(Member(model=model) for model in models),
        "summary": Summary(model="s"),
    }
    return Combination(**(given | fields))


async def events(server: Antiphon, run: str) -> list[dict[str, Any]]:
    found = await get(server, f"/v1/runs/{run}/events?include=channels")
    told: list[dict[str, Any]] = found.json()["data"]
    return told


def members(sim: OpenAISimulator) -> int:
    return sum(request.model == "m" for request in sim.requests)


async def test_members_that_ask_one_model_are_spread_over_its_hosts() -> None:
    async with OpenAISimulator() as one, OpenAISimulator() as two, OpenAISimulator() as three:
        channels = (
            channel(one, "m", "s", name="one"),
            channel(one, "m", name="one-again"),  # the same host fails together with the first
            channel(two, "m", name="two"),
            channel(three, "m", name="three", weight=0.01),
        )
        settings = Settings(
            channels=channels, combinations=(panel("m", "m", "m", quorum=3, grace_s=30),), logging=QUIET
        )
        async with antiphon(settings) as server:
            for _ in range(5):
                assert (await post(server, ask("panel"))).status == 200
        assert [members(sim) for sim in (one, two, three)] == [5, 5, 5]


async def test_a_lower_priority_is_not_asked_for_the_sake_of_spreading() -> None:
    async with OpenAISimulator() as one, OpenAISimulator() as two:
        channels = (channel(one, "m", "s", name="one", priority=1), channel(two, "m", name="two"))
        settings = Settings(channels=channels, combinations=(panel("m", "m"),), logging=QUIET)
        async with antiphon(settings) as server:
            assert (await post(server, ask("panel"))).status == 200
        assert [members(one), members(two)] == [2, 0]


async def test_with_the_quorum_reached_a_member_that_fails_is_not_asked_again_elsewhere() -> None:
    async with OpenAISimulator() as one, OpenAISimulator() as two:
        one.script(Script(delay_ms=300, status=500), model="slow")
        channels = (channel(one, "m", "s", "slow", name="one", priority=1), channel(two, "slow", name="two"))
        panels = (panel("m", "m", "slow", quorum=2, grace_s=30),)
        async with antiphon(Settings(channels=channels, combinations=panels, logging=QUIET)) as server:
            answer = await post(server, ask("panel"))
            assert answer.status == 200
            assert answer.json()["antiphon"]["level"] == "quorum"
            assert not two.requests
            told = await events(server, answer.headers["x-run-id"])
            passed = [one["data"] for one in told if one["type"] == "model.channel"]
            assert {"state": "passed_over", "reason": "enough", "channel": "two"}.items() <= passed[
                -1
            ].items()


async def test_below_the_quorum_it_is_asked_again() -> None:
    async with OpenAISimulator() as one, OpenAISimulator(default=Script(text=DRAFT)) as two:
        one.script(Script(status=500), model="m")
        channels = (channel(one, "m", "s", name="one", priority=1), channel(two, "m", name="two"))
        panels = (panel("m", "m", quorum=2, grace_s=30),)
        async with antiphon(Settings(channels=channels, combinations=panels, logging=QUIET)) as server:
            answer = await post(server, ask("panel"))
            assert answer.json()["antiphon"]["level"] == "none"
            assert len(two.requests) == 1
            header = answer.headers[ATTEMPTS].split(", ")
            assert sorted(header) == sorted(["m1:upstream_error", "m1:ok", "m2:ok", "summary:ok"])


async def test_the_head_of_a_combinations_stream_tells_what_was_tried_before_its_first_word() -> None:
    async with OpenAISimulator() as sim:
        sim.script(Script(status=401), model="m")
        chain = panel("m", "n", strategy="fallback", summary=None)
        settings = Settings(channels=(channel(sim, "m", "n"),), combinations=(chain,), logging=QUIET)
        async with antiphon(settings) as server:
            answer = await post(server, ask("panel", stream=True))
            assert answer.status == 200
            assert answer.headers[ATTEMPTS].startswith("m1:")
            assert answer.body.endswith(b"data: [DONE]\n\n")


async def test_attempts_of_a_combination_are_told_with_their_channels_if_that_is_wanted() -> None:
    async with OpenAISimulator() as sim:
        settings = Settings(
            channels=(channel(sim, "m", "s"),),
            combinations=(panel("m", "m", quorum=2, grace_s=30),),
            routing=Routing(tell_channels=True),
            logging=QUIET,
        )
        async with antiphon(settings) as server:
            answer = await post(server, ask("panel"))
            assert answer.headers[ATTEMPTS] == "m1:sim=ok, m2:sim=ok, summary:sim=ok"


async def test_without_a_failure_a_combination_tells_no_attempts() -> None:
    async with OpenAISimulator() as sim:
        settings = Settings(
            channels=(channel(sim, "m", "s"),), combinations=(panel("m", "m"),), logging=QUIET
        )
        async with antiphon(settings) as server:
            assert ATTEMPTS not in (await post(server, ask("panel"))).headers


async def test_all_members_refused_is_told_with_every_attempt() -> None:
    async with OpenAISimulator(default=Script(status=400)) as sim:
        settings = Settings(
            channels=(channel(sim, "m", "s"),), combinations=(panel("m", "m"),), logging=QUIET
        )
        async with antiphon(settings) as server:
            answer = await post(server, ask("panel"))
            assert answer.status == 400
            assert len(answer.headers[ATTEMPTS].split(", ")) == 2


async def test_a_plain_question_does_not_wait_behind_a_storm_of_combinations() -> None:
    """Twenty panels of three hold all the slots that are theirs; a plain call is answered at once."""
    async with OpenAISimulator() as sim:
        sim.script(Script(silent=True), model="m", times=60)
        settings = Settings(
            channels=(channel(sim, "m", "s", "plain", max_concurrency=4),),
            combinations=(panel("m", "m", "m"),),
            logging=QUIET,
        )
        async with antiphon(settings) as server:
            storm = [asyncio.ensure_future(post(server, ask("panel"))) for _ in range(20)]
            await sim.wait_until(lambda: sim.stats()["live"] == 3)
            for _ in range(5):
                assert (await post(server, ask("plain"))).status == 200
            assert sim.stats()["live"] == 3, "and the storm did not take that place meanwhile"
            for one in storm:
                one.cancel()
            await asyncio.gather(*storm, return_exceptions=True)
            await sim.wait_until(lambda: sim.stats()["live"] == 0)
            assert_nothing_left(server)


async def test_one_keys_many_questions_do_not_hold_up_another_keys_one() -> None:
    keys = Access(keys=(AccessKey(name="loud", key="loud-key"), AccessKey(name="quiet", key="quiet-key")))
    async with OpenAISimulator() as sim:
        sim.script(Script(delay_ms=100), model="m", times=12)
        settings = Settings(access=keys, channels=(channel(sim, "m", max_concurrency=1),), logging=QUIET)
        async with antiphon(settings) as server:
            loud = [
                asyncio.ensure_future(post(server, ask(text="loud"), "Authorization: Bearer loud-key"))
                for _ in range(10)
            ]
            await sim.wait_until(lambda: len(sim.requests) == 1)
            # All of the loud ones wait by now, or come behind: the quiet one is second or third in any case.
            await post(server, ask(text="quiet"), "Authorization: Bearer quiet-key")
            before = [request.body for request in sim.requests]
            assert next(at for at, body in enumerate(before) if b"quiet" in body) <= 2
            assert all(answer.status == 200 for answer in await asyncio.gather(*loud))
