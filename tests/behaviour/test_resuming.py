"""Watchers whose line is cut at any byte, again and again: what they put together is the run's own log.

``ANTIPHON_CUT_RUNS=1000`` makes it a thousand runs for each way to watch one.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any, TypeAlias

import pytest
from websockets.asyncio.client import connect as connect_websocket
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from server.bus import ALL
from server.events import Event, encode
from server.run_check import check_run
from server.run_log import Run
from server.settings import Runs as RunsSettings
from server.settings import Settings
from server.sse import SSEDecoder
from tests.behaviour.cutting import breaking_line
from tests.handlers.event_streams import request
from tests.handlers.status_client import EVENTS
from tests.raw_http import connect
from tests.scripted_runs import M1, M2, Script, Site, site

RUNS = int(os.environ.get("ANTIPHON_CUT_RUNS", "24"))
AT_ONCE = 12
OF_A_TOPIC = 24
PATIENCE_S = 30.0 + RUNS
ALPHABET = 'ab "\\\n\té漢😀\u2028'
KEEPING = Settings(runs=RunsSettings(keep_text=True))
INCLUDE = ["answer", "drafts"]
CUT = (OSError, EOFError, ConnectionClosed, InvalidHandshake)


class Kept:
    """What a watcher has put together of all that it was told."""

    def __init__(self) -> None:
        self.stored: list[dict[str, Any]] = []
        self.texts: dict[str, str] = {}  # by run and lane
        self.place: str | None = None  # of the last stored event: a number, an offset, the id of a stream
        self.ended = 0

    def take(self, event: dict[str, Any], *, again: bool) -> None:
        """Take the next event. ``again``: a text may be told anew from its beginning."""
        if "volatile" not in event:
            self.stored.append(event)
            self.ended += event["type"] == "run.completed"
            return
        lane = f"{event['run_id']}/{event.get('member', {'id': 'summary'})['id']}"
        had, told, offset = self.texts.get(lane, ""), event["data"]["text"], event["data"]["text_offset"]
        assert told, "nothing is told"
        assert offset <= len(had), f"{lane} has a gap"
        assert again or offset == len(had), f"{lane} is told twice"
        both = min(len(had), offset + len(told))
        assert had[offset:both] == told[: both - offset], f"{lane} is another text"
        self.texts[lane] = had[:offset] + told + had[offset + len(told) :]


def words(rng: Random) -> str:
    return "".join(rng.choices(ALPHABET, k=rng.randrange(1, 60)))


async def carry_out(script: Script, rng: Random) -> Run:
    """A run with drafts side by side and a summary, at its own pace."""
    run = script.begin()

    async def breathe() -> None:
        for _ in range(rng.randrange(3)):
            await asyncio.sleep(0)
        if rng.random() < 0.3:
            await asyncio.sleep(rng.random() * 0.02)

    left = {M1: rng.randrange(1, 15), M2: rng.randrange(1, 15)}
    while left:
        member = rng.choice(list(left))
        script.say(member, words(rng))
        left[member] -= 1
        if not left[member]:
            script.finish(member)
            del left[member]
        if rng.random() < 0.2:
            run.control("answer_now", "me")
        await breathe()
    script.begin_summary()
    for _ in range(rng.randrange(1, 15)):
        script.summarise(words(rng))
        await breathe()
    script.end()
    return run


async def by_websocket(port: int, topic: str, epoch: str, kept: Kept, runs: int) -> None:
    """Watch ``topic`` until ``runs`` runs are over, coming back after each cut."""
    prefix = "" if topic.startswith("run:") else None
    while kept.ended < runs:
        cursors = {
            lane if prefix is None else lane.partition("/")[2]: len(text) for lane, text in kept.texts.items()
        }
        place: dict[str, Any] = {"offset": kept.place or "0"}
        if prefix is not None:
            place = {"starting_after": int(kept.place or 0)}
        asked = {"type": "subscribe", "id": "1", "topic": topic, "include": INCLUDE, "epoch": epoch}
        address = f"ws://127.0.0.1:{port}/v1/events"
        try:
            async with connect_websocket(
                address, subprotocols=[EVENTS], proxy=None, compression=None, close_timeout=0.1
            ) as line:
                await line.send('{"type":"connection_init"}')
                await line.send(json.dumps({**asked, **place, "cursors": cursors}))
                async for text in line:
                    told = json.loads(text)
                    if told["type"] == "subscribed":
                        assert told["recovered"], told
                    elif told["type"] == "next":
                        kept.take(told["event"], again=False)
                        if "volatile" not in told["event"]:
                            kept.place = told.get("offset", str(told["event"]["sequence_number"]))
                    if kept.ended == runs:
                        break
        except CUT:
            continue


async def by_event_stream(port: int, topic: str, epoch: str, kept: Kept, runs: int) -> None:
    """The same as EventSource does it."""
    path = f"/v1/events?topic={topic}&include={','.join(INCLUDE)}&"
    path += "starting_after=0" if topic.startswith("run:") else f"offset={epoch}:0"
    while kept.ended < runs:
        headers = ["Accept: text/event-stream"]
        if kept.place is not None:
            headers.append(f"Last-Event-ID: {kept.place}")
        decoder = SSEDecoder()
        try:
            async with connect("127.0.0.1", port) as raw:
                await raw.send(request(path, *headers))
                assert (await raw.head()).status == 200
                while kept.ended < runs and (chunk := await raw.chunk()):
                    for told in decoder.feed(chunk):
                        event = json.loads(told.data)
                        assert told.event == event["type"]
                        kept.take(event, again=True)
                        kept.place = told.id or kept.place
        except CUT:
            continue


Way: TypeAlias = Callable[[int, str, str, Kept, int], Coroutine[Any, Any, None]]
WAYS: list[Way] = [by_websocket, by_event_stream]


def as_told(events: list[Event]) -> list[dict[str, Any]]:
    return [json.loads(encode(event)) for event in events]


def assert_texts(kept: Kept, runs: list[Run]) -> None:
    said = {f"{run.id}/{lane.name}": lane.text() for run in runs for lane in run.lanes.values()}
    assert kept.texts == said


async def one_run(shown: Site, port: int, way: Way, rng: Random) -> None:
    script, kept = shown.script(), Kept()
    async with asyncio.TaskGroup() as group:
        doing = group.create_task(carry_out(script, rng))
        epoch = shown.runs.bus.epoch
        group.create_task(way(port, f"run:{script.run.id}", epoch, kept, 1))
    run = doing.result()
    assert kept.stored == as_told(run.events_after(0))
    assert check_run(run.events_after(0)) == []
    assert_texts(kept, [run])


@pytest.mark.parametrize("way", WAYS)
async def test_a_watcher_of_a_run_whose_line_is_cut_anywhere_misses_nothing_and_hears_nothing_twice(
    way: Way,
) -> None:
    rng = Random(41)
    async with (
        site(KEEPING, patience_s=PATIENCE_S, max_connections=1000) as shown,
        breaking_line(shown.port, rng) as (scissors, port),
    ):
        for _ in range(0, RUNS, AT_ONCE):
            async with asyncio.TaskGroup() as group:
                for _ in range(AT_ONCE):
                    group.create_task(one_run(shown, port, way, Random(rng.random())))
    assert scissors.cuts > RUNS, "hardly a line was cut"


@pytest.mark.parametrize("way", WAYS)
async def test_a_watcher_of_a_topic_whose_line_is_cut_anywhere_has_all_runs_in_their_order(way: Way) -> None:
    rng = Random(42)
    async with (
        site(KEEPING, patience_s=PATIENCE_S, max_connections=1000) as shown,
        breaking_line(shown.port, rng) as (scissors, port),
    ):
        epoch, watchers = shown.runs.bus.epoch, [Kept() for _ in range(3)]
        async with asyncio.TaskGroup() as group:
            for kept in watchers:
                group.create_task(way(port, "self", epoch, kept, OF_A_TOPIC))
            runs: list[Run] = []
            for _ in range(0, OF_A_TOPIC, 4):
                doing = [
                    asyncio.ensure_future(carry_out(shown.script(), Random(rng.random()))) for _ in range(4)
                ]
                runs += await asyncio.gather(*doing)
        log = shown.runs.bus.topic(ALL).after(0, 10_000)
        assert log is not None
        for kept in watchers:
            assert kept.stored == as_told(log)
            assert_texts(kept, runs)
    assert scissors.cuts > 3, "hardly a line was cut"
