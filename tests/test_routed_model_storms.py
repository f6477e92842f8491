"""Many calls at once through channels that do whatever they like, and clients that leave at any moment."""

from __future__ import annotations

import asyncio
import math
import random

import pytest

from server.deltas import Opening, TextDelta
from server.errors import (
    NoChannel,
    Overloaded,
    RateLimited,
    ServerError,
    UpstreamAuth,
    UpstreamCut,
    UpstreamRefused,
    UpstreamUnreachable,
)
from server.hedged_model import HedgedModel
from server.routing.channel import ChannelState
from server.upstreams.base import Call, Upstream
from tests.channels import Eager, Script, answer, channel, model, played, says

CALLS = 150


def outcome(rng: random.Random) -> Script:
    scripts: list[Script] = [
        says("he", "llo"),
        says("hello"),
        [UpstreamUnreachable("down")],
        [[Opening()], UpstreamCut("cut")],
        [[Opening(), TextDelta("he")], UpstreamCut("cut")],
        [RateLimited("slower", retry_after_s=0.001)],
        [Overloaded("busy", upstream_status=503)],
        [UpstreamAuth("no", upstream_status=401)],
        [UpstreamRefused("bad", upstream_status=400)],
        [asyncio.Event()],
    ]
    return rng.choices(scripts, [8, 8, 3, 2, 2, 1, 2, 0.2, 1, 1])[0]


def house(rng: random.Random) -> list[ChannelState]:
    breaker = {"failures": 2, "open_s": 0.001, "max_open_s": 0.002}
    limits = [{}, {"max_concurrency": 2, "max_waiting": 3}, {"requests_per_min": 40, "max_waiting": 2}, {}]
    return [
        channel(
            f"c{at}",
            *(outcome(rng) for _ in range(400)),
            breaker=breaker,
            priority=at % 2,
            weight=1 + at,
            **limit,
        )
        for at, limit in enumerate(limits)
    ]


@pytest.mark.parametrize("hedged", [False, True])
@pytest.mark.parametrize("policy", ["weight", "least_latency", "least_busy"])
@pytest.mark.parametrize("seed", range(4))
async def test_nothing_is_left_behind_and_every_attempt_is_counted(
    seed: int, policy: str, hedged: bool
) -> None:
    rng = random.Random(seed)
    states = house(rng)
    routed = model(*states, rng=Eager(seed), policy=policy)
    upstream: Upstream = HedgedModel(routed, 0.001) if hedged else routed
    before = asyncio.all_tasks()
    calls: list[Call] = []
    tasks: list[asyncio.Task[str]] = []
    for _ in range(CALLS):
        calls.append(Call())
        tasks.append(asyncio.create_task(answer(upstream, calls[-1])))
        for _ in range(rng.randrange(4)):
            await asyncio.sleep(0)
        if rng.random() < 0.1:
            rng.choice(tasks).cancel()
    await asyncio.wait(tasks, timeout=0.05)
    for task in tasks:
        task.cancel()  # those that wait for ever
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(one, str | ServerError | asyncio.CancelledError) for one in results), results
    assert asyncio.all_tasks() == before
    for call in calls:
        assert len(call.tried) <= call.attempts_made <= 3 + hedged
    for state in states:
        health = state.health.of("m")
        assert (state.in_use, played(state).open, health.blocked_until < math.inf) == (0, 0, True)
        assert state.idle.is_set()
        assert state.gate is None or state.gate.waiting == 0
    # Whatever has happened, a good answer comes through once the times are over.
    for state in states:
        played(state).scripts = [says("well")]
    assert await _at_last(upstream) == "well"


async def _at_last(upstream: Upstream) -> str:
    async with asyncio.timeout(10):
        while True:
            try:
                return await answer(upstream)
            except NoChannel as error:
                await asyncio.sleep(min(error.retry_after_s or math.inf, 0.01))
