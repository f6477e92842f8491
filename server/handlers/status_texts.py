"""The texts and the progress of one run, as one watcher is told them: each from where it has come to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from server.events import Event, ModelDelta, ModelProgress, SummaryDelta, encode
from server.run_log import Lane, Run, is_included

TICK_S = 0.04
"""The window in which the deltas of a text are joined into one."""

MAX_TICK_S = 0.25

GROUPS = 8
"""So many groups of watchers take turns within one window."""

PROGRESS_S = 0.5
CHARS_PER_TOKEN = 4
TEXTS = frozenset({"answer", "drafts"})
"""What of ``include`` opens texts."""


class Item(msgspec.Struct, frozen=True, gc=False):
    """One event to be sent: its JSON, its type, and the place behind it; None if it is volatile."""

    type: str
    json: bytes
    place: int | None


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
        self.wants_text = bool(include & TEXTS)
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

    def fork(self) -> RunTexts:
        """One more, at the same place; to be closed as well."""
        twin = RunTexts(self._run, self._include, {})
        twin.move_to(self)
        return twin

    def move_to(self, other: RunTexts) -> None:
        """Take the place of ``other``, which is of the same run."""
        self._sent = dict(other._sent)
        self._progress = dict(other._progress)
        self._tick_s, self._next_tick = other._tick_s, other._next_tick

    def is_at(self, other: RunTexts) -> bool:
        """Would both be told the same text from now on? They are of the same run, and include the same."""
        return self._told() == other._told()

    def _told(self) -> dict[tuple[str, str], int]:
        hidden = "" if "reasoning" in self._include else "reasoning"
        return {place: count for place, count in self._sent.items() if count and place[1] != hidden}

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

    def pull_ticked(self, now: float, at_once: bool = False) -> list[Item]:
        """The text of this tick, and the progress that is due; between two ticks nothing, or ``at_once``."""
        items: list[Item] = []
        if self.wants_text and (at_once or now >= self._next_tick):
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

    def thinned(self, held_s: float) -> int:
        """How many reports of progress were passed over in ``held_s``; the latest is still to come."""
        passed = int(held_s / PROGRESS_S) - 1
        if not self.wants_progress or passed <= 0:
            return 0
        return passed * sum(
            lane.member is not None and sum(lane.chars.values()) != self._progress.get(lane.name, (0.0, 0))[1]
            for lane in self._run.lanes.values()
        )

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
