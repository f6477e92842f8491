"""A watcher's connection to the status channel, and what it has heard."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from datetime import datetime
from typing import cast

import msgspec

from bench.framing import HEAD_END
from bench.tally import Job
from bench.websocket import TEXT, Frames, handshake, masked_text

PING, PONG = b"\x89\x00", b"\x8a\x80\x00\x00\x00\x00"
AT_ONCE = 50  # connections that are opened side by side


class Event(msgspec.Struct):
    """As much of an event as is looked at."""

    type: str
    time: str
    data: msgspec.Raw


class Message(msgspec.Struct):
    """As much of a server's message as is looked at."""

    type: str
    event: Event | None = None


_MESSAGE = msgspec.json.Decoder(Message)


class Channel(asyncio.Protocol):
    """Keeps what it reads, with the wall clock's µs of each read."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._asked_at = 0  # reads before what was said last
        self._sign = b""
        self._seen: asyncio.Future[int] | None = None
        self.transport: asyncio.Transport | None = None
        self.reads: list[tuple[int, bytes]] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's are of no class of asyncio's
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self.reads.append((time.time_ns() // 1000, data))
        if PING in data and self.transport is not None:
            self.transport.write(PONG)
        if self._seen is not None:
            self._look()

    def _look(self) -> None:
        since = b"".join(data for _, data in self.reads[self._asked_at :])
        if self._seen is not None and self._sign in since:
            if not self._seen.done():
                self._seen.set_result(time.monotonic_ns() // 1000)
            self._seen = None

    def connection_lost(self, error: Exception | None) -> None:
        self.transport = None
        if self._seen is not None and not self._seen.done():
            self._seen.set_exception(ConnectionError(f"the status channel was closed: {error}"))

    async def until(self, sign: bytes) -> int:
        """When ``sign`` was read, since something was said: monotonic µs. Raises ConnectionError."""
        if self.transport is None:
            raise ConnectionError("the status channel is closed")
        self._sign = sign
        seen: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._seen = seen
        self._look()
        return await seen

    def say(self, **message: object) -> None:
        """Send a message."""
        self._asked_at = len(self.reads)
        if self.transport is not None:
            self.transport.write(masked_text(msgspec.json.encode(message)))

    async def subscribe(self, topic: str, **more: object) -> int:
        """Subscribe; returns how many µs the answer took."""
        began = time.monotonic_ns() // 1000
        self.say(type="subscribe", id="1", topic=topic, **more)
        return await self.until(b'"subscribed"') - began

    def heard(self) -> Iterator[tuple[int, Event]]:
        """Each event, and when it was read. Raises BadFraming."""
        frames, head = Frames(), b""
        for at_us, data in self.reads:
            if not head.endswith(HEAD_END):
                head, found, data = (head + data).partition(HEAD_END)
                head += found
            for opcode, content in frames.feed(data) if head.endswith(HEAD_END) else ():
                if opcode == TEXT and (event := _MESSAGE.decode(content).event) is not None:
                    yield at_us, event

    def count(self, sign: bytes) -> int:
        """How often ``sign`` was read, within single reads."""
        return sum(data.count(sign) for _, data in self.reads)

    def close(self) -> None:
        if self.transport is not None:
            self.transport.abort()


def told_us(event: Event) -> int:
    """When an event was told: the wall clock, in µs but to the millisecond."""
    return round(datetime.fromisoformat(event.time).timestamp() * 1e6)


async def open_channel(job: Job) -> Channel:
    """A connection that may subscribe. Raises OSError."""
    assert job.watch_path is not None  # who has none is not asked
    asked = handshake(job.watch_path, {"host": f"127.0.0.1:{job.port}", **job.headers})
    loop = asyncio.get_running_loop()
    _, channel = await loop.create_connection(lambda: Channel(asked), "127.0.0.1", job.port)
    await channel.until(HEAD_END)
    channel.say(type="connection_init")
    await channel.until(b'"connection_ack"')
    return channel


async def open_all(job: Job, topic: str, **more: object) -> list[Channel]:
    """As many as the load has watchers, each with a subscription to ``topic``. Raises OSError."""
    channels: list[Channel] = []

    async def one() -> None:
        channel = await open_channel(job)
        channels.append(channel)
        await channel.subscribe(topic, **more)

    while (left := job.load.watchers - len(channels)) > 0:
        await asyncio.gather(*(one() for _ in range(min(AT_ONCE, left))))
    return channels
