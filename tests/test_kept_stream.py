"""A stream's events are read by whoever comes, from its own place, while they come and afterwards."""

from __future__ import annotations

import asyncio

import pytest

from server.errors import Gone, InvalidRequest
from server.kept_stream import KeptStream


async def read(kept_stream: KeptStream, number: int = -1) -> bytes:
    return b"".join([data async for data in kept_stream.after(number)])


async def test_a_reader_gets_what_is_there_and_what_comes() -> None:
    kept_stream = KeptStream()
    kept_stream.append(b"a\n\nb\n\n")
    async with asyncio.TaskGroup() as group:
        early = group.create_task(read(kept_stream))
        late = group.create_task(read(kept_stream, 1))
        await asyncio.sleep(0)
        kept_stream.append(b"")
        kept_stream.append(b"c\n\n")
        waiting = group.create_task(kept_stream.wait_ended())
        await asyncio.sleep(0)
        kept_stream.end()
    assert waiting.done()
    assert (early.result(), late.result()) == (b"a\n\nb\n\nc\n\n", b"c\n\n")
    assert await read(kept_stream, 0) == b"b\n\nc\n\n"
    assert await read(kept_stream, 2) == b""


@pytest.mark.parametrize("ended", [False, True])
async def test_a_place_that_nobody_has_seen_is_refused_and_not_waited_for(ended: bool) -> None:
    kept_stream = KeptStream()
    kept_stream.check(-1)
    kept_stream.append(b"a\n\nb\n\n")
    if ended:
        kept_stream.end()
    kept_stream.check(1)
    for place in (2, 99):
        with pytest.raises(InvalidRequest, match="the last event up to now is 1"):
            kept_stream.check(place)
        with pytest.raises(InvalidRequest):
            await read(kept_stream, place)


async def test_beyond_its_bound_the_oldest_go_and_who_wants_them_is_told() -> None:
    kept_stream = KeptStream(max_bytes=7)
    kept_stream.append(b"a\n\nb\n\n")
    reader = kept_stream.after(-1)
    assert await anext(reader) == b"a\n\nb\n\n"
    kept_stream.append(b"c\n\nd\n\ne\n\n")
    assert kept_stream.size <= 7
    with pytest.raises(Gone):
        await anext(reader)
    with pytest.raises(Gone):
        kept_stream.check(1)
    kept_stream.check(2)
    kept_stream.end()
    assert await read(kept_stream, 2) == b"d\n\ne\n\n"
