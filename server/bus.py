"""Topics over many runs: what happened, in the order in which it was told here.

A topic is read, never pushed: each reader comes with the offset that it has, and a reader with nothing to
read lays itself to sleep. The bus in memory serves one process; an epoch is its lifetime, and an offset of
another epoch is worth nothing.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Protocol

from server.events import Event


class Sleeper(Protocol):
    """Whoever sleeps until there is something new. ``wake`` is synchronous, short, and never raises."""

    def wake(self) -> None: ...


class Sleepers:
    """Those who sleep in one place. Each is woken once, and has to lay itself down again."""

    __slots__ = ("asleep",)

    def __init__(self) -> None:
        # Looked at directly: writers ask often, and mostly nobody sleeps; nor is there room for any then.
        self.asleep: set[Sleeper] | None = None

    def add(self, sleeper: Sleeper) -> None:
        if self.asleep is None:
            self.asleep = set()
        self.asleep.add(sleeper)

    def discard(self, sleeper: Sleeper) -> None:
        if self.asleep is not None:
            self.asleep.discard(sleeper)

    def wake(self) -> None:
        asleep, self.asleep = self.asleep, None
        for sleeper in asleep or ():
            sleeper.wake()


class Quiet(Protocol):
    """A run whose events are made only when somebody reads them."""

    def speak(self) -> None:
        """Make what would have been told so far, now; later events are told as they happen."""

    def all_events(self) -> Sequence[Event]:
        """All events of an ended run, made now if they were not."""


# A quiet run has at least so many events once it has ended: enough of them are held to fill a topic.
QUIET_EVENTS = 7


class Topic:
    """One topic: its newest events, numbered from 1 by ``head``. At most ``limit`` are kept.

    The events of quiet runs take their places when somebody reads: those of an ended run together, behind
    what was told before its end.
    """

    __slots__ = ("_add", "_ended", "_events", "_head", "_lost", "_under_way", "sleepers")

    def __init__(self, limit: int) -> None:
        self._events: deque[Event] = deque(maxlen=limit)
        self._add = self._events.append
        self._head = 0
        self._under_way: set[Quiet] = set()
        self._ended: deque[Quiet] = deque(maxlen=limit // QUIET_EVENTS + 1)
        self._lost = 0  # quiet runs that fell out of ``_ended`` unread
        self.sleepers = Sleepers()

    @property
    def head(self) -> int:
        """The offset of the newest event; 0 if there was none."""
        if self._under_way or self._ended:
            self._settle()
        return self._head

    @property
    def first(self) -> int:
        """The offset of the oldest event that is kept; ``head`` + 1 if there is none."""
        return self.head - len(self._events) + 1

    def append(self, event: Event) -> None:
        """Add an event and wake who sleeps. Never waits."""
        if self._ended:
            self._settle_ended()
        self._add(event)
        self._head += 1
        if self.sleepers.asleep:
            self.sleepers.wake()

    def quiet_began(self, run: Quiet) -> None:
        """A run is under way that tells nothing for now."""
        self._under_way.add(run)

    def quiet_speaks(self, run: Quiet, events: Iterable[Event]) -> None:
        """It tells from now on; ``events`` are what it has not told."""
        self._under_way.discard(run)
        for event in events:
            self.append(event)

    def quiet_ended(self, run: Quiet) -> None:
        """It has ended, and nobody has read it."""
        self._under_way.discard(run)
        if len(self._ended) == self._ended.maxlen:
            self._lost += 1
        self._ended.append(run)

    def _settle(self) -> None:
        self._settle_ended()
        for run in tuple(self._under_way):
            run.speak()

    def _settle_ended(self) -> None:
        ended = tuple(self._ended)
        self._ended.clear()
        if self._lost:
            # Unread and gone, as older events would be; that their number is a guess, nobody can tell.
            self._events.clear()
            self._head += self._lost * QUIET_EVENTS
            self._lost = 0
        for run in ended:
            events = run.all_events()
            self._events.extend(events)
            self._head += len(events)

    def after(self, offset: int, limit: int) -> list[Event] | None:
        """The events behind ``offset``, at most ``limit``; None if some of them are no longer kept."""
        missing = self.head - offset
        if missing <= 0:
            return []
        kept = len(self._events)
        if missing > kept:
            return None
        begin = kept - missing
        if missing <= 64:  # near the end: a deque finds that without walking
            return [self._events[at] for at in range(begin, min(begin + limit, kept))]
        return list(islice(self._events, begin, begin + limit))


class MemoryBus:
    """All topics of this process. ``max_events`` are kept of each."""

    def __init__(self, max_events: int, epoch: str | None = None) -> None:
        self.epoch = epoch or os.urandom(4).hex()
        self._max_events = max_events
        self._topics: dict[str, Topic] = {}

    def topic(self, name: str) -> Topic:
        """The topic of this name; it begins when first asked for."""
        topic = self._topics.get(name)
        if topic is None:
            topic = self._topics[name] = Topic(self._max_events)
        return topic

    def forget(self, name: str) -> None:
        """Keep the topic of this name no longer; who holds it may still read it."""
        self._topics.pop(name, None)

    def topics(self) -> Iterable[str]:
        """The names of all topics there are."""
        return self._topics.keys()


ALL = "all"
"""The topic of every run."""


def topic_of(key: str) -> str:
    """The topic of the runs of one key, by the key's name."""
    return f"key:{key}"
