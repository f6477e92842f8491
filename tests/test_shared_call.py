"""One call for several readers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

import pytest

from server.answer_cache import Caching
from server.deltas import Batch, TextDelta
from server.errors import Overloaded, ServerError, ShuttingDown, UpstreamCut
from server.shared_call import AHEAD_BYTES, BEHIND_BYTES, SharedCall, SharedCalls
from server.tasks import TaskOwner
from server.upstreams.base import Call
from tests.channels import until

KIB = "x" * 1024


class Source:
    """Yields a batch for each text that is put, and fails with an error that is; ``closed`` when it ended."""

    def __init__(self) -> None:
        self.given = 0
        self.closed = False
        self._said: asyncio.Queue[str | Exception | None] = asyncio.Queue()

    def say(self, *said: str | Exception | None) -> None:
        for one in said:
            self._said.put_nowait(one)

    async def stream(self) -> AsyncGenerator[Batch, None]:
        try:
            while (one := await self._said.get()) is not None:
                if isinstance(one, Exception):
                    raise one
                self.given += 1
                yield [TextDelta(one)]
        finally:
            self.closed = True


class Reader:
    """Reads one batch when it is told to."""

    def __init__(self, shared: SharedCall) -> None:
        self.caching = Caching()
        self._batches = shared.read(self.caching)

    async def next(self) -> str:
        async with asyncio.timeout(10):
            [delta] = await anext(self._batches)
        assert isinstance(delta, TextDelta)
        return delta.text

    async def rest(self) -> list[str]:
        texts = []
        async with asyncio.timeout(10), aclosing(self._batches) as batches:
            async for batch in batches:
                texts += [delta.text for delta in batch if isinstance(delta, TextDelta)]
        return texts

    async def leave(self) -> None:
        async with asyncio.timeout(10):
            await self._batches.aclose()


@pytest.fixture
async def calls() -> AsyncIterator[SharedCalls]:
    tasks = TaskOwner()
    yield SharedCalls(tasks)
    await tasks.aclose()


def begun(calls: SharedCalls) -> tuple[Source, SharedCall]:
    source = Source()
    return source, calls.begin(b"k", source.stream(), Call())


async def test_each_reads_all_at_its_own_place(calls: SharedCalls) -> None:
    source, shared = begun(calls)
    early = Reader(shared)
    source.say("a", "b")
    assert [await early.next(), await early.next()] == ["a", "b"]
    joined = calls.join(b"k")
    assert joined is shared
    late = Reader(joined)
    assert await late.next() == "a"
    source.say("c", None)
    assert await early.rest() == ["c"]
    assert await late.rest() == ["b", "c"]
    assert (len(calls), source.closed, calls.join(b"k")) == (0, True, None)


async def test_who_leaves_cancels_nobody_and_the_last_one_ends_the_call(calls: SharedCalls) -> None:
    source, shared = begun(calls)
    first, second = Reader(shared), Reader(shared)
    source.say("a")
    assert [await first.next(), await second.next()] == ["a", "a"]
    await first.leave()
    assert (second.caching.outcome, source.closed) == ("miss", False)
    source.say("b")
    assert await second.next() == "b"
    await second.leave()
    assert (source.closed, len(calls)) == (True, 0)


async def test_the_last_one_may_leave_before_anything_has_come(calls: SharedCalls) -> None:
    source, shared = begun(calls)
    reader = Reader(shared)
    waiting = asyncio.create_task(reader.next())
    for _ in range(3):
        await asyncio.sleep(0)
    assert not waiting.done()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert shared.task is not None
    assert shared.task.done()
    assert (source.given, len(calls)) == (0, 0)


@pytest.mark.parametrize("said", [0, 2])
async def test_a_failure_goes_to_all(calls: SharedCalls, said: int) -> None:
    source, shared = begun(calls)
    readers = [Reader(shared) for _ in range(3)]
    source.say(*["a"] * said, UpstreamCut("cut"))
    for reader in readers:
        assert [await reader.next() for _ in range(said)] == ["a"] * said
        with pytest.raises(UpstreamCut):
            await reader.next()
    assert calls.join(b"k") is None, "who comes now has a call of its own"


async def test_a_mistake_of_ours_goes_to_all_too(calls: SharedCalls) -> None:
    source, shared = begun(calls)
    readers = [Reader(shared) for _ in range(2)]
    source.say(ValueError("ours"))
    for reader in readers:
        with pytest.raises(ValueError, match="ours"):
            await reader.next()


async def test_the_upstream_is_read_only_so_far_ahead(calls: SharedCalls) -> None:
    source, shared = begun(calls)
    reader = Reader(shared)
    source.say(*[KIB] * 200)
    assert await reader.next() == KIB
    await until(lambda: source.given > 20)
    for _ in range(100):
        await asyncio.sleep(0)
    assert source.given * 1024 <= AHEAD_BYTES + 2 * 1300
    source.say(None)
    assert len(await reader.rest()) == 199


async def test_a_slow_reader_holds_up_nobody_and_is_told(calls: SharedCalls) -> None:
    source, shared = begun(calls)
    slow, fast = Reader(shared), Reader(shared)
    source.say("first")
    assert [await slow.next(), await fast.next()] == ["first", "first"]
    many = BEHIND_BYTES // 1024 + 10
    for _ in range(many):
        source.say(KIB)
        assert await fast.next() == KIB
    assert calls.join(b"k") is None, "its beginning is no longer there"
    with pytest.raises(Overloaded) as told:
        await slow.next()
    assert told.value.code == "slow_reader"
    source.say("end", None)
    assert await fast.rest() == ["end"]


async def test_alone_nobody_is_too_slow(calls: SharedCalls) -> None:
    source, shared = begun(calls)
    reader = Reader(shared)
    source.say(*[KIB * 100] * 10, None)
    assert len(await reader.rest()) == 10


async def test_another_call_takes_the_place_of_one_that_cannot_be_joined(calls: SharedCalls) -> None:
    source, shared = begun(calls)
    reader = Reader(shared)
    for _ in range(BEHIND_BYTES // 1024 + 2):
        source.say(KIB)
        await reader.next()
    second, other = begun(calls)
    reader_of_other = Reader(other)
    second.say("a")
    assert await reader_of_other.next() == "a"
    source.say(None)
    await reader.rest()
    assert calls.join(b"k") is other
    await reader_of_other.leave()


async def test_at_the_servers_end_readers_are_told() -> None:
    tasks = TaskOwner()
    calls = SharedCalls(tasks)
    source, shared = begun(calls)
    reader = Reader(shared)
    source.say("a")
    assert await reader.next() == "a"
    await tasks.aclose()
    with pytest.raises(ServerError) as told:
        await reader.next()
    assert isinstance(told.value, ShuttingDown)
    assert source.closed
