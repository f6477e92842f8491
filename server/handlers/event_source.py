"""The status channel as server-sent events, for EventSource: one feed, one response."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from aiohttp import web
from aiohttp_sse import EventSourceResponse

from server.app_keys import PRINCIPAL, RECORD, SNAPSHOT
from server.errors import Gone
from server.handlers.status_feed import Feed
from server.middlewares import send_head
from server.run_log import Nap
from server.watchers import Watchers

WATCHERS = web.AppKey("watchers", Watchers)

PING_S = 15.0
SEND_TIMEOUT_S = 10.0
BATCH_EVENTS = 64


def wants_event_stream(request: web.Request) -> bool:
    """Does ``Accept`` name the type of event streams? ``*/*`` does not."""
    accepted = ",".join(request.headers.getall("Accept", [])).lower().split(",")
    return any(one.partition(";")[0].strip() == "text/event-stream" for one in accepted)


class _Reader:
    """The one who writes the response: sleeps while there is nothing, and goes when the server ends.

    What is there to be told when it is sent away is told first.
    """

    def __init__(self) -> None:
        self.leaving = False
        self._nap: Nap | None = None

    def go_away(self) -> None:
        self.leaving = True
        self.wake()

    def wake(self) -> None:
        if self._nap is not None:
            self._nap.wake()

    async def sleep(self, feed: Feed, now: float) -> None:
        """Until the feed has something."""
        loop = asyncio.get_running_loop()
        nap = self._nap = Nap()
        due = feed.due(now)
        timer = loop.call_at(due, nap.wake) if due is not None else None
        feed.sleep(self)
        try:
            await nap.woken
        finally:
            self._nap = None
            feed.unsleep(self)
            if timer is not None:
                timer.cancel()


async def stream_feed(
    request: web.Request, feed: Feed, snapshot: dict[str, Any] | None, id_prefix: str = ""
) -> web.StreamResponse:
    """Answer with the feed's events until it is done, the server ends, or the client leaves; closes the feed.

    ``id:`` is ``id_prefix`` and the place behind each stored event, ``event:`` its type. Raises
    ``RateLimited`` when the key has too many connections.
    """
    reader = _Reader()
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
                await _send_all(response, feed, reader, id_prefix)
            except TimeoutError:
                pass  # the client does not read; the connection is cut already
        return response
    finally:
        watchers.remove(reader)
        feed.close()


async def _send_all(response: EventSourceResponse, feed: Feed, reader: _Reader, id_prefix: str) -> None:
    loop = asyncio.get_running_loop()
    while True:
        now = loop.time()
        try:
            items = feed.pull(now, BATCH_EVENTS)
        except Gone:
            return  # too slow; the client comes back with its place, and hears that it is gone
        for item in items:
            id = None if item.place is None else f"{id_prefix}{item.place}"
            await response.send(item.json.decode(), id=id, event=item.type)
        if feed.done or (reader.leaving and not items):
            return
        if not items:
            await reader.sleep(feed, now)


def _text(value: dict[str, Any]) -> str:
    return msgspec.json.encode(value).decode()
