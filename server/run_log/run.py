"""One run: its numbered events, its texts, and the one way to end it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, NamedTuple

from server import errors
from server.bus import Sleepers, Topic
from server.deltas import Usage
from server.events import Data, Event, MemberRef, RunControl, RunCreated, RunDegraded, StageRef
from server.run_log import ending
from server.run_log.lane import Lane, tell_text
from server.run_log.scope import Nap, Scope
from server.run_log.story import MAX_QUIET_EVENTS, Steered, Story
from server.run_view import RunView

if TYPE_CHECKING:
    from server.run_log.runs import Runs

log = logging.getLogger("antiphon.runs")


class _Owner(NamedTuple):
    """Who a run belongs to, as ``Runs`` asks it."""

    name: str
    admin: bool = False


class Run:
    """One client request being carried out. Made by ``Runs.start``.

    ``key`` is its owner's name; ``created_at`` Unix seconds; ``usage`` and ``level`` what the answer tells;
    ``spent`` what of the usage was used now (None: all, for no answer was a kept one); ``warnings`` what of
    the request was left out whichever model is asked; ``monotonic`` gives seconds that never fall.
    One writer tells events; any number of readers read from their own place, and none is ever waited for.
    """

    __slots__ = (
        "_accepted",
        "_events",
        "_head",
        "_lanes",
        "_runs",
        "_sleepers",
        "_story",
        "_topics",
        "_view",
        "background",
        "cancelled_by",
        "carried_out_in",
        "conversation_id",
        "created_at",
        "ended",
        "ended_at",
        "id",
        "key",
        "level",
        "model",
        "monotonic",
        "response_id",
        "spent",
        "status",
        "steered",
        "strategy",
        "text_sleepers",
        "text_watchers",
        "usage",
        "warnings",
    )

    def __init__(self, runs: Runs, id: str, model: str, key: str, topics: tuple[Topic, ...]) -> None:
        self.id = id
        self.response_id = "chatcmpl-" + id[4:]
        self.model = model
        self.key = key
        self.strategy = ""
        self.status = "queued"
        self.level = "none"
        self.usage: Usage | None = None
        self.spent: Usage | None = None
        self.warnings: tuple[str, ...] = ()
        self.created_at = round(runs.wall(), 3)
        self.background = False  # it survives its asker
        self.ended = False
        self.ended_at = 0.0  # monotonic
        self.cancelled_by: str | None = None
        self.carried_out_in: Scope | None = None
        self.conversation_id: str | None = None
        self.steered: Steered | None = None  # set by a combination while it carries out the run
        self._head = 0
        self._sleepers: Sleepers | None = None
        self._story: Story | None = None
        self.text_sleepers: Sleepers | None = None  # there from the first lane on
        self.monotonic = runs.monotonic
        self._accepted = runs.monotonic()
        self._events: list[Event] = []  # of a few mostly: a deque would take five times the room
        self._lanes: dict[str, Lane] | None = None
        self._runs = runs
        self.text_watchers = 0
        self._topics = topics
        self._view: RunView | None = None

    def __repr__(self) -> str:
        return f"<Run {self.id} {self.status} head={self._head}>"

    @property
    def elapsed_ms(self) -> int:
        """Milliseconds since the run was accepted."""
        return int((self.monotonic() - self._accepted) * 1000)

    def is_cancelled(self) -> bool:
        """Has somebody asked for its end?"""
        return self.cancelled_by is not None

    @property
    def head(self) -> int:
        """The number of the newest event; 0 if there is none."""
        if self._story is not None:
            self.speak()
        return self._head

    @property
    def first(self) -> int:
        """The number of the oldest event that is kept."""
        return self.head - len(self._events) + 1

    @property
    def sleepers(self) -> Sleepers:
        """Where to sleep until there is another event; whoever does has the run speak."""
        if self._story is not None:
            self.speak()
        if self._sleepers is None:
            self._sleepers = Sleepers()
        return self._sleepers

    @property
    def has_lanes(self) -> bool:
        """Has anybody asked for a text of this run?"""
        return bool(self._lanes)

    @property
    def lanes(self) -> dict[str, Lane]:
        """The texts of this run, by name."""
        if self._story is not None:
            self.speak()
        if self._lanes is None:
            self._lanes = {}
        return self._lanes

    def tell(self, data: Data, *, stage: StageRef | None = None, member: MemberRef | None = None) -> None:
        """Add an event and wake the readers. Never waits; encodes nothing.

        A run's end is its last event: what is told after it is a bug, is logged and dropped.
        """
        if self.ended:
            log.error("%s was told of %s after its end", self.id, data.type)
            return
        if self._story is not None:
            self.speak()
        event = self._add(int((self.monotonic() - self._accepted) * 1000), data, stage, member)
        events = self._events
        if len(events) > self._runs.max_events:
            if self._view is None or self._view.head < events[0].sequence_number:
                self.view()
            del events[0]
        if data.status is not None:
            self.status = data.status
            if data.terminal:
                self.ended = True
                self._runs.run_ended(self)
        else:
            kind = type(data)
            if kind is RunCreated:
                self.strategy = data.strategy  # type: ignore[attr-defined]
            elif kind is RunDegraded:
                self.level = data.level  # type: ignore[attr-defined]
        for topic in self._topics:
            topic.append(event)
        if self._sleepers is not None and self._sleepers.asleep:
            self._sleepers.wake()
        if self.text_sleepers is not None and self.text_sleepers.asleep:
            self.text_sleepers.wake()

    def _add(self, elapsed_ms: int, data: Data, stage: StageRef | None, member: MemberRef | None) -> Event:
        self._head = number = self._head + 1
        time = self.created_at + elapsed_ms / 1000
        event = Event(number, time, elapsed_ms, self.id, data, stage, member, self.conversation_id)
        self._events.append(event)
        return event

    # Being quiet

    def keep_quiet(self, story: Story) -> bool:
        """``story`` makes the events of this run when somebody reads them; False if somebody does already.

        To be called before the first event; from then on nothing is told until somebody reads, or ``tell``.
        """
        if self._head or self._sleepers is not None or self.text_watchers:
            return False
        if self._runs.keep_text or self._runs.max_events < MAX_QUIET_EVENTS:
            return False
        for topic in self._topics:
            if topic.sleepers.asleep:
                return False
        for topic in self._topics:
            topic.quiet_began(self)
        self._story = story
        return True

    def end_quietly(self, story: Story, status: str) -> None:
        """The run, quiet to its end, has ended; ``story`` makes all of its events, the end among them."""
        self._story = story
        self.status = status
        self.ended = True
        for topic in self._topics:
            topic.quiet_ended(self)
        self._runs.run_ended(self)

    def speak(self) -> None:
        """Make the events of a quiet run; of one under way, later events are told as they happen."""
        if (story := self._story) is None:
            return
        self._story = None
        for told in story.tell(self):
            self._add(*told)
        if not self.ended:
            for topic in self._topics:
                topic.quiet_speaks(self, self._events)

    def all_events(self) -> list[Event]:
        """The stored events of an ended run."""
        self.speak()
        return self._events

    # Its texts

    def lane(
        self,
        name: str,
        *,
        stage: StageRef | None = None,
        member: MemberRef | None = None,
        answer: bool | None = None,
    ) -> Lane:
        """The text of member ``name``, or of ``summary``. What is given is set, on an old lane too."""
        lanes = self.lanes
        lane = lanes.get(name)
        if lane is None:
            lane = Lane(name)
            self.adopt(lane)
        if stage is not None:
            lane.stage = stage
        if member is not None:
            lane.member = member
        if answer is not None:
            lane.answer = answer
        return lane

    def adopt(self, lane: Lane) -> None:
        """Make ``lane``, which may have counted already, one of this run's."""
        self.lanes[lane.name] = lane
        lane.sleepers = self.text_naps()
        if self._runs.keep_text:
            lane.keep()
        elif self.text_watchers:
            lane.begin()

    def text_naps(self) -> Sleepers:
        """Where to sleep until there is more text."""
        if self.text_sleepers is None:
            self.text_sleepers = Sleepers()
        return self.text_sleepers

    def watch_text(self) -> None:
        """A text watcher comes: from now on every text is kept. To be paired with ``unwatch_text``."""
        self.text_watchers += 1
        if self.text_watchers == 1:
            for lane in self.lanes.values():
                lane.begin()

    def unwatch_text(self) -> None:
        """A text watcher leaves; with the last one go the texts that nobody else needs."""
        self.text_watchers -= 1
        if not self.text_watchers:
            for lane in self.lanes.values():
                lane.end()

    def child(self, model: str) -> Run:
        """A run of the same key, carried out for this one."""
        return self._runs.start(model=model, principal=_Owner(self.key), conversation_id=self.conversation_id)

    # Ending

    def scope(self, task: asyncio.Task[Any] | None = None) -> Scope:
        """To be entered by the task that carries out the run, around all of it; once. See ``Scope``."""
        return Scope(self, task)

    def cancel(self, by: str) -> bool:
        """End the run for ``client``, ``watcher`` or ``shutdown``. False if that was done, or is over."""
        if self.ended or self.cancelled_by is not None:
            return False
        self.cancelled_by = by
        if self.carried_out_in is not None:
            self.carried_out_in.interrupt()
        return True

    def control(self, verb: str, by: str, target: str | None = None) -> None:
        """Record a watcher's command that is carried out; ``by`` is the name of its key, or ``admin``."""
        if not self.ended:
            self.tell(RunControl(verb, by=by) if target is None else RunControl(verb, target, by))

    def close_open(self, reason: str) -> None:
        """Tell the end of every stage and call that is still open, as cancelled for ``reason``."""
        ending.close_open(self, reason)

    def close(self, error: BaseException | None = None) -> None:
        """The safety net: a run whose writer went without a word ends here, by ``error`` if there is one."""
        if not self.ended:
            ending.close(self, error)

    # Reading

    def events_after(self, number: int, limit: int | None = None) -> list[Event]:
        """The stored events behind ``number``, oldest first, at most ``limit``.

        Raises ``Gone`` if some of them have fallen out of the log.
        """
        missing = self.head - number
        if missing <= 0:
            return []
        kept = len(self._events)
        if missing > kept:
            raise errors.Gone(
                f"Events up to {self.first - 1} are no longer kept; take a snapshot, or start after that.",
                param="starting_after",
                details={"oldest": self.first},
            )
        begin = kept - missing
        count = missing if limit is None else min(limit, missing)
        return self._events[begin : begin + count]

    async def after(self, number: int) -> AsyncIterator[Event]:
        """The stored events behind ``number``, as they come, up to and with the last one.

        Raises ``Gone`` when the reader's place has fallen out of the log.
        """
        while True:
            for event in self.events_after(number, 256):
                number = event.sequence_number
                yield event
                if event.data.terminal:
                    return
            if number >= self.head:
                if self.ended:
                    return
                await self.news()

    async def news(self) -> None:
        """Return after the next event; at once if the run has ended."""
        if self.ended:
            return
        nap = Nap()
        self.sleepers.add(nap)
        try:
            await nap.woken
        finally:
            self.sleepers.discard(nap)

    async def wait_ended(self) -> None:
        """Return when the run has ended."""
        while not self.ended:
            await self.news()

    def view(self) -> RunView:
        """The fold of all events so far. It is the run's own: only to be looked at."""
        view = self._view
        if view is None:
            view = self._view = RunView(self.id)
        for event in self.events_after(view.head):
            view.apply(event)
        return view

    def snapshot(self, include: frozenset[str] = frozenset()) -> dict[str, Any]:
        """What ``GET /v1/runs/{id}`` answers. ``include`` opens texts: answer, drafts, reasoning."""
        told = self.view().snapshot()
        for member in told["members"]:
            tell_text(member, self.lanes.get(member["id"]), include)
        if told["summary"] is not None:
            tell_text(told["summary"], self.lanes.get("summary"), include)
        head = {"object": told.pop("object"), "id": told.pop("id"), "epoch": self._runs.bus.epoch}
        return {**head, **told, "expires_at": self._runs.expires_at(self)}
