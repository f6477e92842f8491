"""``/v1/runs`` over HTTP: pages, snapshots, event streams as EventSource reads them, and the end of a run."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from server.auth import Principal
from server.errors import RunCancelled
from server.events import decode
from server.handlers.status import WATCHERS, close_watchers
from server.run_check import check_run
from server.settings import Runs as RunsSettings
from server.settings import Settings
from server.sse import SSEEvent
from tests.handlers.event_streams import EventSource, ask, event_source, request
from tests.raw_http import connect
from tests.scripted_runs import KEYS, M1, M2, Site, site

KEYED = Settings(access=KEYS)


# Snapshots and pages


async def test_runs_are_listed_newest_first_without_text() -> None:
    async with site() as shown:
        runs = [shown.script().whole() for _ in range(3)]
        page = (await ask(shown, "/v1/runs?limit=2")).json()
        assert [run["id"] for run in page["data"]] == [runs[2].id, runs[1].id]
        assert (page["object"], page["has_more"], page["last_id"]) == ("list", True, runs[1].id)
        assert "draft of" not in json.dumps(page)
        rest = (await ask(shown, f"/v1/runs?after={runs[1].id}&status=completed&model=parallel")).json()
        assert [run["id"] for run in rest["data"]] == [runs[0].id]


@pytest.mark.parametrize("query", ["limit=0", "limit=x", "limit=101", "status=odd", "limit=-1", "limit=1e3"])
async def test_a_wrong_query_names_its_parameter(query: str) -> None:
    async with site() as shown:
        answer = await ask(shown, f"/v1/runs?{query}")
        assert answer.status == 400
        assert answer.json()["error"]["param"] == query.partition("=")[0]


async def test_a_snapshot_tells_text_where_it_is_included() -> None:
    async with site() as shown:
        run = shown.script().whole()
        plain = await ask(shown, f"/v1/runs/{run.id}")
        assert plain.json()["status"] == "completed"
        assert plain.headers["cache-control"] == "no-store"
        assert "draft of" not in plain.body.decode()
        included = (await ask(shown, f"/v1/runs/{run.id}?include=drafts")).json()
        assert included["members"][0]["text"] == "draft of m1"
        assert (await ask(shown, f"/v1/runs/{run.id}?include=secrets")).status == 400


async def test_a_foreign_run_is_404_like_an_absent_one() -> None:
    async with site(KEYED) as shown:
        run = shown.script(Principal("ann")).whole()
        bodies = set()
        for path in (f"/v1/runs/{run.id}", f"/v1/runs/{run.id}/events", "/v1/runs/run_none"):
            answer = await ask(shown, path, "Authorization: Bearer key-of-bob")
            assert answer.status == 404
            bodies.add(answer.body)
        assert len(bodies) == 1
        assert (await ask(shown, f"/v1/runs/{run.id}", "Authorization: Bearer key-of-root")).status == 200
        assert (await ask(shown, f"/v1/runs/{run.id}")).status == 401


async def test_events_come_as_pages_of_json() -> None:
    async with site() as shown:
        run = shown.script().whole()
        page = (await ask(shown, f"/v1/runs/{run.id}/events")).json()
        assert check_run(decode(json.dumps(one).encode()) for one in page["data"]) == []  # type: ignore[misc]
        assert (page["head"], page["has_more"]) == (run.head, False)
        second = (await ask(shown, f"/v1/runs/{run.id}/events?starting_after=3&limit=2")).json()
        assert [one["sequence_number"] for one in second["data"]] == [4, 5]
        assert second["has_more"] is True


async def test_events_that_are_no_longer_kept_are_410_with_the_oldest_number() -> None:
    async with site(Settings(runs=RunsSettings(max_events=5))) as shown:
        run = shown.script().whole()
        for accept in ("application/json", "text/event-stream"):
            answer = await ask(shown, f"/v1/runs/{run.id}/events?starting_after=1", f"Accept: {accept}")
            assert answer.status == 410
            error = answer.json()["error"]
            assert (error["code"], error["details"]["oldest"]) == ("events_expired", run.first)


# Event streams


async def test_an_event_stream_begins_with_a_snapshot_follows_live_and_ends_with_the_run() -> None:
    async with site() as shown:
        script = shown.script()
        run = script.begin()
        async with event_source(
            shown, f"/v1/runs/{run.id}/events", "Origin: http://localhost:3000"
        ) as source:
            assert source.head.headers["content-type"] == "text/event-stream"
            assert source.head.headers["cache-control"] == "no-store"
            assert source.head.headers["x-accel-buffering"] == "no"
            assert source.head.headers["access-control-allow-origin"] == "http://localhost:3000"
            assert "x-request-id" in source.head.headers
            snapshot = await source.next()
            assert snapshot is not None
            assert (snapshot.event, snapshot.id, json.loads(snapshot.data)["head"]) == ("snapshot", "5", 5)
            for member in (M1, M2):
                script.say(member, "x")
                script.finish(member)
            script.begin_summary()
            script.end()
            events = await source.rest()
            assert [event.id for event in events] == [str(number) for number in range(6, run.head + 1)]
            assert events[-1].event == "run.completed"
        assert len(shown.app[WATCHERS]) == 0


async def test_eventsource_comes_back_with_its_last_id_and_is_stopped_after_the_end() -> None:
    async with site() as shown:
        run = shown.script().whole()
        path = f"/v1/runs/{run.id}/events?starting_after=1"
        async with event_source(shown, path, "Last-Event-ID: 4") as source:
            assert [event.id for event in await source.rest()] == [str(n) for n in range(5, run.head + 1)]
        done = await ask(shown, path, "Accept: text/event-stream", f"Last-Event-ID: {run.head}")
        assert (done.status, done.body) == (204, b"")


async def test_text_on_an_event_stream_has_no_id_and_comes_before_its_end() -> None:
    async with site() as shown:
        run = shown.script().whole()
        async with event_source(shown, f"/v1/runs/{run.id}/events?starting_after=0&include=drafts") as source:
            events = [json.loads(event.data) for event in await source.rest()]
            texts = [event["data"]["text"] for event in events if event["type"] == "model.delta"]
            assert texts == ["draft of m1", "draft of m2"]


async def test_a_topic_streams_and_goes_on_behind_its_last_id() -> None:
    async with site() as shown:
        async with event_source(shown, "/v1/events?topic=self&types=run.*") as source:
            first = await source.next()
            assert first is not None
            assert (first.event, json.loads(first.data)) == ("snapshot", {"object": "list", "data": []})
            run = shown.script().whole()
            types = [(await next_of(source)).event for _ in range(3)]
            assert types == ["run.created", "run.in_progress", "run.completed"]
        async with event_source(shown, "/v1/events?topic=all", f"Last-Event-ID: {first.id}") as source:
            assert [(await next_of(source)).event for _ in range(2)] == ["run.created", "run.in_progress"]
        stale = await ask(shown, "/v1/events", "Accept: text/event-stream", "Last-Event-ID: 0000:1")
        assert stale.status == 410
        async with event_source(
            shown, f"/v1/events?topic=run:{run.id}&starting_after={run.head - 1}"
        ) as source:
            assert [event.event for event in await source.rest()] == ["run.completed"]


async def next_of(source: EventSource) -> SSEEvent:
    event = await source.next()
    assert event is not None
    return event


async def gone(shown: Site) -> None:
    async with asyncio.timeout(10):
        while len(shown.app[WATCHERS]):  # noqa: ASYNC110  # the server tells nobody of it
            await asyncio.sleep(0.001)


async def test_a_stream_ends_at_once_when_the_client_leaves_and_when_the_server_does() -> None:
    async with site() as shown:
        run = shown.script().begin()
        async with event_source(shown, f"/v1/runs/{run.id}/events?include=drafts") as source:
            await source.next()
            source.raw.writer.transport.abort()
            await gone(shown)
        assert not run.sleepers.asleep
        async with event_source(shown, f"/v1/runs/{run.id}/events") as source:
            await source.next()
            await close_watchers(shown.app)
            assert await source.rest() == []
        assert not run.ended, "watchers who leave cancel nothing"


async def test_streams_count_as_connections_of_their_key() -> None:
    async with site(max_connections=1) as shown:
        run = shown.script().begin()
        async with event_source(shown, f"/v1/runs/{run.id}/events"):
            answer = await ask(shown, "/v1/events", "Accept: text/event-stream")
            assert (answer.status, answer.json()["error"]["code"]) == (429, "too_many_connections")


# The end by a watcher's hand


async def test_cancel_answers_when_the_run_has_ended_and_again_without_effect() -> None:
    async with site(KEYED) as shown, asyncio.TaskGroup() as group:
        run = shown.script(Principal("ann")).begin()

        async def work() -> Any:
            with pytest.raises(RunCancelled), run.scope():
                await asyncio.Event().wait()

        group.create_task(work())
        path = f"/v1/runs/{run.id}/cancel"
        foreign = await ask(shown, path, "Authorization: Bearer key-of-bob", method="POST")
        assert foreign.status == 404
        for _ in range(2):
            answer = await ask(shown, path, "Authorization: Bearer key-of-root", method="POST")
            assert (answer.status, answer.json()["status"]) == (200, "cancelled")
        controls = [event.data for event in run.events_after(0) if event.type == "run.control"]
        assert [(one.verb, one.by) for one in controls] == [("cancel_run", "admin")]  # type: ignore[attr-defined]
        assert (await ask(shown, path, "Authorization: Bearer key-of-ann")).status == 405


# Runs that have not begun


async def test_the_stream_of_a_run_can_be_opened_before_it_begins() -> None:
    run_id = "run_" + "a" * 32
    async with site(KEYED) as shown, connect("127.0.0.1", shown.port) as raw:
        await raw.send(
            request(
                f"/v1/runs/{run_id}/events?wait=true",
                "Accept: text/event-stream",
                "Authorization: Bearer key-of-ann",
            )
        )
        async with asyncio.timeout(10):
            while not len(shown.app[WATCHERS]):  # noqa: ASYNC110 - nobody is told that it waits
                await asyncio.sleep(0.005)
        shown.script(Principal("ann"), run_id).whole()
        source = EventSource(raw, await raw.head())
        assert source.head.status == 200
        told = [event.event for event in await source.rest()]
        assert (told[0], told[-1]) == ("run.created", "run.completed")


@pytest.mark.parametrize("path", ["/v1/runs/{}/events?wait=true", "/v1/events?topic=run:{}&wait=true"])
async def test_a_run_that_does_not_begin_or_is_foreign_is_not_found(path: str) -> None:
    run_id = "run_" + "b" * 32
    async with site(KEYED, expect_s=0.05) as shown:
        shown.script(Principal("bob"), run_id).begin()
        for name in (run_id, "run_" + "c" * 32, "nonsense"):
            headers = ("Accept: text/event-stream", "Authorization: Bearer key-of-ann")
            assert (await ask(shown, path.format(name), *headers)).status == 404
        assert not len(shown.app[WATCHERS])
        shown.runs.get(run_id, Principal("bob")).close()


async def test_who_waits_for_a_run_is_sent_away_at_the_servers_end() -> None:
    async with site(KEYED) as shown, connect("127.0.0.1", shown.port) as raw:
        path = f"/v1/runs/run_{'d' * 32}/events?wait=true"
        await raw.send(request(path, "Accept: text/event-stream", "Authorization: Bearer key-of-ann"))
        async with asyncio.timeout(10):
            while not len(shown.app[WATCHERS]):  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        await close_watchers(shown.app)
        assert (await raw.answer()).status == 503
