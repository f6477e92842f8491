"""Real models on procedural tasks: the server itself, in this process, asked as its handlers ask it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any, NamedTuple

import msgspec
from aiohttp import web

from evaluation.figures import RealTable, Task
from evaluation.statistics import difference, share
from evaluation.tasks import NUMBER, GymTask
from server.app import create_app
from server.app_keys import CURRENT, RUNS
from server.chat import ChatRequest, JsonObject
from server.coordinator import answer
from server.deltas import TextDelta
from server.errors import ServerError
from server.settings import Combination, Member, Settings, Summary, TimeoutsPatch
from server.strategy_settings import BestOf, Judge, Steps
from server.upstreams.base import Call

SAMPLES = 3
AT_ONCE = 4
"""Tasks under way at a time, each with all its calls."""
PATIENT: dict[str, Any] = {
    "deadline_s": 600.0,
    "timeouts": TimeoutsPatch(first_token_s=300, idle_s=120, total_s=600),
    "max_members": 64,
}
PREFIX = "evaluation/"


class Answered(msgspec.Struct, frozen=True):
    """One raw result: which way was asked which task, and what came."""

    way: str
    task: int
    kind: str
    right: bool
    calls: int
    text: str
    error: str | None = None


class _Owner(NamedTuple):
    name: str = "evaluation"
    admin: bool = True


def ways(models: Sequence[str], most_tokens: int | None = None) -> list[Combination]:
    """What is compared: each model alone, then samples of the first one, and combinations of all.

    Of one model the members are samples of it. No draft or step is longer than ``most_tokens``; with such a
    limit nobody judges.
    """
    first = models[0]
    drawn = Member(model=first, id="sample", temperature=0.7, samples=SAMPLES)
    members = tuple(Member(model=one, id=f"m{n}", temperature=0.7) for n, one in enumerate(models, 1))
    panel = members if len(models) > 1 else (drawn,)
    size = len(models) if len(models) > 1 else SAMPLES
    common: dict[str, Any] = PATIENT | {
        "members": panel,
        "quorum": size,
        "summary": Summary(model=first, fallback=("best_draft",), temperature=0),
        "judge": Judge(model=first),
        "vote": NUMBER,
        "draft_max_tokens": most_tokens,
    }
    made = [Combination(name=f"{PREFIX}{one} alone", strategy="direct", model=one) for one in models]
    more = msgspec.structs.replace(drawn, samples=size + 1)
    sampled = common | {"members": (more,), "quorum": size + 1}
    # A judge's words are limited by no setting: who talks for ever does so here.
    by_list = common | {"best_of": BestOf(method="list")}
    judged = [Combination(name=f"{PREFIX}best_of, list", strategy="best_of", **by_list)]
    if most_tokens is not None:
        judged = []
    return [
        *made,
        Combination(name=f"{PREFIX}vote, {size + 1} × {first}", strategy="vote", **sampled),
        *([Combination(name=f"{PREFIX}vote", strategy="vote", **common)] if len(models) > 1 else []),
        *judged,
        Combination(name=f"{PREFIX}synthesize", strategy="synthesize", **common),
        Combination(
            name=f"{PREFIX}steps, {first}",
            strategy="steps",
            model=first,
            deadline_s=600.0,
            steps=Steps(max_steps=2, step_tokens=most_tokens),
        ),
    ]


async def evaluate_models(
    settings: Settings,
    models: Sequence[str],
    tasks: Sequence[GymTask],
    seed: int,
    tell: Callable[[str], None],
    *,
    most_tokens: int | None = None,
) -> tuple[RealTable, list[Answered]]:
    """Ask every way every task, a few at a time; no answer is longer than ``most_tokens``.

    Raises ``ModelNotFound`` for a model that the settings do not have.
    """
    combinations = ways(models, most_tokens)
    settings = msgspec.structs.replace(settings, combinations=(*settings.combinations, *combinations))
    raw: list[Answered] = []
    async with _server(settings) as app:
        for model in models:
            app[CURRENT].snapshot.router.find(model)
        for one in combinations:
            tell(f"{one.name.removeprefix(PREFIX)}: {len(tasks)} tasks")
            raw += await _ask_all(app, one.name, tasks, most_tokens)
    best = [one.right for one in raw if one.way == combinations[0].name.removeprefix(PREFIX)]
    rows = []
    for place, combination in enumerate(combinations):
        name = combination.name.removeprefix(PREFIX)
        mine = [one for one in raw if one.way == name]
        right = [one.right for one in mine]
        to_best = difference(right, best, str(seed)) if place else None
        calls = round(sum(one.calls for one in mine) / len(mine), 2)
        rows.append(Task(name, share(right), to_best, calls, sum(one.error is not None for one in mine)))
    kinds = tuple(dict.fromkeys(task.kind for task in tasks))
    return RealTable(tuple(models), kinds, seed, rows), raw


@asynccontextmanager
async def _server(settings: Settings) -> AsyncIterator[web.Application]:
    """Everything of a server but its door."""
    app = create_app(settings)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        yield app
    finally:
        await runner.cleanup()


async def _ask_all(
    app: web.Application, name: str, tasks: Sequence[GymTask], most_tokens: int | None
) -> list[Answered]:
    room = asyncio.Semaphore(AT_ONCE)

    async def ask(place: int, task: GymTask) -> Answered:
        async with room:
            return await _ask(app, name, place, task, most_tokens)

    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(ask(place, task)) for place, task in enumerate(tasks)]
    return [one.result() for one in asked]


async def _ask(
    app: web.Application, name: str, place: int, task: GymTask, most_tokens: int | None
) -> Answered:
    body: dict[str, Any] = {
        "model": name,
        "messages": [{"role": "user", "content": task.question}],
        "stream": True,
        "seed": place,
    }
    if most_tokens is not None:
        body["max_tokens"] = most_tokens
    chat, call = ChatRequest(JsonObject(msgspec.json.encode(body))), Call()
    run = app[RUNS].start(model=name, principal=_Owner())
    text, error = "", None
    try:
        with run.scope():
            upstream = app[CURRENT].snapshot.router.find(name)
            async with aclosing(answer(run, upstream, chat, call)) as batches:
                async for batch in batches:
                    text += "".join(delta.text for delta in batch if isinstance(delta, TextDelta))
    except ServerError as caught:
        error = caught.code
    members = call.answer.members if call.answer is not None else ()
    calls = sum(one.state != "skipped" for one in members) or 1
    right = error is None and task.is_right(text)
    return Answered(name.removeprefix(PREFIX), place, task.kind, right, calls, text, error)
