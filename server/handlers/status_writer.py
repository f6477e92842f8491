"""The writing half of a status connection: it pulls from the feeds while the client reads.

Nothing is queued for a client that does not read: events wait in the log, texts are cursors. Past a bound
that client is cut off, and may come back with its place. No run ever waits for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable

from server.errors import Gone
from server.handlers.status_audience import BATCH_EVENTS, Audience, Audiences, Known
from server.handlers.status_feed import Feed, TopicFeed
from server.handlers.status_messages import Next, encode_message
from server.handlers.status_texts import Item
from server.handlers.websocket import WebSocket, text_frame
from server.run_log import Nap
from server.settings import Events

log = logging.getLogger("antiphon.status")

STUCK_S = 10.0
"""How long a client may take nothing of what is written to it."""

LOOK_S = 0.25
"""How often it is looked how far behind a waiting write leaves the client."""

BATCH_BYTES = 256 * 1024
"""What is written in one go."""

RECHECK_S = 30.0
"""How often a live connection's key is looked at again."""

SLOW = (1013, "slow_consumer")

SLOW_FAREWELL_S = 2.5
"""How long a client that is closed for slowness has to read what lies before the close."""


class Stop(Exception):
    """Ends the session with a close code."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class Subscription:
    """One subscription: its feed, and how its messages are built. ``known`` is the place the client knows.

    In an ``audience`` it is that which pulls and writes, and the feed is not ours.
    """

    def __init__(self, writer: Writer, id: str, feed: Feed, now: float) -> None:
        self.id = id
        self.feed = feed
        self.known = Known(feed.place, now)
        self.audience: Audience | None = None
        self.alone_until = 0.0
        self.form = f"websocket {id}"
        self.round = 0
        self._writer = writer
        self._is_topic = isinstance(feed, TopicFeed)
        self._next = Next(id)

    def framed(self, items: list[Item], bookmark: int | None, over: bool) -> bytes:
        """The frames of all that, one behind the other."""
        build, is_topic = self._next.build, self._is_topic
        frames = [text_frame(build(item.json, item.place if is_topic else None)) for item in items]
        if over:
            frames.append(text_frame(encode_message("complete", self.id, reason="run_ended")))
        elif bookmark is not None:
            frames.append(text_frame(encode_message("bookmark", self.id, offset=str(bookmark))))
        return b"".join(frames)

    def close(self) -> None:
        """Let go of what it reads from."""
        if self.audience is not None:
            self.audience.drop(self)
        else:
            self.feed.close()

    def stand_up(self) -> None:
        """Leave the audience, and go on with a feed of its own."""
        if self.audience is not None and (left := self.audience.leave(self)) is not None:
            self.feed, self.known = left
            self.audience = None

    def hear(self, data: bytes, now: float) -> bool:
        return self._writer.write(data, now)

    def go_alone(self, feed: Feed, known: Known, until: float) -> None:
        self.audience = None
        self.feed, self.known, self.alone_until = feed, known, until
        self._writer.wake()

    def over(self) -> None:
        del self._writer.subscriptions[self.id]
        self._writer.wake()

    def fail(self) -> None:
        self.over()
        self._writer.stop(Stop(1011, "internal error"))


class Writer:
    """Writes to one websocket. ``check_key`` raises ``Stop`` when the client may no longer watch."""

    def __init__(
        self, socket: WebSocket, settings: Events, audiences: Audiences, check_key: Callable[[], object]
    ) -> None:
        self._socket = socket
        self._audiences = audiences
        self._settings = settings
        self._check_key = check_key
        self._loop = asyncio.get_running_loop()
        self.subscriptions: dict[str, Subscription] = {}
        self._replies: deque[bytes] = deque()
        self._reply_bytes = 0
        self._nap: Nap | None = None
        now = self._loop.time()
        self._last_said = now
        self._pinged_at = now
        self._asked_at: float | None = None  # of a ping that nothing has followed yet
        self._heard_then = 0  # counted, not timed: the loop's clock may stand still while a pong comes
        self._checked_at = now
        self._turn = 0
        self._farewell: tuple[bytes, Stop] | None = None

    def wake(self) -> None:
        """There is something to be written."""
        if self._nap is not None:
            self._nap.wake()

    def reply(self, message: bytes) -> None:
        """Send a message before all events that are not sent yet. A client that lets them pile up is cut."""
        frame = text_frame(message)
        self._replies.append(frame)
        self._reply_bytes += len(frame)
        if self._reply_bytes > self._settings.outbox_bytes and len(self._replies) > 1:
            self._cut_off()
        self.wake()

    def add(self, id: str, feed: Feed) -> None:
        """Begin a subscription; the writer closes the feed."""
        self.subscriptions[id] = Subscription(self, id, feed, self._loop.time())
        self.wake()

    def remove(self, id: str) -> None:
        """End a subscription; nothing happens if there is none."""
        subscription = self.subscriptions.pop(id, None)
        if subscription is not None:
            subscription.close()

    def close(self) -> None:
        """End all subscriptions."""
        for id in list(self.subscriptions):
            self.remove(id)

    def stop(self, stop: Stop) -> None:
        """Close the connection, after what was answered already if that still goes out at once."""
        if stop.code in (4401, 4403):
            reason = "expired" if stop.reason == "expired_api_key" else "revoked"
            for id in self.subscriptions:
                self._replies.append(text_frame(encode_message("complete", id, reason=reason)))
        if not self._socket.writing_paused:
            for frame in self._replies:
                self._socket.send_frame(frame)
        self._replies.clear()
        if (stop.code, stop.reason) == SLOW:
            self._cut_off()
        else:
            self._socket.close(stop.code, stop.reason)

    def leave(self, farewell: bytes, stop: Stop) -> None:
        """Close as ``stop`` says, behind ``farewell``, once all that there is to tell has been told."""
        self._farewell = (farewell, stop)
        self.wake()

    def write(self, data: bytes, now: float) -> bool:
        """Send frames behind the replies, at once; False if the client does not read fast enough."""
        if self._replies:
            data = b"".join((*self._replies, data))
            self._replies.clear()
            self._reply_bytes = 0
        socket = self._socket
        socket.send_frame(data)
        self._last_said = now
        return not socket.writing_paused

    async def run(self) -> None:
        """Write until the connection closes."""
        socket = self._socket
        while socket.open:
            if socket.writing_paused or self._farewell is not None:
                for subscription in tuple(self.subscriptions.values()):
                    subscription.stand_up()
            if socket.writing_paused:
                since = self._loop.time()
                if not await self._drained():
                    return
                self._own_up(self._loop.time() - since)
            now = self._loop.time()
            try:
                wrote = self._pump(now)
                wait_s = self._keep_alive(now)
            except Stop as stop:
                self.stop(stop)
                return
            if wrote:
                await asyncio.sleep(0)  # others have their turn
            elif self._farewell is not None:
                farewell, reason = self._farewell
                socket.send_text(farewell)
                self.stop(reason)
                return
            else:
                await self._sleep(now, wait_s)

    async def _drained(self) -> bool:
        """Wait until the client reads; False if it is gone, or stuck, or too far behind."""
        socket = self._socket
        until, least = self._loop.time() + STUCK_S, socket.buffered
        while not await socket.drained(LOOK_S):
            if socket.buffered < least:  # a slow line is not a stuck one
                until, least = self._loop.time() + STUCK_S, socket.buffered
            behind = max((one.feed.backlog for one in self.subscriptions.values()), default=0)
            if behind > self._settings.outbox_events or self._loop.time() >= until:
                log.info("cut off a watcher that does not read")
                self._cut_off()
                return False
        return socket.open

    def _own_up(self, held_s: float) -> None:
        """Say what a client was never told, because for so long it took nothing."""
        for subscription in self.subscriptions.values():
            if subscription.audience is None and (dropped := subscription.feed.thinned(held_s)):
                lagged = encode_message("lagged", subscription.id, dropped=dropped, volatile_only=True)
                self._replies.append(text_frame(lagged))

    def _cut_off(self) -> None:
        """Close for slowness; the client reads of it only behind all that it has not read yet."""
        self._socket.close(*SLOW, within_s=SLOW_FAREWELL_S)

    def _pump(self, now: float) -> bool:
        """Write what there is, up to a bound; was there anything?"""
        frames: list[bytes] = list(self._replies)
        self._replies.clear()
        self._reply_bytes = 0
        size = 0
        subscriptions = [one for one in self.subscriptions.values() if one.audience is None]
        self._turn += 1  # nobody is always the last
        for at in range(len(subscriptions)):
            subscription = subscriptions[(at + self._turn) % len(subscriptions)]
            if told := self._frames_of(subscription, now):
                frames.append(told)
                size += len(told)
            if size > BATCH_BYTES:
                break
        if not frames:
            return False
        self._socket.send_frame(b"".join(frames))
        self._last_said = now
        return True

    def _frames_of(self, subscription: Subscription, now: float) -> bytes:
        feed, known = subscription.feed, subscription.known
        dropped = feed.backlog
        try:
            items = feed.pull(now, BATCH_EVENTS) if dropped <= self._settings.outbox_events else None
        except Gone:
            items = None
        if items is None:
            lagged = encode_message("lagged", subscription.id, dropped=dropped, volatile_only=False)
            self._replies.append(text_frame(lagged))
            raise Stop(*SLOW)
        known.note(items, now)
        bookmark = None if feed.done else known.bookmark(feed, now)
        frames = subscription.framed(items, bookmark, feed.done)
        if feed.done:
            feed.close()
            del self.subscriptions[subscription.id]
        return frames

    def _keep_alive(self, now: float) -> float:
        """Ping when it is time; return how long there is nothing to be done. Raises ``Stop`` for the dead."""
        settings, socket = self._settings, self._socket
        if self._asked_at is not None:
            if socket.heard != self._heard_then:
                self._asked_at = None
            elif now - self._asked_at >= settings.pong_timeout_s:
                raise Stop(4408, "no pong in time")
        if now - self._checked_at >= RECHECK_S:
            self._checked_at = now
            self._check_key()
        if now - self._pinged_at >= settings.ping_s:
            self._pinged_at = now
            self._ask(now)
            socket.ping()
        if now - self._last_said >= settings.idle_ping_s:
            self._last_said = now
            self._ask(now)
            socket.send_text(b'{"type":"ping"}')
        times = [
            self._pinged_at + settings.ping_s,
            self._last_said + settings.idle_ping_s,
            self._checked_at + RECHECK_S,
        ]
        if self._asked_at is not None:
            times.append(self._asked_at + settings.pong_timeout_s)
        return max(0.0, min(times) - now)

    def _ask(self, now: float) -> None:
        """From now on something has to be heard, if nothing is awaited already."""
        if self._asked_at is None:
            self._asked_at, self._heard_then = now, self._socket.heard

    async def _sleep(self, now: float, wait_s: float) -> None:
        """Until there is something to write, or ``wait_s`` are over."""
        self._sit_down(now)
        feeds: list[Feed] = []
        for subscription in self.subscriptions.values():
            if subscription.audience is None:
                feeds.append(subscription.feed)
                for due in (subscription.feed.due(now), subscription.known.due(subscription.feed)):
                    if due is not None:
                        wait_s = min(wait_s, due - now)
        nap = self._nap = Nap()
        timer = self._loop.call_later(max(0.0, wait_s), nap.wake)
        for feed in feeds:
            feed.sleep(self)
        try:
            await nap.woken
        finally:
            self._nap = None
            timer.cancel()
            for feed in feeds:
                feed.unsleep(self)

    def _sit_down(self, now: float) -> None:
        """What is told all that there was so far shares a feed with subscriptions like it."""
        if self._farewell is not None or self._socket.writing_paused:
            return
        for subscription in tuple(self.subscriptions.values()):
            if subscription.audience is None and now >= subscription.alone_until:
                subscription.audience = self._audiences.join(
                    subscription, subscription.feed, subscription.known, self._settings.outbox_events
                )
