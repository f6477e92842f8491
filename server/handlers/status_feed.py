"""What one watcher is told: stored events, text and progress, each from the place that it has come to.

A feed is pulled by whoever writes to the watcher; it has no task and does no I/O. Events are never queued:
they wait in the log, a text is a cursor, and progress is looked at when it is due.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import msgspec

from server.bus import Sleeper, Topic
from server.errors import Gone, InvalidRequest
from server.events import (
    DATA_TYPES,
    MEMBER_ENDS,
    SUMMARY_ENDS,
    Event,
    ModelDelta,
    ModelProgress,
    SummaryDelta,
    encode,
)
from server.run_log import Lane, Run, Runs, is_included

TICK_S = 0.04
"""The window in which the deltas of a text are joined into one."""

MAX_TICK_S = 0.25

GROUPS = 8
"""So many groups of watchers take turns within one window."""

PROGRESS_S = 0.5
CHARS_PER_TOKEN = 4
INCLUDES = frozenset({"answer", "drafts", "reasoning", "progress", "channels"})
_TEXTS = frozenset({"answer", "drafts"})
_PATTERN = re.compile(r"[a-z_.*]{1,64}")
_NO_CURSORS: Mapping[str, int] = {}


class Item(msgspec.Struct, frozen=True, gc=False):
    """One event to be sent: its JSON, its type, and the place behind it; None if it is volatile."""

    type: str
    json: bytes
    place: int | None


class Feed(Protocol):
    """A run's feed or a topic's.

    ``place`` is how far it has come, ``done`` is true when nothing will follow. ``pull`` gives at most about
    ``limit`` items; it raises ``Gone`` when the place has fallen out of the log. ``due`` is the time at which
    there is something without anybody's waking. ``close`` has to be called.
    """

    place: int
    done: bool

    @property
    def backlog(self) -> int:
        """Events that came after the feed was opened, and were not pulled yet."""

    def pull(self, now: float, limit: int) -> list[Item]: ...
    def due(self, now: float) -> float | None: ...
    def sleep(self, sleeper: Sleeper) -> None: ...
    def unsleep(self, sleeper: Sleeper) -> None: ...
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


class RunTexts:
    """A watcher's cursors in the texts of one run.

    ``cursors`` says what it has: lane → code points, ``lane:kind`` for other kinds than text. None: it has
    just been given a snapshot, with all texts up to now.
    """

    def __init__(self, run: Run, include: frozenset[str], cursors: Mapping[str, int] | None) -> None:
        self._run = run
        self._include = include
        self._sent: dict[tuple[str, str], int] = {}
        self._progress: dict[str, tuple[float, int]] = {}  # when the next is due, and what was told
        self._tick_s = TICK_S
        self._next_tick = 0.0
        self._promised: float | None = None  # when the next delta was to be sent
        self.wants_text = bool(include & _TEXTS)
        self.wants_progress = "progress" in include
        if self.wants_text:
            run.watch_text()
        if self.wants_progress:
            self._progress = {name: (0.0, sum(lane.chars.values())) for name, lane in run.lanes.items()}
        self._phase = run.text_watchers % GROUPS * TICK_S / GROUPS
        if cursors is None:
            for lane in run.lanes.values():
                if is_included(lane, include):
                    for kind in ("text", "reasoning"):
                        self._sent[lane.name, kind] = lane.chars.get(kind, 0)
        else:
            for name, sent in cursors.items():
                lane_name, _, kind = name.partition(":")
                self._sent[lane_name, kind or "text"] = sent

    def close(self) -> None:
        if self.wants_text:
            self.wants_text = False
            self._run.unwatch_text()

    def pull(self, number: int, only: str | None = None) -> list[Item]:
        """All text that was not sent yet, of all lanes or of one, as one delta a kind."""
        items: list[Item] = []
        if self.wants_text:
            for lane, kind, count in self._unsent(only):
                item = self._delta(lane, kind, count, number)
                if item is not None:
                    items.append(item)
        return items

    def end_of(self, member_id: str, number: int) -> list[Item]:
        """What of a member is to be told before its end, which is told next."""
        self._progress[member_id] = (float("inf"), 0)  # there is no more of it
        return self.pull(number, member_id)

    def pull_ticked(self, now: float) -> list[Item]:
        """The text of this tick, and the progress that is due; nothing between two ticks."""
        items: list[Item] = []
        if self.wants_text and now >= self._next_tick:
            items = self.pull(self._run.head)
            if items:
                # A tick that comes late tells of load: then fewer and larger deltas.
                late = self._promised is not None and now - self._promised > TICK_S / 2
                self._promised = None
                self._tick_s = min(self._tick_s * 2, MAX_TICK_S) if late else TICK_S
                # On a grid, so that watchers of one text are at the same place and share the delta; in
                # groups, so that a thousand of them do not hold up the loop in one go.
                self._next_tick = ((now - self._phase) // self._tick_s + 1) * self._tick_s + self._phase
        if self.wants_progress:
            items += self._pull_progress(now)
        return items

    def due(self, now: float) -> float | None:
        """When there is something, although nobody wakes us."""
        times = []
        if self.wants_text and next(iter(self._unsent(None)), None) is not None:
            self._promised = max(now, self._next_tick)
            times.append(self._promised)
        if self.wants_progress and not self._run.ended:
            times.append(now + PROGRESS_S / 2)
        return min(times, default=None)

    def _unsent(self, only: str | None) -> Iterable[tuple[Lane, str, int]]:
        for lane in list(self._run.lanes.values()):
            if (only is None or lane.name == only) and is_included(lane, self._include):
                for kind, count in lane.chars.items():
                    if kind == "reasoning" and "reasoning" not in self._include:
                        continue
                    if self._sent.get((lane.name, kind), 0) < count:
                        yield lane, kind, count

    def _delta(self, lane: Lane, kind: str, count: int, number: int) -> Item | None:
        sent = self._sent.get((lane.name, kind), 0)
        self._sent[lane.name, kind] = count
        name = "model.delta" if lane.member is not None else "summary.delta"
        shared = lane.shared.get(kind)
        if shared is not None and shared[:3] == (sent, count, number):
            return Item(name, shared[3], None)
        start, text = lane.since(kind, sent)
        if not text:
            return None
        delta = ModelDelta if lane.member is not None else SummaryDelta
        json = encode(self._event(lane, delta(kind, text, start), number))
        lane.shared[kind] = (sent, count, number, json)
        return Item(name, json, None)

    def _pull_progress(self, now: float) -> list[Item]:
        items = []
        for lane in self._run.lanes.values():
            if lane.member is None:
                continue
            chars = sum(lane.chars.values())
            due, told = self._progress.get(lane.name, (0.0, 0))
            if chars != told and now >= due:
                self._progress[lane.name] = (now + PROGRESS_S, chars)
                data = ModelProgress(lane.chars["text"], -(-chars // CHARS_PER_TOKEN))
                items.append(Item(data.type, encode(self._event(lane, data, self._run.head)), None))
        return items

    def _event(self, lane: Lane, data: ModelDelta | SummaryDelta | ModelProgress, number: int) -> Event:
        run, elapsed_ms = self._run, self._run.elapsed_ms
        time = run.created_at + elapsed_ms / 1000
        return Event(number, time, elapsed_ms, run.id, data, lane.stage, lane.member, run.conversation_id)


def _texts_for(run: Run, include: frozenset[str], cursors: Mapping[str, int] | None) -> RunTexts | None:
    if include & _TEXTS or "progress" in include:
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
        self._opened_at = run.head
        self._include = include
        self._types = types
        self._texts = _texts_for(run, include, cursors)

    @property
    def backlog(self) -> int:
        return self.run.head - max(self.place, self._opened_at)

    def pull(self, now: float, limit: int) -> list[Item]:
        items: list[Item] = []
        for event in self.run.events_after(self.place, limit):
            self.place = event.sequence_number
            items += _items_of(event, self._texts, self._types, self._include, self.place)
            if event.data.terminal:
                self.done = True
                return items
        if self._texts is not None and self.place == self.run.head:
            ticked = self._texts.pull_ticked(now)
            items += ticked if self._types is None else [one for one in ticked if one.type in self._types]
        return items

    def due(self, now: float) -> float | None:
        if self.place < self.run.head:
            return now
        return self._texts.due(now) if self._texts is not None and not self.done else None

    def sleep(self, sleeper: Sleeper) -> None:
        self.run.sleepers.add(sleeper)
        if self._texts is not None and self._texts.wants_text:
            self.run.text_naps().add(sleeper)

    def unsleep(self, sleeper: Sleeper) -> None:
        self.run.sleepers.discard(sleeper)
        if self.run.text_sleepers is not None:
            self.run.text_sleepers.discard(sleeper)

    def close(self) -> None:
        if self._texts is not None:
            self._texts.close()


class TopicFeed:
    """The events of a topic behind ``place``, its offset; of one conversation if given. It has no end."""

    def __init__(
        self,
        topic: Topic,
        runs: Runs,
        place: int,
        *,
        include: frozenset[str],
        types: frozenset[str] | None,
        under_way: Iterable[Run] = (),
        conversation_id: str | None = None,
    ) -> None:
        self.place = place
        self.done = False
        self._topic = topic
        self._runs = runs
        self._opened_at = topic.head
        self._include = include
        self._types = types
        self._conversation_id = conversation_id
        self._texts: dict[str, RunTexts] = {}
        for run in under_way:
            self._attach(run, None)

    @property
    def backlog(self) -> int:
        return self._topic.head - max(self.place, self._opened_at)

    def pull(self, now: float, limit: int) -> list[Item]:
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
                ticked = texts.pull_ticked(now)
                items += ticked if self._types is None else [one for one in ticked if one.type in self._types]
        return items

    def due(self, now: float) -> float | None:
        if self.place < self._topic.head:
            return now
        times = [due for texts in self._texts.values() if (due := texts.due(now)) is not None]
        return min(times, default=None)

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

    def close(self) -> None:
        for texts in self._texts.values():
            texts.close()
        self._texts.clear()

    def _texts_of(self, event: Event) -> RunTexts | None:
        if not self._include:
            return None
        texts = self._texts.get(event.run_id)
        if texts is None and (run := self._runs.find(event.run_id)) is not None:
            texts = self._attach(run, _NO_CURSORS)
        return texts

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
