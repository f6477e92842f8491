"""A client that leaves, at whatever moment, leaves nothing behind."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest

from server.app_keys import METRICS, RUNS
from server.run_check import check_run
from server.settings import Combination, Member, Server, Settings, Strategy, Summary
from server.simulators.openai import OpenAISimulator
from server.simulators.script import Script
from server.strategy_settings import Accept, Cascade, Council, Judge, Vote
from tests.behaviour.asking import asked, assert_nothing_left, both, chat_request, get, post, until
from tests.behaviour.running import QUIET, Antiphon, ask, channel
from tests.raw_http import RawClient

MEMBERS = tuple(Member(model=f"m{number}") for number in (1, 2, 3))


def settings(sim: OpenAISimulator) -> Settings:
    panel = Combination(name="panel", members=MEMBERS, summary=Summary(model="s"), quorum=3, grace_s=60)
    every = Combination(name="every", strategy="all", members=MEMBERS)
    one = Combination(name="one", strategy="direct", model="m")
    return Settings(
        server=Server(commit_after_s=60),
        channels=(
            channel(sim, "m", "m1", "m2", "m3", "s"),
            channel(sim, "narrow", max_concurrency=1, name="n"),
        ),
        combinations=(panel, every, one),
        logging=QUIET,
    )


async def gone(server: Antiphon, sim: OpenAISimulator) -> None:
    """Return when nothing is left of any request; fail if that does not come to be."""
    await sim.wait_until(lambda: sim.stats()["live"] == 0)
    await until(lambda: not (server.app[RUNS].in_progress or server.app[METRICS].in_flight))
    assert_nothing_left(server)


def live(sim: OpenAISimulator, count: int) -> Callable[[], bool]:
    return lambda: sim.stats()["live"] == count


def leave(raw: RawClient, how: str) -> None:
    if how == "reset":
        raw.writer.transport.abort()
    elif how == "half-close":
        raw.writer.write_eof()
    else:
        raw.writer.close()


@pytest.mark.parametrize("how", ["close", "reset", "half-close"])
@pytest.mark.parametrize("model", ["m", "one"])
@pytest.mark.parametrize("stream", [True, False])
async def test_before_any_head(how: str, model: str, stream: bool) -> None:
    async with both(settings) as (server, sim):
        sim.script(Script(silent=True))
        async with asked(server, chat_request(ask(model, stream=stream))) as raw:
            await sim.wait_until(live(sim, 1))
            leave(raw, how)
            await gone(server, sim)
        assert [request.outcome for request in sim.requests] == ["aborted"]
        assert (await post(server, ask(model, stream=stream))).status == 200


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_amid_a_stream(how: str) -> None:
    async with both(settings) as (server, sim):
        sim.script(Script(chunks=5, stall_after=2))
        async with asked(server, chat_request(ask(stream=True))) as raw:
            run_id = (await raw.head()).headers["x-run-id"]
            assert await raw.chunk()
            leave(raw, how)
            await gone(server, sim)
        assert sim.requests[-1].aborted
        told = (await get(server, f"/v1/runs/{run_id}/events")).json()["data"]
        assert told[-1]["type"] == "run.cancelled"
        assert told[-1]["data"]["by"] == "client"


async def test_amid_a_stream_that_flows() -> None:
    async with both(settings) as (server, sim):
        sim.script(Script(pieces=("x" * 1000,) * 50_000))
        async with asked(server, chat_request(ask(stream=True))) as raw:
            await raw.head()
            assert await raw.chunk()
        await gone(server, sim)
        assert sim.requests[-1].aborted


async def test_amid_the_body_of_a_plain_answer() -> None:
    async with both(settings) as (server, sim):
        sim.script(Script(stall_at_byte=20))
        async with asked(server, chat_request(ask())):
            await sim.wait_until(lambda: bool(sim.requests) and sim.requests[-1].sent_bytes == 20)
        await gone(server, sim)
        assert sim.requests[-1].aborted


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("model", ["panel", "every"])
async def test_while_members_draft(model: str, stream: bool) -> None:
    async with both(settings) as (server, sim):
        sim.script(Script(silent=True), model="m1")
        sim.script(Script(stall_after=1), model="m2")
        sim.script(Script(text="done"), model="m3")
        async with asked(server, chat_request(ask(model, stream=stream))):
            await sim.wait_until(
                lambda: (
                    sim.stats()["whole_total"] == 1
                    and sim.stats()["live"] == 2
                    and any(request.sent_chunks for request in sim.requests if request.model == "m2")
                )
            )
        await gone(server, sim)
        assert sorted(request.outcome for request in sim.requests) == ["aborted", "aborted", "whole"]
        assert not [request for request in sim.requests if request.model == "s"], "no summary for nobody"
        (run,) = (await get(server, "/v1/runs")).json()["data"]
        assert run["status"] == "cancelled"
        told = (await get(server, f"/v1/runs/{run['id']}/events")).json()["data"]
        assert told[-1]["type"] == "run.cancelled"


@pytest.mark.parametrize("stream", [True, False])
async def test_while_the_summary_writes(stream: bool) -> None:
    async with both(settings) as (server, sim):
        sim.script(Script(chunks=9, stall_after=2), model="s")
        async with asked(server, chat_request(ask("panel", stream=stream))) as raw:
            if stream:
                assert (await raw.head()).status == 200
            await sim.wait_until(
                lambda: any(one.model == "s" and one.sent_chunks == 2 for one in sim.requests)
            )
        await gone(server, sim)
        assert sim.requests[-1].aborted
        (run,) = (await get(server, "/v1/runs")).json()["data"]
        assert run["status"] == "cancelled"


DRAFT = "Long enough to be a draft, and its last line is\n42"
STAGES: dict[str, dict[str, Any]] = {
    # who is silent → a combination that waits for that, and nothing else
    "analysis": {"summary": Summary(model="s", mode="analysis")},
    "judge": {"strategy": "best_of"},
    "scorer": {"strategy": "cascade", "cascade": Cascade(accept=Accept(score=5))},
    "critic": {"strategy": "critique"},
    "chair": {"strategy": "council", "council": Council(chair="s")},
    "summary of rounds": {"strategy": "moa"},
    "tie": {"strategy": "vote", "vote": Vote(type="number", on_tie="synthesize", min_agreement=1)},
}
RUN = "run_" + "5" * 32
DRAFTING: list[Strategy] = ["synthesize", "vote", "best_of", "race", "moa", "critique", "council", "all"]


def one_panel(**fields: Any) -> Callable[[OpenAISimulator], Settings]:
    given = {"members": MEMBERS, "summary": Summary(model="s"), "grace_s": 60, **fields}

    def settings_of(sim: OpenAISimulator) -> Settings:
        one = Combination(name="panel", **given)
        return Settings(channels=(channel(sim, "m1", "m2", "m3", "s"),), combinations=(one,), logging=QUIET)

    return settings_of


async def left(server: Antiphon, sim: OpenAISimulator, stream: bool, calls: int) -> None:
    """A client asks, and leaves when so many calls are open and silent."""
    async with asked(server, chat_request(ask("panel", stream=stream), f"x-run-id: {RUN}")) as raw:
        await sim.wait_until(live(sim, calls))
        leave(raw, "reset")
        await gone(server, sim)
    run = server.app[RUNS].find(RUN)
    assert run is not None
    assert run.status == "cancelled"
    assert check_run(run.events_after(0)) == []


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("strategy", [*DRAFTING, "fallback", "cascade"])
async def test_while_members_of_any_strategy_are_silent(strategy: Strategy, stream: bool) -> None:
    in_turn = strategy in ("fallback", "cascade")
    own = {"vote": Vote(type="number"), "cascade": Cascade(accept=Accept(regex="x"))}
    async with both(one_panel(strategy=strategy, **own)) as (server, sim):
        for member in MEMBERS:
            sim.script(Script(silent=True), model=member.model)
        await left(server, sim, stream, 1 if in_turn else 3)
        assert len(sim.requests) == (1 if in_turn else 3)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("stage", STAGES)
async def test_while_whoever_judges_or_writes_is_silent(stage: str, stream: bool) -> None:
    async with both(one_panel(judge=Judge(model="s"), **STAGES[stage])) as (server, sim):
        for place, member in enumerate(MEMBERS):
            sim.script(Script(text=f"{DRAFT}{place}"), model=member.model, times=3)
        sim.script(Script(silent=True), model="s", times=10)
        calls = {"judge": 6}.get(stage, 1)
        await left(server, sim, stream, calls)
        assert [request.model for request in sim.requests].count("s") == calls


@pytest.mark.parametrize("stream", [True, False])
async def test_while_a_step_is_silent(stream: bool) -> None:
    steps = {"strategy": "steps", "model": "m1", "members": (), "summary": None}
    async with both(one_panel(**steps)) as (server, sim):
        sim.script(Script(text='{"title": "t", "content": "c", "next_action": "continue"}'), model="m1")
        sim.script(Script(silent=True), model="m1")
        async with asked(server, chat_request(ask("panel", stream=stream))):
            await sim.wait_until(lambda: len(sim.requests) == 2)
        await gone(server, sim)
        assert len(sim.requests) == 2


async def test_while_waiting_in_a_channels_queue() -> None:
    async with both(settings) as (server, sim):
        sim.script(Script(silent=True))
        async with asked(server, chat_request(ask("narrow"))):
            await sim.wait_until(live(sim, 1))
            async with asked(server, chat_request(ask("narrow"))):
                await until(lambda: server.app[RUNS].in_progress == 2)
            await until(lambda: server.app[RUNS].in_progress == 1)
        await gone(server, sim)
        assert len(sim.requests) == 1
        assert (await post(server, ask("narrow"))).status == 200


async def test_while_waiting_for_another_try() -> None:
    async with both(settings) as (server, sim):
        sim.script(Script(status=500), times=3)
        async with asked(server, chat_request(ask())):
            await sim.wait_until(lambda: len(sim.requests) >= 1)
        await gone(server, sim)
        assert len(sim.requests) <= 3


async def test_amid_its_own_body() -> None:
    async with both(settings) as (server, sim):
        request = chat_request(ask(text="x" * 1000))
        async with asked(server, request[:-100]):
            await until(lambda: server.app[METRICS].in_flight)
        await gone(server, sim)
        assert not sim.requests


async def test_a_watcher_that_leaves_ends_nothing() -> None:
    async with both(settings) as (server, sim):
        sim.script(Script(chunks=4, stall_after=2, stall_ms=200))
        async with asked(server, chat_request(ask(stream=True))) as raw:
            run_id = (await raw.head()).headers["x-run-id"]
            url = f"{server.url}/v1/runs/{run_id}/events"
            async with server.client.get(url, headers={"Accept": "text/event-stream"}) as watching:
                assert watching.status == 200
            body = b""
            while chunk := await raw.chunk():
                body += chunk
            assert body.endswith(b"data: [DONE]\n\n")
        assert sim.requests[-1].finished


async def test_nothing_of_a_departure_is_a_fault_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async with both(settings) as (server, sim):
        for model in ("m", "panel"):
            for stream in (True, False):
                sim.script(Script(silent=True))
                async with asked(server, chat_request(ask(model, stream=stream))):
                    await sim.wait_until(lambda: sim.stats()["live"] >= 1)
                await gone(server, sim)
    assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]


async def test_two_hundred_departures_at_random_moments_leave_nothing() -> None:
    chance = random.Random(7)

    async def one(server: Antiphon, number: int) -> None:
        model = ("m", "panel", "every", "one", "narrow")[number % 5]
        fields: dict[str, Any] = {"stream": bool(number % 2)}
        text = 'sim: {"chunks": 20, "pace_ms": 2, "first_ms": 5}'
        async with asked(server, chat_request(ask(model, text, **fields))) as raw:
            await asyncio.sleep(chance.uniform(0, 0.15))
            leave(raw, chance.choice(["close", "reset"]))

    async with both(settings) as (server, sim):
        async with asyncio.TaskGroup() as group:
            for number in range(200):
                group.create_task(one(server, number))
                await asyncio.sleep(0.002)
        await gone(server, sim)
        for model in ("m", "panel", "every", "one", "narrow"):
            assert (await post(server, ask(model))).status == 200
        await gone(server, sim)
