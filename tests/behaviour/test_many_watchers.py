"""A thousand watchers of one run, a hundred of whom read nothing: each of the others is told all of it."""

from __future__ import annotations

import asyncio
import json
import resource
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from bench.channel import Channel, open_all
from bench.framing import HEAD_END
from bench.scenarios import Load
from bench.tally import Job
from bench.websocket import TEXT, Frames
from server.events import encode
from server.handlers.status import WATCHERS
from server.handlers.status_audience import AUDIENCES
from server.run_log import Run
from tests.behaviour.asking import until
from tests.scripted_runs import M1, M2, Site, site

MANY, DEAF = 1000, 100
PATIENCE_S = 90.0
FILES = 2 * MANY + 200


@pytest.fixture
def many_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < FILES:
        pytest.skip(f"this system lets a process open {hard} files at most")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, FILES), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@asynccontextmanager
async def watchers_of(shown: Site, run: Run, count: int) -> AsyncIterator[list[Channel]]:
    load = Load(0, watchers=count)
    job = Job(shown.port, "", {}, "", load, 0, watch_path="/v1/events")
    channels = await open_all(job, f"run:{run.id}", include=["drafts", "answer"], starting_after=0)
    try:
        yield channels
    finally:
        for one in channels:
            one.close()


def messages(channel: Channel) -> list[Any]:
    stream = b"".join(data for _, data in channel.reads).partition(HEAD_END)[2]
    return [json.loads(content) for opcode, content in Frames().feed(stream) if opcode == TEXT]


async def test_a_thousand_watchers_are_told_the_same_whatever_a_hundred_others_do(many_files: None) -> None:
    async with site(patience_s=PATIENCE_S, max_connections=MANY) as shown:
        script = shown.script()
        run = script.begin()
        async with watchers_of(shown, run, MANY) as watchers:
            assert len(shown.app[WATCHERS]) == MANY
            deaf, hearing = watchers[:DEAF], watchers[DEAF:]
            for one in deaf:
                assert one.transport is not None
                one.transport.pause_reading()
            await until(lambda: len(shown.app[AUDIENCES]) == 1)
            for number in range(20):
                for member in (M1, M2):
                    script.say(member, f"{number} of {member.id}, ")
                await asyncio.sleep(0.02)
            for member in (M1, M2):
                script.finish(member)
            script.begin_summary()
            script.summarise("the answer")
            script.end()
            await until(lambda: all(b'"run_ended"' in one.reads[-1][1] for one in hearing))
            log = [json.loads(encode(event)) for event in run.events_after(0)]
            said = {name: lane.text() for name, lane in run.lanes.items()}
            for one in hearing:
                events = [message["event"] for message in messages(one) if message["type"] == "next"]
                assert [event for event in events if "volatile" not in event] == log
                heard = dict.fromkeys(said, "")
                for event in events:
                    if "volatile" in event:
                        lane = event.get("member", {"id": "summary"})["id"]
                        assert event["data"]["text_offset"] == len(heard[lane])
                        heard[lane] += event["data"]["text"]
                assert heard == {**said, "summary": "the answer"}
        await until(lambda: not len(shown.app[WATCHERS]) and not len(shown.app[AUDIENCES]))
        assert not run.sleepers.asleep
        assert run.text_watchers == 0
