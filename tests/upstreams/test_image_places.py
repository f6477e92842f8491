"""Few at once, some waiting, the others sent away."""

from __future__ import annotations

import asyncio

import pytest

from server.errors import ImagesBusy
from server.upstreams.image_places import Places


async def test_who_finds_the_queue_full_is_sent_away_at_once() -> None:
    places = Places(1, 1, "fetched")
    await places.take(None)
    waiting = asyncio.ensure_future(places.take(None))
    await asyncio.sleep(0)
    with pytest.raises(ImagesBusy, match="are being fetched") as busy:
        await places.take(None)
    assert (busy.value.retry_after_s, busy.value.retryable) == (1.0, False)
    places.give()
    await waiting


async def test_who_is_cancelled_or_waits_too_long_leaves_the_queue_and_keeps_no_place() -> None:
    places = Places(1, 1, "fetched")
    await places.take(None)
    waiting = asyncio.ensure_future(places.take(None))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    with pytest.raises(ImagesBusy):
        await places.take(asyncio.get_running_loop().time())
    assert places.waiting == 0
    places.give()
    await places.take(asyncio.get_running_loop().time() + 10)


async def test_without_a_queue_a_free_place_is_still_given() -> None:
    places = Places(1, 0, "fetched")
    await places.take(None)
    with pytest.raises(ImagesBusy):
        await places.take(None)
