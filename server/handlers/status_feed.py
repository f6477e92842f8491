"""What one watcher is told: stored events, text and progress, each from the place that it has come to.

A feed is pulled by whoever writes to the watcher; it has no task and does no I/O. Events are never queued:
they wait in the log, a text is a cursor, and progress is looked at when it is due.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Mapping
from typing import Any, Protocol

from server.bus import Sleeper, Topic
from server.errors import Gone, InvalidRequest
from server.events import (
    DATA_TYPES,
    MEMBER_ENDS,
    SUMMARY_ENDS,
    Event,
    encode,
)
from server.handlers.status_texts import TEXTS, Item, RunTexts
from server.run_log import Run, Runs

INCLUDES = frozenset({"answer", "drafts", "reasoning", "progress", "channels"})
_PATTERN = re.compile(r"[a-z_.*]{1,64}")
_NO_CURSORS: Mapping[str, int] = {}


class Feed(Protocol):
    """A run's feed or a topic's.

    ``place`` is how far it has come, ``done`` is true when nothing will follow. ``pull`` gives at most about
    ``limit`` items, of text what its rhythm allows or all ``at_once``; it raises ``Gone`` when the place has
    fallen out of the log. ``due`` is the time at which there is something without anybody's waking.
    ``thinned``: so many reports of progress were passed over while nothing was pulled for ``held_s``.
    ``close`` has to be called.

    ``crowd`` is the same for all feeds that tell the same; None if a feed has a rhythm of its own. Of these
    ``is_at`` says whether both will tell the same from now on. ``fork`` makes one more at the same place.
    """

    place: int
    done: bool
    crowd: Hashable

    @property
    def backlog(self) -> int:
        """Events that came after the feed was opened, and were not pulled yet."""

    def pull(self, now: float, limit: int, at_once: bool = False) -> list[Item]: ...
    def due(self, now: float) -> float | None: ...
    def thinned(self, held_s: float) -> int: ...
    def sleep(self, sleeper: Sleeper) -> None: ...
    def unsleep(self, sleeper: Sleeper) -> None: ...
    def fork(self) -> Feed: ...
    def is_at(self, other: Feed) -> bool: ...
    def close(self) -> None: ...


def chosen_types(patterns: Iterable[str] | None) -> frozenset[str] | None:
    """The event types that names and globs choose; None: all. Raises ``InvalidRequest``."""
    if patterns is None:
        return None
    chosen: set[str] = set()
    for pattern in patterns:
        if not _PATTERN.fullmatch(pattern):
            raise InvalidRequest("types are names of events, or globs such as model.*", param="types")
        matcher = re.compile(".*".join(re.escape(part) for part in re.split(r"\*+", pattern)))
        found = [name for name in DATA_TYPES if matcher.fullmatch(name)]
        if not found:
            raise InvalidRequest(f"No event type is called {pattern}.", param="types")
        chosen.update(found)
    return frozenset(chosen)


def chosen_includes(names: Iterable[str] | None, *, admin: bool) -> frozenset[str]:
    """What is included. Raises ``InvalidRequest``; ``channels`` is an admin's."""
    chosen = frozenset(names or ())
    if unknown := sorted(chosen - INCLUDES):
        raise InvalidRequest(f"include does not know {unknown[0][:40]!r}.", param="include")
    if "channels" in chosen and not admin:
        raise InvalidRequest("Only an admin's key may include channels.", param="include", code="not_allowed")
    return chosen


def _texts_for(run: Run, include: frozenset[str], cursors: Mapping[str, int] | None) -> RunTexts | None:
    if include & TEXTS or "progress" in include:
        return RunTexts(run, include, cursors)
    return None


def _items_of(
    event: Event, texts: RunTexts | None, types: frozenset[str] | None, include: frozenset[str], place: int
) -> list[Item]:
    """The event, behind the rest of the text that it ends, as far as the types let them through."""
    kind = event.type
    items: list[Item] = []
    if texts is not None:
        if kind in MEMBER_ENDS and event.member is not None:
            items = texts.end_of(event.member.id, event.sequence_number - 1)
        elif kind in SUMMARY_ENDS:
            items = texts.pull(event.sequence_number - 1, "summary")
        elif event.data.terminal:
            items = texts.pull(event.sequence_number - 1)
    items.append(Item(kind, encode(event, include), place))
    return items if types is None else [item for item in items if item.type in types]


class RunFeed:
    """One run's events behind ``place``, its numbers, up to its end."""

    def __init__(
        self,
        run: Run,
        place: int,
        *,
        include: frozenset[str],
        types: frozenset[str] | None,
        cursors: Mapping[str, int] | None = _NO_CURSORS,
    ) -> None:
        self.run = run
        self.place = place
        self.done = run.ended and place >= run.head
        self.crowd: Hashable = None if "progress" in include else (run, include, types)
        self._opened_at = run.head
        self._include = include
        self._types = types
        self._texts = _texts_for(run, include, cursors)

    @property
    def backlog(self) -> int:
        return self.run.head - max(self.place, self._opened_at)

    def pull(self, now: float, limit: int, at_once: bool = False) -> list[Item]:
        items: list[Item] = []
        for event in self.run.events_after(self.place, limit):
            self.place = event.sequence_number
            items += _items_of(event, self._texts, self._types, self._include, self.place)
            if event.data.terminal:
                self.done = True
                return items
        if self._texts is not None and self.place == self.run.head:
            ticked = self._texts.pull_ticked(now, at_once)
            items += ticked if self._types is None else [one for one in ticked if one.type in self._types]
        return items

    def due(self, now: float) -> float | None:
        if self.place < self.run.head:
            return now
        return self._texts.due(now) if self._texts is not None and not self.done else None

    def thinned(self, held_s: float) -> int:
        return 0 if self._texts is None else self._texts.thinned(held_s)

    def sleep(self, sleeper: Sleeper) -> None:
        self.run.sleepers.add(sleeper)
        if self._texts is not None and self._texts.wants_text:
            self.run.text_naps().add(sleeper)

    def unsleep(self, sleeper: Sleeper) -> None:
        self.run.sleepers.discard(sleeper)
        if self.run.text_sleepers is not None:
            self.run.text_sleepers.discard(sleeper)

    def fork(self) -> RunFeed:
        twin = RunFeed(self.run, self.place, include=self._include, types=self._types)
        twin.done, twin._opened_at = self.done, self._opened_at
        if self._texts is not None and twin._texts is not None:
            twin._texts.move_to(self._texts)
        return twin

    def is_at(self, other: Feed) -> bool:
        if not isinstance(other, RunFeed) or self.place != other.place:
            return False
        mine, others = self._texts, other._texts
        return mine is None or others is None or mine.is_at(others)

    def close(self) -> None:
        if self._texts is not None:
            self._texts.close()


class TopicFeed:
    """The events of a topic behind ``place``, its offset; of one conversation if given. It has no end.

    ``cursors`` are a watcher's who comes back: as ``RunTexts`` has them, behind the run's id and a slash.
    None: it has just been given a snapshot of the runs ``under_way``.
    """

    def __init__(
        self,
        topic: Topic,
        runs: Runs,
        place: int,
        *,
        include: frozenset[str],
        types: frozenset[str] | None,
        under_way: Iterable[Run] = (),
        cursors: Mapping[str, int] | None = None,
        conversation_id: str | None = None,
    ) -> None:
        self.place = place
        self.done = False
        self.crowd: Hashable = None if "progress" in include else (topic, include, types, conversation_id)
        self._topic = topic
        self._runs = runs
        self._opened_at = topic.head
        self._include = include
        self._types = types
        self._conversation_id = conversation_id
        self._texts: dict[str, RunTexts] = {}
        self._cursors = cursors or _NO_CURSORS
        for run in under_way:
            self._attach(run, None if cursors is None else self._cursors_in(run))

    @property
    def backlog(self) -> int:
        return self._topic.head - max(self.place, self._opened_at)

    def pull(self, now: float, limit: int, at_once: bool = False) -> list[Item]:
        events = self._topic.after(self.place, limit)
        if events is None:
            raise Gone("This place is no longer kept.", details={"oldest": self._topic.first})
        items: list[Item] = []
        for event in events:
            self.place += 1
            if self._conversation_id is not None and event.conversation_id != self._conversation_id:
                continue
            texts = self._texts_of(event)
            items += _items_of(event, texts, self._types, self._include, self.place)
            if event.data.terminal and texts is not None:
                texts.close()
                del self._texts[event.run_id]
        if self.place == self._topic.head:
            for texts in self._texts.values():
                ticked = texts.pull_ticked(now, at_once)
                items += ticked if self._types is None else [one for one in ticked if one.type in self._types]
        return items

    def due(self, now: float) -> float | None:
        if self.place < self._topic.head:
            return now
        times = [due for texts in self._texts.values() if (due := texts.due(now)) is not None]
        return min(times, default=None)

    def thinned(self, held_s: float) -> int:
        return sum(texts.thinned(held_s) for texts in self._texts.values())

    def sleep(self, sleeper: Sleeper) -> None:
        self._topic.sleepers.add(sleeper)
        for run_id, texts in self._texts.items():
            if texts.wants_text and (run := self._runs.find(run_id)) is not None:
                run.text_naps().add(sleeper)

    def unsleep(self, sleeper: Sleeper) -> None:
        self._topic.sleepers.discard(sleeper)
        for run_id in self._texts:
            if (run := self._runs.find(run_id)) is not None and run.text_sleepers is not None:
                run.text_sleepers.discard(sleeper)

    def fork(self) -> TopicFeed:
        twin = TopicFeed(
            self._topic,
            self._runs,
            self.place,
            include=self._include,
            types=self._types,
            conversation_id=self._conversation_id,
        )
        twin._opened_at = self._opened_at
        twin._texts = {run_id: texts.fork() for run_id, texts in self._texts.items()}
        return twin

    def is_at(self, other: Feed) -> bool:
        return (
            isinstance(other, TopicFeed)
            and self.place == other.place
            and self._texts.keys() == other._texts.keys()
            and all(texts.is_at(other._texts[run_id]) for run_id, texts in self._texts.items())
        )

    def close(self) -> None:
        for texts in self._texts.values():
            texts.close()
        self._texts.clear()

    def _texts_of(self, event: Event) -> RunTexts | None:
        if not self._include:
            return None
        texts = self._texts.get(event.run_id)
        if texts is None and (run := self._runs.find(event.run_id)) is not None:
            texts = self._attach(run, self._cursors_in(run))
        return texts

    def _cursors_in(self, run: Run) -> Mapping[str, int]:
        """What the watcher had of a run's texts when it came."""
        if not self._cursors:
            return _NO_CURSORS
        head = f"{run.id}/"
        return {name[len(head) :]: sent for name, sent in self._cursors.items() if name.startswith(head)}

    def _attach(self, run: Run, cursors: Mapping[str, int] | None) -> RunTexts | None:
        texts = _texts_for(run, self._include, cursors)
        if texts is not None:
            self._texts[run.id] = texts
        return texts


def conversation_in(topic: str) -> str | None:
    """The id in ``conversation:<id>``; None if it is another topic."""
    kind, _, name = topic.partition(":")
    return name if kind == "conversation" and name else None


def topic_snapshot(runs: Iterable[Run], include: frozenset[str]) -> dict[str, Any]:
    """The runs under way, as a topic's snapshot tells them."""
    return {"object": "list", "data": [run.snapshot(include) for run in runs]}
