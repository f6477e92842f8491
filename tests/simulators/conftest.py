from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from server.simulators.openai import OpenAISimulator


@pytest.fixture
async def sim() -> AsyncIterator[OpenAISimulator]:
    async with OpenAISimulator() as simulator:
        yield simulator
    assert simulator.stats()["connections_open"] == 0
