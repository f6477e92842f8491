"""A stream's events are read by whoever comes, from its own place, while they come and afterwards."""

from __future__ import annotations

import asyncio

import pytest

from server.errors import Gone, InvalidRequest
from server.replay import Replay


async def read(replay: Replay, number: int = -1) -> bytes:
    return b"".join([data async for data in replay.after(number)])


async def test_a_reader_gets_what_is_there_and_what_comes() -> None:
    replay = Replay()
    replay.append(b"a\n\nb\n\n")
    async with asyncio.TaskGroup() as group:
        early = group.create_task(read(replay))
        late = group.create_task(read(replay, 1))
        await asyncio.sleep(0)
        replay.append(b"")
        replay.append(b"c\n\n")
        waiting = group.create_task(replay.wait_ended())
        await asyncio.sleep(0)
        replay.end()
    assert waiting.done()
    assert (early.result(), late.result()) == (b"a\n\nb\n\nc\n\n", b"c\n\n")
    assert await read(replay, 0) == b"b\n\nc\n\n"
    assert await read(replay, 2) == b""


@pytest.mark.parametrize("ended", [False, True])
async def test_a_place_that_nobody_has_seen_is_refused_and_not_waited_for(ended: bool) -> None:
    replay = Replay()
    replay.check(-1)
    replay.append(b"a\n\nb\n\n")
    if ended:
        replay.end()
    replay.check(1)
    for place in (2, 99):
        with pytest.raises(InvalidRequest, match="the last event up to now is 1"):
            replay.check(place)
        with pytest.raises(InvalidRequest):
            await read(replay, place)


async def test_beyond_its_bound_the_oldest_go_and_who_wants_them_is_told() -> None:
    replay = Replay(max_bytes=7)
    replay.append(b"a\n\nb\n\n")
    reader = replay.after(-1)
    assert await anext(reader) == b"a\n\nb\n\n"
    replay.append(b"c\n\nd\n\ne\n\n")
    assert replay.size <= 7
    with pytest.raises(Gone):
        await anext(reader)
    with pytest.raises(Gone):
        replay.check(1)
    replay.check(2)
    replay.end()
    assert await read(replay, 2) == b"d\n\ne\n\n"
