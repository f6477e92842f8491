"""What it costs to choose a channel: ``python -m bench.choice``.

No server runs, nothing is sent: this is the CPU of one function, which from outside nobody can see.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import get_args

from rich.console import Console
from rich.table import Table

from server.errors import RateLimited
from server.routing.channel import ChannelState
from server.routing.choice import Candidate, Chooser
from server.settings import Channel, ChannelModel, Policy
from server.upstreams.http_fast import FastClient
from server.upstreams.openai import OpenAIUpstream

CHANNELS = 100
# Of the runs the best counts: whatever disturbed the others was not the choice.
RUNS, CHOICES = 20, 2000
PROMISE_US = 20.0
COOLING_S = 3600.0


def states(client: FastClient, count: int, at_a_time: int = 0) -> list[ChannelState]:
    """So many channels of one model with weights from 1 to 10, each for ``at_a_time`` calls (0: any)."""
    made = []
    for number in range(count):
        settings = Channel(
            f"c{number}",
            "openai",
            ("m",),
            base_url="http://127.0.0.1:1/v1",
            weight=1 + number % 10,
            max_concurrency=at_a_time,
        )
        made.append(ChannelState(settings, [OpenAIUpstream(settings, client)]))
    return made


def cool(ill: Sequence[ChannelState], now: float) -> None:
    """All of these have just asked for an hour's patience."""
    for state in ill:
        limited = RateLimited("slower", retry_after_s=COOLING_S)
        state.health.of("m").failed(limited, state.health.keys[0], now, probe=False, cooldown_s=0)


def chooser(among: Sequence[ChannelState], policy: Policy) -> Chooser:
    """As a model has one."""
    return Chooser([Candidate(one, ChannelModel(), "m") for one in among], policy, random.Random(1))


def cost_us(choose: Callable[[], object], runs: int = RUNS, choices: int = CHOICES) -> float:
    """The CPU of one call, in microseconds: the best of ``runs``."""
    best = float("inf")
    for _ in range(runs):
        began = time.process_time()
        for _ in range(choices):
            choose()
        best = min(best, (time.process_time() - began) / choices)
    return 1e6 * best


async def measured(runs: int = RUNS, choices: int = CHOICES) -> list[tuple[str, str, float]]:
    """For each policy, with channels in each state: policy, state, microseconds."""
    client = FastClient()
    now = asyncio.get_running_loop().time()
    rows = []
    try:
        for policy in get_args(Policy):
            well, limited = states(client, CHANNELS), states(client, CHANNELS, at_a_time=8)
            busy = states(client, CHANNELS)
            half, most = states(client, CHANNELS), states(client, CHANNELS)
            cool(half[::2], now)
            for number, state in enumerate(busy):
                state.in_use = 1 + number % 7
            cool(most[1:], now)
            for told, among in (
                ("all well", well),
                ("each with max_concurrency", limited),
                ("calls under way at each", busy),
                ("half of them cooling", half),
                ("all but one cooling", most),
            ):
                choose = partial(chooser(among, policy).choose, now)
                rows.append((policy, told, cost_us(choose, runs, choices)))
    finally:
        await client.aclose()
    return rows


def main() -> None:
    """Print the table."""
    table = Table(title=f"A choice among {CHANNELS}; promised: {PROMISE_US:.0f} µs")
    for name in ("policy", "channels", "µs"):
        table.add_column(name, justify="right" if name == "µs" else "left")
    for policy, told, us in asyncio.run(measured()):
        table.add_row(policy, told, f"{us:.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()
