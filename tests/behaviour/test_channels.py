"""What an operator may say of channels, seen from outside: rules, keys, limits, hedges, reloads."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec
import pytest

from server.app import replace_settings
from server.app_keys import RUNS
from server.events import decode
from server.run_check import RunChecker
from server.settings import (
    Breaker,
    Channel,
    Combination,
    Member,
    ModelRouting,
    ParamRules,
    Range,
    Routing,
    Settings,
    Summary,
)
from server.simulators.openai import OpenAISimulator
from server.simulators.script import Script
from tests.behaviour.asking import (
    asked,
    chat_request,
    error_of,
    get,
    post,
    until,
)
from tests.behaviour.houses import ATTEMPTS, content, house, pair
from tests.behaviour.running import QUIET, antiphon, ask, channel
from tests.upstreams.raw_upstream import Peer, raw_upstream

# ── the operator's hand ──


async def test_a_channel_that_is_disabled_gets_no_new_request_and_ends_what_it_has() -> None:
    async with house() as it:
        it.one.default = Script(pieces=("from ", "one"), pace_ms=200)
        async with asked(it.server, chat_request(ask(stream=True))) as client:
            await it.one.wait_until(lambda: bool(it.one.requests))
            replace_settings(it.server.app, pair(it.one, it.two, enabled=False))
            for _ in range(5):
                assert content(await post(it.server, ask())) == "from two"
            assert content(await client.answer()) == "from one"
        assert it.asked == (1, 5)


async def test_health_survives_a_reload() -> None:
    async with house() as it:
        it.one.default = Script(status=429, retry_after=30)
        assert content(await post(it.server, ask())) == "from two"
        replace_settings(it.server.app, pair(it.one, it.two, weight=5, api_key="other"))
        it.one.default = Script(text="from one")
        assert content(await post(it.server, ask())) == "from one", "another key, another standing"
        it.one.default = Script(status=503, retry_after=30)
        assert content(await post(it.server, ask())) == "from two"
        replace_settings(it.server.app, pair(it.one, it.two, weight=7, api_key="other"))
        it.one.default = Script(text="from one")
        assert content(await post(it.server, ask())) == "from two"


async def test_the_names_of_channels_are_told_only_if_that_is_switched_on() -> None:
    async with house() as it:
        answer = await post(it.server, ask())
        assert ATTEMPTS not in answer.headers
    async with house(Routing(tell_channels=True)) as it:
        assert (await post(it.server, ask(stream=True))).headers[ATTEMPTS] == "one=ok"
        it.one.default = Script(status=500)
        assert (await post(it.server, ask())).headers[ATTEMPTS] == "one=upstream_error, two=ok"


async def test_the_state_of_channels_is_shown_and_a_sick_one_makes_nobody_unready() -> None:
    async with house(breaker=Breaker(failures=1)) as it:
        ready = await get(it.server, "/readyz")
        assert ready.json()["parts"]["channel:one"] == "ready"
        it.one.default = Script(status=500)
        it.two.default = Script(status=429, retry_after=30)
        error_of(await post(it.server, ask()), 429)
        ready = await get(it.server, "/readyz")
        assert ready.status == 200
        parts = ready.json()["parts"]
        assert (parts["channel:one"], parts["channel:two"]) == ("breaker", "cooling")
        metrics = (await get(it.server, "/metrics")).body.decode()
        assert 'antiphon_channel_state{channel="one",model="m",state="breaker"} 1.0' in metrics
        replace_settings(it.server.app, pair(it.one, it.two, enabled=False))
        assert (await get(it.server, "/readyz")).json()["parts"]["channel:one"] == "disabled"


async def test_rules_for_fields_reach_the_wire_and_nothing_else_changes() -> None:
    rules = ParamRules(
        drop=("user",), clamp={"temperature": Range(max=1)}, default={"top_p": 0.9}, set={"store": False}
    )
    async with house(params=rules, headers={"X-Project": "home"}) as it:
        await post(it.server, ask(user="me", temperature=2, odd=1.0))
        record = it.one.requests[0]
        assert json.loads(record.body) == ask(temperature=1, odd=1.0, top_p=0.9, store=False)
        assert b'"odd": 1.0' in record.body
        assert record.header("x-project") == "home"


async def test_keys_of_one_channel_are_used_in_turn_and_a_bad_one_is_set_aside() -> None:
    async with OpenAISimulator(api_key="good") as sim:
        settings = Settings(channels=(channel(sim, api_keys=("bad", "good")),), logging=QUIET)
        async with antiphon(settings) as server:
            for _ in range(6):
                answer = await post(server, ask())
                assert answer.status == 200
        sent = [record.header("authorization") for record in sim.requests]
        assert sent.count("Bearer bad") == 1
        assert sent.count("Bearer good") == 6


async def test_no_key_of_a_pool_is_ever_shown(caplog: pytest.LogCaptureFixture) -> None:
    keys = ("sk-first-0123456789", "sk-second-0123456789")

    async def serve(peer: Peer) -> None:
        while True:
            head = (await peer.request()).head.decode()
            used = next(key for key in keys if key in head)
            status = "401 No" if used == keys[0] else "400 Bad"
            body = json.dumps({"error": {"message": f"Your key {used} is odd.", "code": used}}).encode()
            await peer.send(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)

    async with raw_upstream(serve) as odd:
        base_url = f"http://127.0.0.1:{odd.port}/v1"
        lone = Channel(name="pool", kind="openai", base_url=base_url, models=("m",), api_keys=keys)
        routing = Routing(tell_channels=True)
        async with antiphon(Settings(channels=(lone,), routing=routing, logging=QUIET)) as server:
            shown = ""
            for _ in range(4):
                answer = await post(server, ask())
                error_of(answer, 400)
                events = await get(server, f"/v1/runs/{answer.headers['x-run-id']}/events")
                shown += f"{answer.headers}{answer.body!r}{events.body!r}"
            shown += (await get(server, "/metrics")).body.decode() + caplog.text
    assert "pool, key " in caplog.text
    assert "0123456789" not in shown


@pytest.mark.parametrize("limit", [{"max_concurrency": 1}, {"requests_per_min": 1}, {"tokens_per_min": 1}])
async def test_beyond_a_channels_limits_another_is_asked_and_without_one_it_is_a_429(limit: Any) -> None:
    async with house(max_waiting=0, **limit) as it:
        it.one.default = Script(silent=True)
        busy = asyncio.create_task(post(it.server, ask()))
        await it.one.wait_until(lambda: bool(it.one.requests))
        assert content(await post(it.server, ask())) == "from two"
        alone = msgspec.structs.replace(
            pair(it.one, it.two, max_waiting=0, **limit).channels[0], models=("m",)
        )
        replace_settings(it.server.app, Settings(channels=(alone,), logging=QUIET))
        answer = await post(it.server, ask())
        assert error_of(answer, 429)["code"] == "rate_limit_exceeded"
        assert 1 <= int(answer.headers["retry-after"]) <= 60
        assert it.asked == (1, 1)
        busy.cancel()
        await asyncio.wait({busy})
        await until(lambda: it.one.requests[0].aborted)


async def test_a_run_that_waits_for_the_one_slot_says_so_and_begins_when_it_is_free() -> None:
    async with OpenAISimulator() as sim:
        sim.script(Script(silent=True), model="m", times=1)
        narrow = Settings(channels=(channel(sim, "m", max_concurrency=1),), logging=QUIET)
        async with antiphon(narrow) as server:
            busy = asyncio.create_task(post(server, ask()))
            await sim.wait_until(lambda: len(sim.requests) == 1)
            id = "run_" + "c" * 32
            waiting = asyncio.create_task(post(server, ask(), f"x-run-id: {id}"))
            await until(lambda: (run := server.app[RUNS].find(id)) is not None and run.head == 2)
            assert (await get(server, f"/v1/runs/{id}")).json()["status"] == "queued"
            busy.cancel()
            assert (await waiting).status == 200
            told = (await get(server, f"/v1/runs/{id}/events", "Accept: application/json")).json()["data"]
    assert [event["type"] for event in told][:5] == [
        "run.created",
        "run.queued",
        "run.in_progress",
        "stage.started",
        "model.started",
    ]
    assert told[1]["data"] == {"waiting_for": "channel"}, "names of channels are for those who include them"


async def test_a_model_may_be_hedged_and_the_run_tells_it() -> None:
    async with house(Routing(models={"m": ModelRouting(hedge_after_s=0.02)}, tell_channels=True)) as it:
        it.one.default = Script(stall_after=0)
        answer = await post(it.server, ask(stream=True))
        assert content(answer) == "from two"
        assert answer.headers[ATTEMPTS] == "one=overtaken, two=ok"
        await until(lambda: it.one.requests[0].aborted)
        log = await get(
            it.server, f"/v1/runs/{answer.headers['x-run-id']}/events", "Accept: application/json"
        )
        told = [event for event in log.json()["data"] if event["type"] == "model.channel"]
        assert [event["data"]["state"] for event in told] == ["hedged"]
        assert "channel" not in told[0]["data"], "names of channels are for those who include them"


async def test_members_and_the_summary_of_a_combination_move_on_as_well() -> None:
    async with OpenAISimulator(default=Script(status=500)) as one, OpenAISimulator() as two:
        panel = Combination(
            name="panel", members=(Member(model="m"), Member(model="m")), summary=Summary(model="m")
        )
        channels = (channel(one, name="one", priority=1), channel(two, name="two"))
        settings = Settings(channels=channels, combinations=(panel,), logging=QUIET)
        async with antiphon(settings) as server:
            answer = await post(server, ask("panel"))
            assert answer.status == 200
            assert (len(one.requests), len(two.requests)) == (3, 3)
            run = answer.headers["x-run-id"]
            log = (await get(server, f"/v1/runs/{run}/events", "Accept: application/json")).json()["data"]
    asked_again = [event for event in log if event["data"].get("state") == "asked"]
    assert [event["stage"]["id"] for event in asked_again] == ["draft.1", "draft.1", "summary.1"]
    checker = RunChecker()
    for told in log:
        event = decode(msgspec.json.encode(told))
        assert event is not None
        checker.apply(event)
    assert checker.finish() == []


# ── upstreams that answer without end ──


@pytest.mark.parametrize("status", ["500 Oh No", "401 No", "429 Slower"])
async def test_an_error_of_100_megabytes_is_not_read_to_its_end(status: str) -> None:
    sent = 0

    async def serve(peer: Peer) -> None:
        nonlocal sent
        await peer.request()
        length = 100 * 1024 * 1024
        await peer.send(f"HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n".encode())
        while sent < length:
            await peer.send(b"x" * 65536)
            sent += 65536

    async with raw_upstream(serve) as big, OpenAISimulator() as two:
        base_url = f"http://127.0.0.1:{big.port}/v1"
        big_one = Channel(name="big", kind="openai", base_url=base_url, models=("m",), priority=1)
        settings = Settings(channels=(big_one, channel(two, name="two")), logging=QUIET)
        async with antiphon(settings) as server:
            assert (await post(server, ask())).status == 200
            await until(lambda: not big.open)
        assert sent < 20 * 1024 * 1024
