"""Runs that survive their asker."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from server.app_keys import METRICS, RUNS, TASKS
from server.settings import Access, AccessKey, Combination, Member, Runs, Settings, Summary
from server.simulators.openai import OpenAISimulator
from server.simulators.script import Script
from tests.behaviour.asking import assert_nothing_left, both, error_of, get, post, until
from tests.behaviour.running import QUIET, Antiphon, antiphon, ask, channel
from tests.raw_http import PATIENCE_S

ME, OTHER = "sk-me-0123456789", "sk-other-0123456789"
BOUND = AccessKey(name="bound", key="sk-bound-0123456789", background=False)
MINE = f"Authorization: Bearer {ME}"
THEIRS = f"Authorization: Bearer {OTHER}"


def settings(sim: OpenAISimulator) -> Settings:
    panel = Combination(
        name="panel", members=(Member(model="m1"), Member(model="m2")), summary=Summary(model="m")
    )
    return Settings(
        access=Access(keys=(AccessKey(name="me", key=ME), AccessKey(name="other", key=OTHER), BOUND)),
        channels=(channel(sim, "m", "m1", "m2"),),
        combinations=(panel,),
        runs=Runs(max_background=2),
        logging=QUIET,
    )


def background(model: str = "m", **more: Any) -> dict[str, Any]:
    return ask(model, antiphon={"background": True, **more})


async def ended(server: Antiphon, run_id: str) -> Any:
    """How the run stands at its end, with its answer."""
    async with asyncio.timeout(PATIENCE_S):
        run = server.app[RUNS].find(run_id)
        assert run is not None
        await run.wait_ended()
        await asyncio.sleep(0)
    return (await get(server, f"/v1/runs/{run_id}?include=answer", MINE)).json()


@pytest.mark.parametrize("model", ["m", "panel"])
async def test_it_is_accepted_at_once_and_fetched_later(model: str) -> None:
    async with both(settings) as (server, sim):
        names = ("m1", "m2") if model == "panel" else ("m",)
        for name in names:
            sim.script(Script(text="forty-two", stall_after=0, stall_ms=50), model=name)
        accepted = await post(server, background(model), MINE)
        assert accepted.status == 202
        told = accepted.json()
        assert told["object"] == "run"
        assert told["status"] in ("queued", "in_progress")
        assert accepted.headers["location"] == f"/v1/runs/{told['id']}"
        assert accepted.headers["x-run-id"] == told["id"]
        now = await ended(server, told["id"])
        assert now["status"] == "completed"
        response = now["response"]
        assert response["object"] == "chat.completion"
        assert response["choices"][0]["message"]["content"]
        assert ("antiphon" in response) == (model == "panel")
        plain = (await get(server, f"/v1/runs/{told['id']}", MINE)).json()
        assert "response" not in plain, "no text unless it is asked for"
        error_of(await get(server, f"/v1/runs/{told['id']}?include=answer", THEIRS), 404)
        events = (await get(server, f"/v1/runs/{told['id']}/events", MINE)).json()["data"]
        assert events[0]["data"]["background"] is True
        assert b"background" not in sim.requests[-1].body
        assert_nothing_left(server)


async def test_watchers_see_the_text_of_a_plain_model_grow() -> None:
    async with both(settings) as (server, sim):
        sim.script(Script(text="one two three four", stall_after=2, stall_ms=60_000))
        run_id = (await post(server, background(), MINE)).json()["id"]
        run = server.app[RUNS].find(run_id)
        assert run is not None
        await until(lambda: any(lane.chars["text"] for lane in run.lanes.values()))
        assert not run.ended
        assert sim.requests[-1].json()["stream"] is True
        assert run.events_after(0)[0].data.stream is False, "its asker gets it whole"  # type: ignore[attr-defined]
        await post(server, b"", MINE, path=f"/v1/runs/{run_id}/cancel")
        await ended(server, run_id)
        assert_nothing_left(server)


async def test_it_can_be_cancelled() -> None:
    async with both(settings) as (server, sim):
        sim.script(Script(silent=True))
        run_id = (await post(server, background(), MINE)).json()["id"]
        await sim.wait_until(lambda: sim.stats()["live"] == 1)
        cancelled = await post(server, b"", MINE, path=f"/v1/runs/{run_id}/cancel")
        assert (cancelled.json()["status"], cancelled.json()["cancelled_by"]) == ("cancelled", "watcher")
        await sim.wait_until(lambda: sim.stats()["live"] == 0)
        assert "response" not in await ended(server, run_id)
        assert_nothing_left(server)


async def test_a_failure_is_told_in_the_run() -> None:
    async with both(settings) as (server, sim):
        sim.script(Script(status=400))
        now = await ended(server, (await post(server, background(), MINE)).json()["id"])
        assert now["status"] == "failed"
        assert now["error"]["code"]
        assert_nothing_left(server)


async def test_a_key_may_have_so_many_and_another_key_its_own() -> None:
    async with both(settings) as (server, sim):
        for _ in range(3):
            sim.script(Script(silent=True))
        runs = [(await post(server, background(), MINE)).json()["id"] for _ in range(2)]
        refused = await post(server, background(), MINE)
        assert error_of(refused, 429)["code"] == "too_many_background_runs"
        assert (await post(server, background(), THEIRS)).status == 202
        await post(server, b"", MINE, path=f"/v1/runs/{runs[0]}/cancel")
        assert (await post(server, background(), MINE)).status == 202


@pytest.mark.parametrize(("model", "calls"), [("m", 1), ("panel", 2)])
async def test_the_servers_end_cancels_it(model: str, calls: int, caplog: pytest.LogCaptureFixture) -> None:
    async with OpenAISimulator() as sim:
        for _ in range(calls):
            sim.script(Script(silent=True))
        async with antiphon(settings(sim), drain_s=0.05) as server:
            run_id = (await post(server, background(model), MINE)).json()["id"]
            await sim.wait_until(lambda: sim.stats()["live"] == calls)
            run = server.app[RUNS].find(run_id)
        assert run is not None
        end = run.events_after(0)[-1]
        assert (end.type, end.data.by) == ("run.cancelled", "shutdown")  # type: ignore[attr-defined]
        assert len(server.app[TASKS]) == 0
        assert not caplog.records, "and nothing is told behind its end"
        await sim.wait_until(lambda: sim.stats()["live"] == 0)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (ask(antiphon={"background": "yes"}), 400),
        (ask(antiphon={"background": 1}), 400),
        (ask(antiphon={"background": True}, stream=True), 400),
        (ask(antiphon={"background": True, "quorum": 1}), 400),
        (ask("panel", antiphon={"background": True, "quorum": 9}), 400),
        (ask("nobody", antiphon={"background": True}), 404),
    ],
)
async def test_what_cannot_be_carried_out_is_refused_at_once(body: dict[str, Any], status: int) -> None:
    async with both(settings) as (server, sim):
        error = error_of(await post(server, body, MINE), status)
        assert status == 404 or error["param"].startswith("antiphon.")
        assert sim.requests == []
        assert_nothing_left(server)


async def test_false_is_like_nothing() -> None:
    async with both(settings) as (server, _sim):
        answer = await post(server, ask("panel", antiphon={"background": False, "quorum": 1}), MINE)
        assert answer.status == 200
        assert json.loads(answer.body)["object"] == "chat.completion"


async def test_a_key_that_may_not_is_refused_and_still_gets_answers() -> None:
    async with both(settings) as (server, sim):
        bearer = f"Authorization: Bearer {BOUND.key}"
        assert error_of(await post(server, background(), bearer), 403)["code"] == "background_not_allowed"
        assert sim.requests == []
        assert (await post(server, ask(), bearer)).status == 200


async def test_what_it_used_is_counted() -> None:
    async with both(settings) as (server, _sim):
        before = sum(server.app[METRICS].tokens.values())
        run_id = (await post(server, background(), MINE)).json()["id"]
        now = await ended(server, run_id)
        assert sum(server.app[METRICS].tokens.values()) == before + now["usage"]["total_tokens"] > before
