"""One of three upstreams is killed under load, all of them processes of their own as a user has them."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
import yaml

from server.doctor.asking import Told, ask
from tests.behaviour.program import program
from tests.cli.command import command

CHANNELS = ("one", "two", "three")
MODEL = "sim-c8-d4"  # eight words, four milliseconds apart


class Day(msgspec.Struct, frozen=True):
    """What the clients of one day saw: all answers, and which of them were asked for after the kill."""

    answers: list[Told]
    after: list[Told]

    def counts(self) -> Counter[str]:
        """How many answers were whole, told as cut, errors before the first delta, and none of them."""
        return Counter("odd" if one.odd else str(one.seen) for one in self.answers)


async def a_day(folder: Path, *, clients: int, turns: int) -> Day:
    """Each client asks so many times without a pause; after a third of that one upstream is killed."""
    answers: list[Told] = []
    after: list[Told] = []
    time_to_kill = asyncio.Event()
    killed = asyncio.Event()

    async def client(url: str, number: int) -> None:
        for turn in range(turns):
            late = killed.is_set()
            told = await ask(url, "m", stream=(number + turn) % 3 > 0)
            answers.append(told)
            if late:
                after.append(told)
            if len(answers) >= clients * turns // 3:
                time_to_kill.set()

    async with AsyncExitStack() as stack:
        urls, upstreams = [], []
        for _ in CHANNELS:
            running = await stack.enter_async_context(
                command("simulate", "openai", "--port", "0", folder=folder, PYTHONUNBUFFERED="1")
            )
            assert running.process.stdout is not None
            greeting = (await running.process.stdout.readline()).decode()
            urls.append(greeting.partition(" at ")[2].split()[0])
            upstreams.append(running)
        file = folder / "day.yaml"
        channels = [
            {
                "name": name,
                "kind": "openai",
                "base_url": url,
                "api_key": "k",
                "models": {"m": {"model": MODEL}},
            }
            for name, url in zip(CHANNELS, urls, strict=True)
        ]
        file.write_text(
            yaml.safe_dump({"channels": channels, "logging": {"access": False, "level": "error"}})
        )
        server = await stack.enter_async_context(program(file))
        async with asyncio.TaskGroup() as group:
            for number in range(clients):
                group.create_task(client(server.url, number))
            await time_to_kill.wait()
            upstreams[1].signal(signal.SIGKILL)
            await upstreams[1].process.wait()
            killed.set()
    return Day(answers, after)


async def test_a_channel_that_is_killed_under_load_costs_no_client_an_answer_that_had_not_begun(
    tmp_path: Path,
) -> None:
    day = await a_day(tmp_path, clients=40, turns=6)
    counts = day.counts()
    assert len(day.answers) == 240
    assert counts["error"] == 0
    assert counts["odd"] == 0
    assert {one.code for one in day.answers if one.seen == "cut"} <= {"upstream_cut"}
    assert counts["whole"] + counts["cut"] == 240
    assert counts["cut"] <= 40
    assert all(one.seen == "whole" for one in day.after)
    whole = {one.text for one in day.answers if one.seen == "whole"}
    assert len(whole) == 1
    assert all(next(iter(whole)).startswith(one.text) for one in day.answers)
