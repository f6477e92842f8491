"""Every type of event that is documented is told by a running server, and fits its schema."""

from __future__ import annotations

import asyncio
from typing import Any

from server.events import DATA_TYPES
from server.settings import Combination, Member, Settings, Summary
from server.simulators.openai import OpenAISimulator
from server.simulators.script import Script
from server.strategy_settings import Race
from tests.behaviour.asking import post
from tests.behaviour.running import QUIET, Antiphon, antiphon, ask, channel
from tests.handlers.status_client import client
from tests.schemas import check_message

DRAFT = "A draft that is long enough to be used."
OPEN = ["answer", "drafts", "reasoning", "progress", "channels"]
RUN = "run_" + "7" * 32
LENGTH = Script(text=DRAFT, finish="length")
REFUSES, FAILS, MUTE = Script(status=401), Script(status=500), Script(silent=True)


def panel(name: str, *models: str, **fields: Any) -> Combination:
    members = tuple(Member(model=model) for model in models)
    return Combination(
        **{"name": name, "members": members, "summary": Summary(model="writer"), "attempts": 1, **fields}
    )


def settings(sim: OpenAISimulator, other: OpenAISimulator) -> Settings:
    summary = Summary(model="lost", fallback=("writer",), attempts=1)
    return Settings(
        channels=(
            channel(
                sim,
                "a",
                "b",
                "c",
                "writer",
                "twice",
                "refuses",
                "mute",
                "lost",
                "short",
                name="sim",
                priority=1,
            ),
            channel(other, "twice", "writer", name="other"),
            channel(other, "few", name="few", max_concurrency=1),
            channel(other, "odd", name="odd", preset="mistral"),
        ),
        combinations=(
            panel("told", "a", "b", "refuses", "odd", summary=summary),
            panel("adapted", "a", "b", summary=Summary(model="odd")),
            panel("moved", "a", "b", summary=Summary(model="twice"), attempts=2),
            panel("tried", "twice", "a", attempts=2),
            panel("hasty", "a", "b", "mute", quorum=2, grace_s=0.05),
            panel("late", "a", "mute", quorum=2, deadline_s=0.5),
            panel("many", "few", "few"),
            panel("hedged", "mute", "a", strategy="race", race=Race(hedge_after=50)),
            panel("next", "a", "b", strategy="fallback"),
        ),
        logging=QUIET,
    )


async def told_by(server: Antiphon, seen: set[str], ready: asyncio.Event, mute: asyncio.Event) -> None:
    """Hear all of it, each message as its schema has it, until every type was told or nothing follows."""
    async with client(server) as watcher:  # type: ignore[arg-type]  # it wants no more than the port
        await watcher.begin()
        await watcher.subscribe("all", include=OPEN)
        ready.set()
        while seen < set(DATA_TYPES):
            try:
                message = await watcher.get()
            except TimeoutError:
                return
            check_message(message)
            if message["type"] == "next":
                event = message["event"]
                seen.add(event["type"])
                if event["run_id"] == RUN and event["type"] == "model.started":
                    mute.set()


async def test_every_type_of_event_is_told_as_its_schema_has_it() -> None:
    seen: set[str] = set()
    ready, mute = asyncio.Event(), asyncio.Event()
    async with OpenAISimulator() as sim, OpenAISimulator() as other:
        for model, script in {"refuses": REFUSES, "lost": FAILS, "mute": MUTE, "short": LENGTH}.items():
            sim.script(script, model=model, times=20)
        for model in ("a", "b", "writer"):
            sim.script(Script(text=DRAFT, chunks=6, pace_ms=120), model=model, times=40)
        for model in ("few", "odd", "twice"):
            other.script(Script(text=DRAFT), model=model, times=20)
        sim.script(FAILS, model="twice", times=20)
        async with antiphon(settings(sim, other)) as server, asyncio.TaskGroup() as group:
            hears = group.create_task(told_by(server, seen, ready, mute))
            await ready.wait()
            for model in ("tried", "moved", "told", "adapted", "hasty", "late", "many", "hedged", "next"):
                await post(server, ask(model, user="u", stream=True))
            await asyncio.gather(*(post(server, ask("few", stream=True)) for _ in range(3)))
            for model in ("short", "refuses"):
                await post(server, ask(model, stream=True))
            cancelled = group.create_task(post(server, ask("mute"), f"x-run-id: {RUN}"))
            await mute.wait()
            async with server.client.post(f"{server.url}/v1/runs/{RUN}/cancel") as response:
                assert response.status == 200
            await cancelled
            await hears
    assert sorted(set(DATA_TYPES) - seen) == []
