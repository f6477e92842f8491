"""The cost of a choice: that it is measured, not how large it is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import get_args

import pytest

from bench.choice import CHANNELS, chooser, cool, cost_us, measured, states
from server.settings import Policy
from server.upstreams.http_fast import FastClient


@pytest.fixture
async def client() -> AsyncIterator[FastClient]:
    client = FastClient()
    yield client
    await client.aclose()


async def test_each_policy_is_measured_in_each_state() -> None:
    rows = await measured(runs=1, choices=3)
    assert len(set(rows)) == len(rows) == 5 * len(get_args(Policy))
    assert {policy for policy, _, _ in rows} == set(get_args(Policy))


async def test_what_is_measured_is_a_choice_among_so_many(client: FastClient) -> None:
    among = states(client, CHANNELS)
    for policy in get_args(Policy):
        one = chooser(among, policy)
        chosen = [one.choose(0.0) for _ in range(200)]
        assert None not in chosen
        assert len({found.state.name for found in chosen if found is not None}) > CHANNELS // 4


async def test_whoever_cools_is_not_chosen(client: FastClient) -> None:
    among = states(client, 3)
    cool(among[1:], 0.0)
    found = chooser(among, "weight").choose(1.0)
    assert found is not None
    assert found.state.name == "c0"


def test_the_best_run_counts() -> None:
    calls: list[None] = []
    assert cost_us(lambda: calls.append(None), runs=3, choices=5) >= 0
    assert len(calls) == 15
