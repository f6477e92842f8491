"""Watchers of one thing that are all at the same place: what is new is looked for, and framed, once for all.

An audience owns one feed and has no task. When the feed wakes it, it pulls, and writes the same bytes to one
watcher after the other. Who cannot keep up, or wants something of its own, leaves with a feed of its own,
which goes on where the audience is: so everybody is told the same, alone or not.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Hashable
from typing import Protocol

from aiohttp import web

from server.errors import Gone
from server.handlers.status_feed import Feed
from server.handlers.status_texts import Item

log = logging.getLogger("antiphon.status")

AT_ONCE = 64
"""So many watchers are written to until others have their turn at the loop."""

BATCH_EVENTS = 64
"""What is taken from one feed in one go."""

BOOKMARK_S = 5.0
"""How long filters may leave a watcher silent before it is told its place."""

ALONE_S = 5.0
"""Who could not be brought to the place of its audience goes on alone for so long."""


class Known:
    """The place that a watcher knows, which filters may leave behind its feed's, and since when."""

    __slots__ = ("at", "place")

    def __init__(self, place: int, now: float) -> None:
        self.place = place
        self.at = now

    def note(self, items: list[Item], now: float) -> None:
        """These have been told."""
        for item in reversed(items):
            if item.place is not None:
                self.place = item.place
                break
        if items:
            self.at = now

    def bookmark(self, feed: Feed, now: float) -> int | None:
        """The place to be told now, and known from now on; None if it is not time."""
        if feed.place == self.place or now - self.at < BOOKMARK_S:
            return None
        self.place, self.at = feed.place, now
        return feed.place

    def due(self, feed: Feed) -> float | None:
        """When a bookmark is due."""
        return None if feed.place == self.place else self.at + BOOKMARK_S


class Listener(Protocol):
    """One watcher in an audience. Those of one ``form`` are told the same bytes; ``round`` is the audience's.

    ``hear`` writes at once and returns False if the client does not read fast enough. ``go_alone`` hands it
    a feed of its own, and what it knows; nothing more comes from the audience, and it should not come back
    before ``until``. ``over`` says that nothing follows at all, ``fail`` that the server is at fault.
    """

    form: str
    round: int

    def framed(self, items: list[Item], bookmark: int | None, over: bool) -> bytes: ...
    def hear(self, data: bytes, now: float) -> bool: ...
    def go_alone(self, feed: Feed, known: Known, until: float) -> None: ...
    def over(self) -> None: ...
    def fail(self) -> None: ...


class Audience:
    """Made by ``Audiences.join``; lives as long as anybody listens. It closes the feed."""

    def __init__(self, feed: Feed, max_backlog: int, audiences: Audiences) -> None:
        self._loop = asyncio.get_running_loop()
        self._feed = feed
        self._max_backlog = max_backlog
        self._audiences = audiences
        self._known = Known(feed.place, self._loop.time())
        self._members: dict[Listener, None] = {}
        self._newcomers: dict[Listener, tuple[Feed, Known]] = {}  # they are elsewhere yet
        self._scheduled: asyncio.Handle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._woken = False
        # The round under way: what is told, to whom, and how far that is.
        self._round = 0
        self._telling: list[Listener] | None = None
        self._at = 0
        self._items: list[Item] = []
        self._bookmark: int | None = None
        self._bytes: dict[str, bytes] = {}

    def add(self, listener: Listener, feed: Feed, known: Known) -> None:
        """Seat a watcher whose feed is its own so far, and the audience's from now on."""
        if feed is self._feed or self._feed.is_at(feed):
            self._seat(listener, feed, known)
        else:
            self._newcomers[listener] = feed, known
            self.wake()

    def leave(self, listener: Listener) -> tuple[Feed, Known] | None:
        """A watcher goes, having been told all that the others were; with what it goes on, if it does."""
        left: tuple[Feed, Known] | None = self._newcomers.pop(listener, None)
        if left is None:
            self._tell_one(listener, self._loop.time())
            if listener in self._members:
                left = self._feed.fork(), Known(self._known.place, self._known.at)
                del self._members[listener]
        self._close_if_empty()
        return left

    def drop(self, listener: Listener) -> None:
        """A watcher is gone."""
        newcomer = self._newcomers.pop(listener, None)
        if newcomer is not None:
            newcomer[0].close()
        self._members.pop(listener, None)
        self._close_if_empty()

    def rest(self) -> None:
        """Wait for what comes; to be called once it has its first watcher."""
        self._feed.sleep(self)
        self._set_timer(self._loop.time())

    def wake(self) -> None:
        """There may be something new."""
        if self._telling is not None:
            self._woken = True
        elif self._scheduled is None:
            self._scheduled = self._loop.call_soon(self._begin)

    # A round

    def _begin(self) -> None:
        """Look what there is, and begin to tell it."""
        self._scheduled = None
        try:
            self._pull(self._loop.time())
        except Exception:  # the edge: alone, each of them would have met the same bug
            log.exception("an audience failed")
            self._fail()

    def _pull(self, now: float) -> None:
        feed = self._feed
        self._woken = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        feed.unsleep(self)
        try:
            items = feed.pull(now, BATCH_EVENTS) if feed.backlog <= self._max_backlog else None
        except Gone:
            items = None
        if items is None:
            self._dissolve()
            return
        self._known.note(items, now)
        bookmark = None if feed.done else self._known.bookmark(feed, now)
        self._round += 1
        self._items, self._bookmark, self._bytes = items, bookmark, {}
        self._telling, self._at = [], 0
        if items or bookmark is not None or feed.done:
            self._telling = list(self._members)
        if self._newcomers and (feed.done or feed.due(now) is None):
            self._bring_up(now)
        if self._telling is not None:
            feed.sleep(self)
            self._tell()

    def _bring_up(self, now: float) -> None:
        """All is taken from the feed: what newcomers miss of it they are told, and then they are members."""
        while self._newcomers:
            listener, (feed, known) = next(iter(self._newcomers.items()))
            items: list[Item] = []
            try:
                items = feed.pull(now, BATCH_EVENTS, at_once=True)
                together = self._feed.is_at(feed)
            except Gone:
                together = False
            known.note(items, now)
            keeps_up = not items or listener.hear(listener.framed(items, None, feed.done), now)
            if together and not feed.done:
                self._seat(listener, feed, known)
            del self._newcomers[listener]
            if feed.done:
                feed.close()
                listener.over()
            elif not together:
                listener.go_alone(feed, known, now + ALONE_S)
            elif not keeps_up:
                self._release(listener)

    def _tell(self) -> None:
        """Write to the next ones; the others have to wait until the loop has looked around."""
        self._scheduled = None
        telling = self._telling
        assert telling is not None
        now = self._loop.time()
        begin, self._at = self._at, self._at + AT_ONCE
        members = self._members
        try:
            for listener in telling[begin : self._at]:
                if listener in members and not self._tell_one(listener, now):
                    self._release(listener)
        except Exception:  # as above
            log.exception("an audience failed")
            self._fail()
        if self._telling is None:
            return
        if self._at < len(telling):
            self._scheduled = self._loop.call_soon(self._tell)
            return
        self._telling = None
        if self._close_if_empty():
            return
        if self._woken:
            self.wake()
        else:
            self._set_timer(now)

    def _tell_one(self, listener: Listener, now: float) -> bool:
        """Tell a member of this round, if it was not; False if it does not keep up."""
        if listener.round == self._round or self._telling is None:
            return True
        listener.round = self._round
        data = self._bytes.get(listener.form)
        if data is None:
            data = self._bytes[listener.form] = listener.framed(self._items, self._bookmark, self._feed.done)
        keeps_up = not data or listener.hear(data, now)
        if self._feed.done:
            del self._members[listener]
            listener.over()
        return keeps_up

    def _set_timer(self, now: float) -> None:
        """Wake when something is due by itself."""
        due, bookmark = self._feed.due(now), self._known.due(self._feed)
        if due is not None and bookmark is not None:
            due = min(due, bookmark)
        elif due is None:
            due = bookmark
        if due is not None:
            if due <= now:
                self.wake()
            else:
                self._timer = self._loop.call_at(due, self.wake)

    # Members

    def _seat(self, listener: Listener, feed: Feed, known: Known) -> None:
        if feed is not self._feed:
            feed.close()
        if known.place < self._known.place:  # then all are told again where they are
            self._known.place, self._known.at = known.place, known.at
        listener.round = self._round
        self._members[listener] = None

    def _release(self, listener: Listener) -> None:
        if (left := self.leave(listener)) is not None:
            listener.go_alone(*left, 0.0)

    def _dissolve(self) -> None:
        """Everybody goes on alone: each finds for itself what there is to be found."""
        for listener in [*self._members, *self._newcomers]:
            self._release(listener)

    def _fail(self) -> None:
        listeners = [*self._members, *self._newcomers]
        for feed, _known in self._newcomers.values():
            feed.close()
        self._members.clear()
        self._newcomers.clear()
        self._close_if_empty()
        for listener in listeners:
            listener.fail()

    def _close_if_empty(self) -> bool:
        if self._members or self._newcomers:
            return False
        self._feed.unsleep(self)
        self._telling = None
        for handle in (self._scheduled, self._timer):
            if handle is not None:
                handle.cancel()
        self._audiences.forget(self._feed)
        self._feed.close()
        return True


class Audiences:
    """All audiences of this process, by what their feeds tell."""

    def __init__(self) -> None:
        self._by_crowd: dict[Hashable, Audience] = {}

    def __len__(self) -> int:
        return len(self._by_crowd)

    def join(self, listener: Listener, feed: Feed, known: Known, max_backlog: int) -> Audience | None:
        """Seat a watcher; its feed is the audience's from now on. None if such a feed is not shared.

        An audience that is ``max_backlog`` events behind is dissolved.
        """
        if feed.crowd is None or feed.done:
            return None
        audience = self._by_crowd.get(feed.crowd)
        if audience is not None:
            audience.add(listener, feed, known)
            return audience
        audience = self._by_crowd[feed.crowd] = Audience(feed, max_backlog, self)
        audience.add(listener, feed, known)
        audience.rest()
        return audience

    def forget(self, feed: Feed) -> None:
        """An audience has nobody left."""
        self._by_crowd.pop(feed.crowd, None)


AUDIENCES = web.AppKey("audiences", Audiences)
