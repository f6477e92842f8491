"""The status channel as server-sent events, for EventSource: one feed, one response."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from aiohttp import HttpVersion11, web
from aiohttp_sse import EventSourceResponse

from server.app_keys import PRINCIPAL, RECORD, SNAPSHOT
from server.errors import Gone
from server.handlers.status_audience import AUDIENCES, BATCH_EVENTS, Audience, Known
from server.handlers.status_feed import Feed
from server.handlers.status_texts import Item
from server.middlewares import send_head
from server.run_log import Nap
from server.watchers import Watchers

WATCHERS = web.AppKey("watchers", Watchers)

PING_S = 15.0
SEND_TIMEOUT_S = 10.0


def wants_event_stream(request: web.Request) -> bool:
    """Does ``Accept`` name the type of event streams? ``*/*`` does not."""
    accepted = ",".join(request.headers.getall("Accept", [])).lower().split(",")
    return any(one.partition(";")[0].strip() == "text/event-stream" for one in accepted)


class _Reader:
    """The one who writes the response: sleeps while there is nothing, and goes when the server ends.

    What is there to be told when it is sent away is told first. While it sleeps it sits in an audience, which
    writes for it what comes. ``feed`` is its own, None when nothing follows; it closes it.
    """

    def __init__(self, request: web.Request, feed: Feed, id_prefix: str) -> None:
        self.leaving = False
        self.feed: Feed | None = feed
        self.form = f"event stream {id_prefix}"
        self.round = 0
        self._id_prefix = id_prefix
        self._request = request
        self._chunked = request.version >= HttpVersion11
        self._max_backlog = request[SNAPSHOT].settings.events.outbox_events
        self._audience: Audience | None = None
        self._alone_until = 0.0
        self._nap: Nap | None = None

    def go_away(self) -> None:
        self.leaving = True
        self.wake()

    def wake(self) -> None:
        if self._nap is not None:
            self._nap.wake()

    def id_of(self, item: Item) -> str | None:
        """The place behind a stored event."""
        return None if item.place is None else f"{self._id_prefix}{item.place}"

    async def sleep(self, feed: Feed, now: float) -> None:
        """Until the feed has something that nobody else writes."""
        loop = asyncio.get_running_loop()
        nap = self._nap = Nap()
        timer: asyncio.TimerHandle | None = None
        if now >= self._alone_until and not self._request.protocol.writing_paused:
            known = Known(feed.place, now)
            self._audience = self._request.app[AUDIENCES].join(self, feed, known, self._max_backlog)
        alone = self._audience is None
        if alone:
            due = feed.due(now)
            timer = loop.call_at(due, nap.wake) if due is not None else None
            feed.sleep(self)
        try:
            await nap.woken
        finally:
            self._nap = None
            if alone:
                feed.unsleep(self)
                if timer is not None:
                    timer.cancel()
            elif self._audience is not None and (left := self._audience.leave(self)) is not None:
                self._audience = None
                self.feed = left[0]

    def close(self) -> None:
        """Let go of the feed."""
        if self.feed is not None:
            self.feed.close()

    # In an audience

    def framed(self, items: list[Item], bookmark: int | None, over: bool) -> bytes:
        """The events as ``EventSourceResponse.send`` writes them, in one piece."""
        parts: list[bytes] = []
        for item in items:
            if (id := self.id_of(item)) is not None:
                parts.append(f"id: {id}\n".encode())
            parts += (f"event: {item.type}\ndata: ".encode(), item.json, b"\n\n")
        data = b"".join(parts)
        return b"%x\r\n%b\r\n" % (len(data), data) if data and self._chunked else data

    def hear(self, data: bytes, now: float) -> bool:
        protocol = self._request.protocol
        if protocol.transport is not None:
            protocol.transport.write(data)
        return not protocol.writing_paused

    def go_alone(self, feed: Feed, known: Known, until: float) -> None:
        self._audience, self.feed, self._alone_until = None, feed, until
        self.wake()

    def over(self) -> None:
        self._audience = self.feed = None
        self.wake()

    def fail(self) -> None:
        self.over()
        if self._request.transport is not None:
            self._request.transport.abort()


async def stream_feed(
    request: web.Request, feed: Feed, snapshot: dict[str, Any] | None, id_prefix: str = ""
) -> web.StreamResponse:
    """Answer with the feed's events until it is done, the server ends, or the client leaves; closes the feed.

    ``id:`` is ``id_prefix`` and the place behind each stored event, ``event:`` its type. Raises
    ``RateLimited`` when the key has too many connections.
    """
    reader = _Reader(request, feed, id_prefix)
    watchers = request.app[WATCHERS]
    try:
        limit = request[SNAPSHOT].settings.events.max_connections
        watchers.add(reader, request[PRINCIPAL].name, limit)
        response = EventSourceResponse(ping_interval=PING_S, send_timeout=SEND_TIMEOUT_S, sep="\n")
        response.headers["Cache-Control"] = "no-store"
        response.force_close()
        await send_head(request, response)
        request[RECORD].status = response.status
        async with response:
            try:
                if snapshot is not None:
                    await response.send(_text(snapshot), id=f"{id_prefix}{feed.place}", event="snapshot")
                await _send_all(response, reader)
            except TimeoutError:
                pass  # the client does not read; the connection is cut already
        return response
    finally:
        watchers.remove(reader)
        reader.close()


async def _send_all(response: EventSourceResponse, reader: _Reader) -> None:
    loop = asyncio.get_running_loop()
    while (feed := reader.feed) is not None:
        now = loop.time()
        try:
            items = feed.pull(now, BATCH_EVENTS)
        except Gone:
            return  # too slow; the client comes back with its place, and hears that it is gone
        for item in items:
            await response.send(item.json.decode(), id=reader.id_of(item), event=item.type)
        if feed.done or (reader.leaving and not items):
            return
        if not items:
            await reader.sleep(feed, now)


def _text(value: dict[str, Any]) -> str:
    return msgspec.json.encode(value).decode()
