"""One run: its numbered events, its texts, and the one way to end it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from server import errors
from server.bus import Sleepers, Topic
from server.deltas import Usage
from server.events import (
    Data,
    Event,
    MemberRef,
    RunControl,
    RunCreated,
    RunDegraded,
    StageRef,
)
from server.run_log import ending
from server.run_log.lane import Lane
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

    ``key`` is its owner's name; ``created_at`` Unix seconds; ``usage`` and ``level`` what the answer
    tells; ``monotonic`` gives seconds that never fall.
    One writer tells events; any number of readers read from their own place, and none is ever waited for.
    """

    __slots__ = (
        "_accepted",
        "_events",
        "_interrupted",
        "_lanes",
        "_runs",
        "_task",
        "_topics",
        "_view",
        "cancelled_by",
        "created_at",
        "ended",
        "ended_at",
        "head",
        "id",
        "key",
        "level",
        "model",
        "monotonic",
        "response_id",
        "sleepers",
        "status",
        "strategy",
        "text_sleepers",
        "text_watchers",
        "usage",
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
        self.created_at = round(runs.wall(), 3)
        self.ended = False
        self.ended_at = 0.0  # monotonic
        self.cancelled_by: str | None = None
        self.head = 0
        self.sleepers = Sleepers()
        self.text_sleepers: Sleepers | None = None  # there from the first lane on
        self.monotonic = runs.monotonic
        self._accepted = runs.monotonic()
        self._events: list[Event] = []  # of a few mostly: a deque would take five times the room
        self._lanes: dict[str, Lane] | None = None
        self._runs = runs
        self._task: asyncio.Task[Any] | None = None
        self.text_watchers = 0
        self._interrupted = False
        self._topics = topics
        self._view: RunView | None = None

    def __repr__(self) -> str:
        return f"<Run {self.id} {self.status} head={self.head}>"

    @property
    def elapsed_ms(self) -> int:
        """Milliseconds since the run was accepted."""
        return int((self.monotonic() - self._accepted) * 1000)

    def is_cancelled(self) -> bool:
        """Has somebody asked for its end?"""
        return self.cancelled_by is not None

    @property
    def first(self) -> int:
        """The number of the oldest event that is kept."""
        return self.head - len(self._events) + 1

    @property
    def has_lanes(self) -> bool:
        """Has anybody asked for a text of this run?"""
        return bool(self._lanes)

    @property
    def lanes(self) -> dict[str, Lane]:
        """The texts of this run, by name."""
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
        elapsed_ms = int((self.monotonic() - self._accepted) * 1000)
        self.head = number = self.head + 1
        event = Event(number, self.created_at + elapsed_ms / 1000, elapsed_ms, self.id, data, stage, member)
        events = self._events
        events.append(event)
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
        if self.sleepers.asleep:
            self.sleepers.wake()
        if self.text_sleepers is not None and self.text_sleepers.asleep:
            self.text_sleepers.wake()

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
            lane = lanes[name] = Lane(name, self.text_naps())
            if self._runs.keep_text:
                lane.keep()
            elif self.text_watchers:
                lane.begin()
        if stage is not None:
            lane.stage = stage
        if member is not None:
            lane.member = member
        if answer is not None:
            lane.answer = answer
        return lane

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
        return self._runs.start(model=model, principal=_Owner(self.key))

    # Ending

    @contextmanager
    def scope(self) -> Iterator[Run]:
        """Entered by the task that carries out the run, around all of it; once.

        ``cancel`` then cancels what that task awaits, and the scope turns this one cancellation into
        ``errors.RunCancelled``; any other passes. Whatever leaves the scope, the run has ended: if nobody
        told how, the scope does.
        """
        task = asyncio.current_task()
        assert task is not None
        if self.is_cancelled():
            self.close()
            raise self._cancellation()
        before = task.cancelling()
        self._task = task
        error: BaseException | None = None
        try:
            yield self
        except BaseException as caught:
            error = caught
            self._task = None
            if not self._interrupted:
                raise
            mine = task.uncancel() <= before
            if isinstance(caught, asyncio.CancelledError) and mine:
                raise self._cancellation() from None
            raise
        else:
            if self._interrupted:  # too late: the work was done before it came to an await
                task.uncancel()
        finally:
            self._task = None
            self.close(error)

    def cancel(self, by: str) -> bool:
        """End the run for ``client``, ``watcher`` or ``shutdown``. False if that was done, or is over."""
        if self.ended or self.cancelled_by is not None:
            return False
        self.cancelled_by = by
        if self._task is not None:
            if self._task is _current_task():
                # Cancelled from within, a task that then leaves the scope would be hit behind it.
                self._task.get_loop().call_soon(self._interrupt)
            else:
                self._interrupt()
        return True

    def _interrupt(self) -> None:
        if self._task is not None:
            self._interrupted = True
            self._task.cancel()

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

    def _cancellation(self) -> errors.ServerError:
        if self.cancelled_by == "shutdown":
            return errors.ShuttingDown("The server is shutting down and ended the run; send it again.")
        return errors.RunCancelled("The run was cancelled; send the request again to start a new one.")

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
            self._tell_text(member, self.lanes.get(member["id"]), include)
        if told["summary"] is not None:
            self._tell_text(told["summary"], self.lanes.get("summary"), include)
        expires_at = self._runs.expires_at(self)
        head = {"object": told.pop("object"), "id": told.pop("id"), "epoch": self._runs.bus.epoch}
        return {**head, **told, "expires_at": expires_at}

    def _tell_text(self, told: dict[str, Any], lane: Lane | None, include: frozenset[str]) -> None:
        if lane is None:
            return
        told["chars"] = max(told["chars"], lane.chars["text"])
        if not is_included(lane, include):
            return
        told["text_start"], told["text"] = lane.since("text", 0)
        if "reasoning" in include and "reasoning" in lane.chars:
            told["reasoning_start"], told["reasoning"] = lane.since("reasoning", 0)


def _current_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None  # called from outside of the event loop


class Nap:
    """A sleeper that is one task."""

    __slots__ = ("woken",)

    def __init__(self) -> None:
        self.woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def wake(self) -> None:
        if not self.woken.done():
            self.woken.set_result(None)


def is_included(lane: Lane, include: frozenset[str]) -> bool:
    """Does ``include`` open this lane's text?"""
    return (lane.answer and "answer" in include) or (lane.name != "summary" and "drafts" in include)
