"""Topics over many runs: what happened, in the order in which it was told here.

A topic is read, never pushed: each reader comes with the offset that it has, and a reader with nothing to
read lays itself to sleep. The bus in memory serves one process; an epoch is its lifetime, and an offset of
another epoch is worth nothing.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable
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


class Topic:
    """One topic: its newest events, numbered from 1 by ``head``. At most ``limit`` are kept."""

    __slots__ = ("_add", "_events", "head", "sleepers")

    def __init__(self, limit: int) -> None:
        self._events: deque[Event] = deque(maxlen=limit)
        self._add = self._events.append
        self.head = 0
        self.sleepers = Sleepers()

    @property
    def first(self) -> int:
        """The offset of the oldest event that is kept; ``head`` + 1 if there is none."""
        return self.head - len(self._events) + 1

    def append(self, event: Event) -> None:
        """Add an event and wake who sleeps. Never waits."""
        self._add(event)
        self.head += 1
        if self.sleepers.asleep:
            self.sleepers.wake()

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

    def topics(self) -> Iterable[str]:
        """The names of all topics there are."""
        return self._topics.keys()


ALL = "all"
"""The topic of every run."""


def topic_of(key: str) -> str:
    """The topic of the runs of one key, by the key's name."""
    return f"key:{key}"
