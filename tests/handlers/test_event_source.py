"""The status channel as server-sent events, of runs that stream to real clients."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest

from server.app import replace_settings
from server.settings import Combination, Events, Member, Settings, Summary
from server.simulators.openai import OpenAISimulator
from server.simulators.script import Script
from tests.behaviour.asking import asked, both, chat_request, error_of, get, get_request, post, until
from tests.behaviour.running import QUIET, Antiphon, ask, channel
from tests.handlers.event_streams import EventSource
from tests.raw_http import PATIENCE_S, connect


def settings(sim: OpenAISimulator) -> Settings:
    members = (Member(model="m1"), Member(model="m2"))
    panel = Combination(name="panel", members=members, summary=Summary(model="s"), quorum=2, grace_s=60)
    return Settings(channels=(channel(sim, "m", "m1", "m2", "s"),), combinations=(panel,), logging=QUIET)


@asynccontextmanager
async def watching(server: Antiphon, path: str, *headers: str) -> AsyncIterator[EventSource]:
    async with connect("127.0.0.1", server.port) as raw:
        await raw.send(get_request(path, "Accept: text/event-stream", *headers))
        yield EventSource(raw, await raw.head())


async def test_a_run_is_watched_live_from_its_middle_to_its_end() -> None:
    async with both(settings) as (server, sim):
        sim.script(Script(pieces=("y" * 100_000,) * 200))
        async with asked(server, chat_request(ask(stream=True))) as raw:
            run_id = (await raw.head()).headers["x-run-id"]
            async with watching(server, f"/v1/runs/{run_id}/events") as reader:
                assert reader.head.headers["content-type"].startswith("text/event-stream")
                assert reader.head.headers["cache-control"] == "no-store"
                first = await reader.next()
                assert first is not None
                assert first.event == "snapshot"
                assert not sim.requests[-1].finished
                while await raw.chunk():
                    pass
                seen = await reader.until("run.completed")
                assert await reader.next() is None, "its end is the end of the stream"
        assert [event.event for event in seen].count("run.completed") == 1


async def test_every_stage_of_a_fan_out_is_told_in_its_order() -> None:
    async with both(settings) as (server, _sim):
        run_id = (await post(server, ask("panel"))).headers["x-run-id"]
        async with watching(server, f"/v1/runs/{run_id}/events?starting_after=0") as reader:
            told = [event.event for event in await reader.until("run.completed")]
        assert told[0] == "run.created"
        for earlier, later in (
            ("run.created", "model.started"),
            ("model.started", "model.first_token"),
            ("model.first_token", "model.finished"),
            ("model.finished", "summary.started"),
            ("summary.started", "summary.first_token"),
            ("summary.finished", "run.completed"),
        ):
            assert told.index(earlier) < told.index(later), (earlier, later, told)
        assert told.count("model.started") == 2


async def test_whoever_comes_back_goes_on_behind_the_last_event_it_saw() -> None:
    async with both(settings) as (server, _sim):
        run_id = (await post(server, ask("panel"))).headers["x-run-id"]
        path = f"/v1/runs/{run_id}/events"
        async with watching(server, path + "?starting_after=0") as reader:
            whole = await reader.until("run.completed")
        middle = whole[len(whole) // 2]
        async with watching(server, path, f"Last-Event-ID: {middle.id}") as reader:
            rest = await reader.until("run.completed")
        assert [event.data for event in rest] == [event.data for event in whole[len(whole) // 2 + 1 :]]


@pytest.mark.parametrize("last", ["abc", "-1", "1.5", "12ab:3", "9" * 16])
async def test_whoever_comes_back_from_nowhere_is_told_so(last: str) -> None:
    async with both(settings) as (server, _sim):
        run_id = (await post(server, ask())).headers["x-run-id"]
        headers = ("Accept: text/event-stream", f"Last-Event-ID: {last}")
        answer = await get(server, f"/v1/runs/{run_id}/events", *headers)
        assert error_of(answer, 400)["param"] == "Last-Event-ID"


@pytest.mark.parametrize("accept", ["application/json", "*/*", "text/html", ""])
async def test_nobody_gets_a_stream_who_did_not_ask_for_one(accept: str) -> None:
    async with both(settings) as (server, _sim):
        run_id = (await post(server, ask())).headers["x-run-id"]
        answer = await get(server, f"/v1/runs/{run_id}/events", f"Accept: {accept}")
        assert answer.headers["content-type"].startswith("application/json")


@pytest.mark.parametrize(
    "accept", ["text/event-stream", "TEXT/Event-Stream;q=0.9, */*", "a/b,text/event-stream"]
)
async def test_it_may_be_asked_for_in_each_way_that_http_knows(accept: str) -> None:
    async with both(settings) as (server, _sim):
        run_id = (await post(server, ask())).headers["x-run-id"]
        async with connect("127.0.0.1", server.port) as raw:
            await raw.send(get_request(f"/v1/runs/{run_id}/events", f"Accept: {accept}"))
            assert (await raw.head()).headers["content-type"].startswith("text/event-stream")


async def test_watchers_of_one_run_read_the_same_as_the_log_tells_afterwards() -> None:
    async with both(settings) as (server, sim):
        sim.script(Script(chunks=20, pace_ms=40))
        async with asked(server, chat_request(ask(stream=True))) as raw:
            run_id = (await raw.head()).headers["x-run-id"]
            path = f"/v1/runs/{run_id}/events"
            # The third has a rhythm of its own, so nobody writes for it.
            texts, alone = "?include=answer", "?include=answer,progress"
            async with (
                watching(server, path + texts) as first,
                watching(server, path + texts) as second,
                watching(server, path + alone) as third,
            ):
                while await raw.chunk():
                    pass
                heard = [await one.until("run.completed") for one in (first, second, third)]
                assert [await one.next() for one in (first, second, third)] == [None] * 3
        stored = [
            [one for one in events if b'"volatile"' not in one.data and one.event != "snapshot"]
            for events in heard
        ]
        assert heard[0][1:][-5:] == heard[1][1:][-5:], "of text they are told the same pieces too"
        async with watching(server, path, "Last-Event-ID: 0") as late:
            log = await late.until("run.completed")
        assert all(events and events == log[-len(events) :] for events in stored)


async def test_a_watcher_that_reads_nothing_holds_up_neither_the_run_nor_others() -> None:
    async with both(settings) as (server, sim):
        sim.script(Script(pieces=("y" * 10_000,) * 2000))
        async with asked(server, chat_request(ask(stream=True))) as raw:
            run_id = (await raw.head()).headers["x-run-id"]
            path = f"/v1/runs/{run_id}/events?include=answer"
            async with watching(server, path), watching(server, f"/v1/runs/{run_id}/events") as other:
                while await raw.chunk():
                    pass
                assert (await other.until("run.completed"))[-1].event == "run.completed"


async def test_the_limit_of_connections_counts_those_that_are_open() -> None:
    async with both(settings) as (server, sim):
        narrow = msgspec.structs.replace(settings(sim), events=Events(max_connections=1))
        replace_settings(server.app, narrow)
        sim.script(Script(chunks=5, stall_after=1))
        async with asked(server, chat_request(ask(stream=True))) as raw:
            run_id = (await raw.head()).headers["x-run-id"]
            path = f"/v1/runs/{run_id}/events"
            async with watching(server, path) as first:
                assert first.head.status == 200
                async with watching(server, path) as second:
                    assert second.head.status == 429
                    assert int(second.head.headers["retry-after"]) > 0

            async def let_in() -> bool:
                async with watching(server, path) as again:
                    return again.head.status == 200

            async with asyncio.timeout(PATIENCE_S):
                while not await let_in():
                    pass
        await until(lambda: sim.stats()["live"] == 0)
