"""Requests about runs, and event streams as EventSource reads them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from server.sse import SSEDecoder, SSEEvent
from tests.raw_http import Answer, RawClient, connect
from tests.scripted_runs import Site


def request(path: str, *headers: str, method: str = "GET") -> bytes:
    lines = "".join(f"{header}\r\n" for header in headers)
    return f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n".encode()


async def ask(shown: Site, path: str, *headers: str, method: str = "GET") -> Answer:
    async with connect("127.0.0.1", shown.port) as raw:
        await raw.send(request(path, *headers, method=method))
        return await raw.answer()


class EventSource:
    """Reads one event stream, event by event; comments are skipped."""

    def __init__(self, raw: RawClient, head: Answer) -> None:
        self.raw = raw
        self.head = head
        self._decoder = SSEDecoder()
        self._ready: list[SSEEvent] = []

    async def next(self) -> SSEEvent | None:
        """The next event; None at the end of the body."""
        while not self._ready:
            chunk = await self.raw.chunk()
            if not chunk:
                return None
            self._ready += self._decoder.feed(chunk)
        return self._ready.pop(0)

    async def until(self, name: str) -> list[SSEEvent]:
        """The events up to the next of this type."""
        seen: list[SSEEvent] = []
        while not seen or seen[-1].event != name:
            event = await self.next()
            assert event is not None, [one.event for one in seen]
            seen.append(event)
        return seen

    async def rest(self) -> list[SSEEvent]:
        events = []
        while (event := await self.next()) is not None:
            events.append(event)
        return events


@asynccontextmanager
async def event_source(shown: Site, path: str, *headers: str) -> AsyncIterator[EventSource]:
    async with connect("127.0.0.1", shown.port) as raw:
        await raw.send(request(path, "Accept: text/event-stream", *headers))
        head = await raw.head()
        assert head.status == 200, head
        yield EventSource(raw, head)
