"""Questions carried out one after another by the real coordinator, under a clock that jumps."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import NamedTuple

import msgspec

from evaluation.members import SimulatedModel
from evaluation.reading import question, value_in
from evaluation.world import World
from server.chat import ChatRequest, JsonObject
from server.coordinator import Combination
from server.deltas import TextDelta
from server.errors import ModelNotFound, ServerError
from server.run_log import Run, Runs
from server.settings import Combination as CombinationSettings
from server.settings import Runs as RunsSettings
from server.tasks import TaskOwner
from server.upstreams.base import Call, Upstream
from server.virtual_clock import VirtualClockLoop


class Result(msgspec.Struct, frozen=True):
    """What came of one question.

    ``values`` are the answers of the choices, in their order; None: a text without an answer. ``calls``
    counts the calls that were made, ``drafts`` the members' that were finished. Times are seconds from the
    request, ``first_s`` None without any text. ``error`` is the code of a run that failed.
    """

    item: int
    right: bool
    values: tuple[int | None, ...]
    calls: int
    drafts: int
    first_s: float | None
    total_s: float
    level: str | None = None
    by: str | None = None
    error: str | None = None


class _Owner(NamedTuple):
    name: str = "evaluation"
    admin: bool = False


def contest(
    world: World,
    models: Sequence[SimulatedModel],
    settings: CombinationSettings,
    items: Sequence[int],
    done: Callable[[], None] = lambda: None,
) -> list[Result]:
    """Have the combination answer each item; needs no running event loop. ``done`` is told of each.

    An answer of several choices is right if one of them is: that is for its reader to see.
    """
    with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
        return runner.run(_contest(world, {one.name: one for one in models}, settings, items, done))


async def _contest(
    world: World,
    models: Mapping[str, SimulatedModel],
    settings: CombinationSettings,
    items: Sequence[int],
    done: Callable[[], None],
) -> list[Result]:
    def find(name: str) -> Upstream:
        if name not in models:
            raise ModelNotFound(f"There is no model {name}.")
        return models[name]

    loop = asyncio.get_running_loop()
    runs = Runs(RunsSettings(max_runs=16), wall=loop.time, monotonic=loop.time)
    tasks = TaskOwner()
    combination = Combination(settings, find, tasks, random.Random(world.seed))
    results = []
    for number in items:
        run = runs.start(model=settings.name, principal=_Owner())
        results.append(await _ask(world, combination, run, number))
        done()
    await tasks.aclose()
    return results


async def _ask(world: World, combination: Combination, run: Run, number: int) -> Result:
    loop = asyncio.get_running_loop()
    body = {
        "model": combination.name,
        "messages": [{"role": "user", "content": question(number)}],
        "stream": True,
    }
    chat, call = ChatRequest(JsonObject(msgspec.json.encode(body))), Call()
    began, first_s, error = loop.time(), None, None
    texts: dict[int, str] = {}
    try:
        with run.scope():
            answer: AsyncGenerator[Sequence[object], None] = combination.answer(run, chat, call)
            async with aclosing(answer) as batches:
                async for batch in batches:
                    for delta in batch:
                        if isinstance(delta, TextDelta):
                            first_s = loop.time() - began if first_s is None else first_s
                            texts[delta.index] = texts.get(delta.index, "") + delta.text
    except ServerError as caught:
        error = caught.code
    values = tuple(value_in(texts[place]) for place in sorted(texts))
    told = call.answer
    members = told.members if told is not None else ()
    made = [one for one in members if one.state != "skipped"]
    return Result(
        number,
        error is None and world.item(number).truth in values,
        values,
        # A run of one model tells of no members.
        len(made) if told is not None and members else 1,
        sum(one.state == "finished" for one in made),
        None if first_s is None else round(first_s, 3),
        round(loop.time() - began, 3),
        told.level if told is not None else None,
        told.answer_by if told is not None else None,
        error,
    )
