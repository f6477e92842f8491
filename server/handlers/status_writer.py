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
from server.handlers.status_feed import Feed, Item, TopicFeed
from server.handlers.status_messages import Next, encode_message
from server.handlers.websocket import WebSocket, text_frame
from server.run_log import Nap
from server.settings import Events

log = logging.getLogger("antiphon.status")

STUCK_S = 10.0
"""How long one write may wait for the client to read."""

LOOK_S = 0.25
"""How often it is looked how far behind a waiting write leaves the client."""

BATCH_EVENTS, BATCH_BYTES = 64, 256 * 1024
"""What is taken from one feed, and written in one go."""

RECHECK_S = 30.0
"""How often a live connection's key is looked at again."""

BOOKMARK_S = 5.0
"""How long filters may leave a subscription silent before it is told its place."""


SLOW = (1013, "slow_consumer")

SLOW_FAREWELL_S = 10.0
"""How long a client that is closed for slowness has to read what lies before the close."""


class Stop(Exception):
    """Ends the session with a close code."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class Subscription:
    """One subscription: its feed, and how its messages are built. ``told`` is the place the client knows."""

    def __init__(self, id: str, feed: Feed, now: float) -> None:
        self.id = id
        self.feed = feed
        self.is_topic = isinstance(feed, TopicFeed)
        self.told = feed.place
        self.told_at = now
        self._next = Next(id)

    def frame(self, item: Item) -> bytes:
        if item.place is not None:
            self.told = item.place
        offset = item.place if self.is_topic else None
        return text_frame(self._next.build(item.json, offset))


class Writer:
    """Writes to one websocket. ``check_key`` raises ``Stop`` when the client may no longer watch."""

    def __init__(self, socket: WebSocket, settings: Events, check_key: Callable[[], object]) -> None:
        self._socket = socket
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
        self.subscriptions[id] = Subscription(id, feed, self._loop.time())
        self.wake()

    def remove(self, id: str) -> None:
        """End a subscription; nothing happens if there is none."""
        subscription = self.subscriptions.pop(id, None)
        if subscription is not None:
            subscription.feed.close()

    def close(self) -> None:
        """End all subscriptions."""
        for id in list(self.subscriptions):
            self.remove(id)

    def stop(self, stop: Stop) -> None:
        """Close the connection, after what was answered already if that still goes out at once."""
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

    async def run(self) -> None:
        """Write until the connection closes."""
        socket = self._socket
        while socket.open:
            if socket.writing_paused and not await self._drained():
                return
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
        until = self._loop.time() + STUCK_S
        while not await socket.drained(LOOK_S):
            behind = max((one.feed.backlog for one in self.subscriptions.values()), default=0)
            if behind > self._settings.outbox_events or self._loop.time() >= until:
                log.info("cut off a watcher that does not read")
                self._cut_off()
                return False
        return socket.open

    def _cut_off(self) -> None:
        """Close for slowness; the client reads of it only behind all that it has not read yet."""
        self._socket.close(*SLOW, within_s=SLOW_FAREWELL_S)

    def _pump(self, now: float) -> bool:
        """Write what there is, up to a bound; was there anything?"""
        frames: list[bytes] = list(self._replies)
        self._replies.clear()
        self._reply_bytes = 0
        size = 0
        subscriptions = list(self.subscriptions.values())
        self._turn += 1  # nobody is always the last
        for at in range(len(subscriptions)):
            subscription = subscriptions[(at + self._turn) % len(subscriptions)]
            for frame in self._frames_of(subscription, now):
                frames.append(frame)
                size += len(frame)
            if size > BATCH_BYTES:
                break
        if not frames:
            return False
        self._socket.send_frame(b"".join(frames))
        self._last_said = now
        return True

    def _frames_of(self, subscription: Subscription, now: float) -> list[bytes]:
        feed = subscription.feed
        dropped = feed.backlog
        try:
            items = feed.pull(now, BATCH_EVENTS) if dropped <= self._settings.outbox_events else None
        except Gone:
            items = None
        if items is None:
            lagged = encode_message("lagged", subscription.id, dropped=dropped, volatile_only=False)
            self._replies.append(text_frame(lagged))
            raise Stop(*SLOW)
        frames = [subscription.frame(item) for item in items]
        if frames:
            subscription.told_at = now
        if feed.done:
            frames.append(text_frame(encode_message("complete", subscription.id, reason="run_ended")))
            feed.close()
            del self.subscriptions[subscription.id]
        elif feed.place != subscription.told and now - subscription.told_at >= BOOKMARK_S:
            subscription.told, subscription.told_at = feed.place, now
            frames.append(text_frame(encode_message("bookmark", subscription.id, offset=str(feed.place))))
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
        feeds = [subscription.feed for subscription in self.subscriptions.values()]
        for subscription in self.subscriptions.values():
            if (due := subscription.feed.due(now)) is not None:
                wait_s = min(wait_s, due - now)
            if subscription.feed.place != subscription.told:
                wait_s = min(wait_s, subscription.told_at + BOOKMARK_S - now)
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
