"""One writer, one reader, a bounded number of batches between them."""

from __future__ import annotations

import asyncio

from server.coordinator.channel import AnswerChannel
from server.deltas import Delta, TextDelta


def batch(text: str) -> list[Delta]:
    return [TextDelta(text)]


async def test_what_waits_is_read_as_one_batch_in_order() -> None:
    channel = AnswerChannel(2)
    await channel.send(batch("a"))
    await channel.send(batch("b"))
    channel.put(batch("c"))
    channel.close()
    assert await channel.receive() == [*batch("a"), *batch("b"), *batch("c")]
    assert await channel.receive() is None
    assert await channel.receive() is None


async def test_a_writer_waits_for_room_and_a_reader_for_a_batch() -> None:
    channel = AnswerChannel(1)
    await channel.send(batch("a"))
    writers = [asyncio.create_task(channel.send(batch(text))) for text in "bc"]
    await asyncio.sleep(0)
    assert not any(writer.done() for writer in writers)
    got: list[Delta] = []
    while len(got) < 3:
        got += await channel.receive() or []
    await asyncio.gather(*writers)
    reader = asyncio.create_task(channel.receive())
    await asyncio.sleep(0)
    assert not reader.done()
    channel.close()
    assert await reader is None
    assert [one.text for one in got if isinstance(one, TextDelta)] == ["a", "b", "c"]


async def test_a_writer_that_is_cancelled_sends_nothing() -> None:
    channel = AnswerChannel(1)
    await channel.send(batch("a"))
    writer = asyncio.create_task(channel.send(batch("b")))
    await asyncio.sleep(0)
    writer.cancel()
    await asyncio.wait({writer})
    assert await channel.receive() == batch("a")
    channel.close()
    assert await channel.receive() is None
