"""What a watcher may do to a run that streams to somebody else."""

from __future__ import annotations

import asyncio

import pytest

from server.settings import Access, AccessKey, Combination, Member, Settings, Summary
from server.simulators.openai import OpenAISimulator
from server.simulators.script import Script
from tests.behaviour.asking import asked, assert_nothing_left, both, chat_request, data_lines, error_of, post
from tests.behaviour.asking import get as get_
from tests.behaviour.running import QUIET, Antiphon, ask, channel
from tests.raw_http import Answer, RawClient

ME, OTHER, BOSS = "sk-me-0123456789", "sk-other-0123456789", "sk-boss-0123456789"


def settings(sim: OpenAISimulator) -> Settings:
    keys = (
        AccessKey(name="me", key=ME),
        AccessKey(name="other", key=OTHER),
        AccessKey(name="boss", key=BOSS, admin=True),
    )
    members = (Member(model="m1"), Member(model="m2"))
    panel = Combination(name="panel", members=members, summary=Summary(model="m"), quorum=2, grace_s=60)
    return Settings(
        access=Access(keys=keys),
        channels=(channel(sim, "m", "m1", "m2"),),
        combinations=(panel,),
        logging=QUIET,
    )


def bearer(key: str) -> str:
    return f"Authorization: Bearer {key}"


async def cancel(server: Antiphon, run_id: str, key: str = ME) -> Answer:
    return await post(server, b"", bearer(key), path=f"/v1/runs/{run_id}/cancel")


async def the_run(server: Antiphon) -> str:
    told: str = (await get_(server, "/v1/runs?limit=1", bearer(ME))).json()["data"][0]["id"]
    return told


async def rest_of(raw: RawClient) -> bytes:
    body = b""
    while piece := await raw.chunk():
        body += piece
    return body


async def test_a_stream_that_is_cancelled_ends_with_an_error_and_closes_its_upstream() -> None:
    async with both(settings) as (server, sim):
        sim.script(Script(chunks=9, stall_after=2))
        async with asked(server, chat_request(ask(stream=True), bearer(ME))) as raw:
            run_id = (await raw.head()).headers["x-run-id"]
            answer = await cancel(server, run_id)
            assert answer.json()["status"] == "cancelled"
            body = await rest_of(raw)
        assert b'"code":"run_cancelled"' in data_lines(body)[-1]
        assert b"[DONE]" not in body
        await sim.wait_until(lambda: sim.stats()["live"] == 0)
        assert sim.requests[-1].aborted
        assert_nothing_left(server)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("model", ["m", "panel"])
async def test_before_the_first_delta_it_is_a_status_that_no_client_repeats(model: str, stream: bool) -> None:
    async with both(settings) as (server, sim):
        for name in ("m", "m1", "m2"):
            sim.script(Script(silent=True), model=name)
        calls = 2 if model == "panel" else 1
        async with asked(server, chat_request(ask(model, stream=stream), bearer(ME))) as raw:
            await sim.wait_until(lambda: sim.stats()["live"] == calls)
            assert (await cancel(server, await the_run(server))).status == 200
            assert error_of(await raw.answer(), 410)["code"] == "run_cancelled"
        await sim.wait_until(lambda: sim.stats()["live"] == 0)
        assert len(sim.requests) == calls, "nothing was tried again"
        assert_nothing_left(server)


async def test_many_who_cancel_at_once_all_hear_that_it_ended_and_it_is_told_once() -> None:
    async with both(settings) as (server, sim):
        sim.script(Script(silent=True))
        async with asked(server, chat_request(ask(), bearer(ME))) as raw:
            await sim.wait_until(lambda: sim.stats()["live"] == 1)
            run_id = await the_run(server)
            answers = await asyncio.gather(*(cancel(server, run_id, key) for key in (ME, BOSS, ME)))
            assert [answer.json()["status"] for answer in answers] == ["cancelled"] * 3
            error_of(await raw.answer(), 410)
        told = (await get_(server, f"/v1/runs/{run_id}/events", bearer(ME))).json()["data"]
        assert [event["type"] for event in told].count("run.cancelled") == 1


async def test_a_run_that_has_ended_stays_as_it_is() -> None:
    async with both(settings) as (server, _sim):
        run_id = (await post(server, ask(), bearer(ME))).headers["x-run-id"]
        answer = await cancel(server, run_id)
        assert (answer.status, answer.json()["status"]) == (200, "completed")


async def test_a_foreign_run_can_not_be_cancelled_nor_be_seen() -> None:
    async with both(settings) as (server, sim):
        sim.script(Script(chunks=4, stall_after=2, stall_ms=100))
        async with asked(server, chat_request(ask(stream=True), bearer(ME))) as raw:
            run_id = (await raw.head()).headers["x-run-id"]
            error_of(await cancel(server, run_id, OTHER), 404)
            error_of(await cancel(server, "run_nobody", ME), 404)
            assert (await rest_of(raw)).endswith(b"data: [DONE]\n\n")


async def command(server: Antiphon, run_id: str, path: str, key: str = ME) -> Answer:
    return await post(server, b"", bearer(key), path=f"/v1/runs/{run_id}/{path}")


async def test_an_answer_that_is_wanted_now_is_written_from_the_drafts_there_are() -> None:
    async with both(settings) as (server, sim):
        sim.script(Script(silent=True), model="m2")
        async with asked(server, chat_request(ask("panel", stream=True), bearer(ME))) as raw:
            run_id = (await raw.head()).headers["x-run-id"]  # it leaves with the first word of m1
            await sim.wait_until(lambda: sim.stats()["live"] == 1)
            error_of(await command(server, run_id, "answer_now", OTHER), 404)
            assert (await command(server, run_id, "answer_now", BOSS)).status == 200
            body = await rest_of(raw)
        assert body.endswith(b"data: [DONE]\n\n")
        again = (await command(server, run_id, "answer_now")).json()
        assert (again["status"], again["level"]) == ("completed", "lone")
        told = (await get_(server, f"/v1/runs/{run_id}/events?types=run.control", bearer(ME))).json()["data"]
        assert [event["data"] for event in told] == [{"verb": "answer_now", "by": "admin"}]
        assert_nothing_left(server)


async def test_with_nothing_to_answer_from_the_run_goes_on() -> None:
    async with both(settings) as (server, sim):
        for name in ("m1", "m2"):
            sim.script(Script(silent=True), model=name)
        async with asked(server, chat_request(ask("panel"), bearer(ME))) as raw:
            await sim.wait_until(lambda: sim.stats()["live"] == 2)
            run_id = await the_run(server)
            refused = error_of(await command(server, run_id, "answer_now"), 409)
            assert refused["code"] == "nothing_to_answer"
            assert (await get_(server, f"/v1/runs/{run_id}", bearer(ME))).json()["status"] == "in_progress"
            await cancel(server, run_id)
            error_of(await raw.answer(), 410)
        assert_nothing_left(server)


async def test_a_member_that_is_cancelled_closes_its_upstream_and_the_others_answer() -> None:
    async with both(settings) as (server, sim):
        sim.script(Script(silent=True), model="m2")
        async with asked(server, chat_request(ask("panel", stream=True), bearer(ME))) as raw:
            run_id = (await raw.head()).headers["x-run-id"]
            await sim.wait_until(lambda: sim.stats()["live"] == 1)
            missing = error_of(await command(server, run_id, "members/m7/cancel"), 404)
            assert missing["code"] == "member_not_found"
            error_of(await command(server, run_id, "members/m2/cancel", OTHER), 404)
            assert (await command(server, run_id, "members/m2/cancel")).status == 200
            body = await rest_of(raw)
        assert body.endswith(b"data: [DONE]\n\n")
        states = (await get_(server, f"/v1/runs/{run_id}", bearer(ME))).json()["members"]
        assert [(one["id"], one["state"]) for one in states] == [("m1", "finished"), ("m2", "cancelled")]
        assert (await command(server, run_id, "members/m2/cancel")).status == 200, "once more does no harm"
        assert_nothing_left(server)


async def test_the_only_call_of_a_run_takes_the_run_with_it() -> None:
    async with both(settings) as (server, sim):
        sim.script(Script(silent=True))
        async with asked(server, chat_request(ask(), bearer(ME))) as raw:
            await sim.wait_until(lambda: sim.stats()["live"] == 1)
            run_id = await the_run(server)
            assert (await command(server, run_id, "answer_now")).json()["status"] == "in_progress"
            assert (await command(server, run_id, "members/m1/cancel")).json()["status"] == "cancelled"
            error_of(await raw.answer(), 410)
        assert_nothing_left(server)
