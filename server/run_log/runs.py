"""All runs: those under way, and those that ended not long ago."""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Protocol

from server.bus import ALL, MemoryBus, Topic, topic_of
from server.errors import Conflict, InvalidRequest, NotFound
from server.events import timestamp
from server.ids import RandomIds
from server.run_log.run import Run
from server.settings import Runs as RunsSettings
from server.spark.callers import CALLER

MAX_KEPT_TEXT = 64 * 1024 * 1024
"""Code points of text that all ended runs together may hold; the oldest lose theirs first."""

MAX_KEYS = 10_000
"""Keys whose runs are told; beyond it, callers that have no key are forgotten, the longest known first."""

_RUN_ID = re.compile(r"run_[0-9a-f]{32}")


class Viewer(Protocol):
    """Who asks: the name of a key, and whether it may see everything."""

    @property
    def name(self) -> str: ...
    @property
    def admin(self) -> bool: ...


_random_id = RandomIds(16)


def new_run_id() -> str:
    """``run_`` and 128 random bits."""
    return "run_" + _random_id()


def _not_found() -> NotFound:
    return NotFound("There is no run of this id, or it is no longer kept.", code="run_not_found")


class Runs:
    """Starts runs, finds them, and forgets them ``keep_s`` after their end.

    ``wall`` gives Unix seconds, ``monotonic`` seconds that never fall. Nothing here has a task or a timer:
    what is out of date goes when somebody starts, or asks for, a run.
    """

    def __init__(
        self,
        settings: RunsSettings,
        *,
        bus: MemoryBus | None = None,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.bus = bus or MemoryBus(settings.max_topic_events)
        self.wall = wall
        self.monotonic = monotonic
        self.max_events = settings.max_events
        self.keep_text = settings.keep_text
        self.in_progress = 0
        self._keep_s = settings.keep_s
        self._max_runs = settings.max_runs
        self._runs: dict[str, Run] = {}  # oldest first
        self._ended: deque[Run] = deque()  # in the order of their ends
        self._with_text: deque[tuple[Run, int]] = deque()
        self._text = 0
        self._responses: dict[str, bytes] = {}  # of runs in the background, by id
        self._expected: dict[str, set[Callable[[Run], None]]] = {}
        self._topics: dict[str, tuple[Topic, Topic]] = {}  # by key: where its runs are told

    def __len__(self) -> int:
        return len(self._runs)

    def start(
        self,
        *,
        model: str,
        principal: Viewer,
        run_id: str | None = None,
        conversation_id: str | None = None,
    ) -> Run:
        """A new run, not told of yet: its first event is the writer's ``run.created``.

        ``run_id`` is a client's proposal. Raises ``InvalidRequest`` if it is none, ``Conflict`` if it exists.
        """
        if self._ended:
            self._sweep()
        if run_id is None:
            run_id = new_run_id()
        elif not _RUN_ID.fullmatch(run_id):
            raise InvalidRequest("x-run-id must be run_ and 32 hexadecimal digits.", param="x-run-id")
        elif run_id in self._runs:
            raise Conflict("There is a run of this id; propose a fresh one.", param="x-run-id")
        key = principal.name
        if (topics := self._topics.get(key)) is None:
            if len(self._topics) >= MAX_KEYS:
                self._forget_a_caller()
            topics = self._topics[key] = (self.bus.topic(ALL), self.bus.topic(topic_of(key)))
        run = self._runs[run_id] = Run(self, run_id, model, key, topics)
        run.conversation_id = conversation_id
        self.in_progress += 1
        if len(self._runs) > self._max_runs and self._ended:
            self._forget(self._ended.popleft())
        if self._expected:
            for begun in list(self._expected.get(run_id, ())):
                begun(run)
        return run

    def _forget_a_caller(self) -> None:
        """Forget the topic of the first caller with credentials of its own: names of these cost nothing."""
        old = next((key for key in self._topics if key.startswith(CALLER)), None)
        if old is not None:
            del self._topics[old]
            self.bus.forget(topic_of(old))

    def expect(self, run_id: str, begun: Callable[[Run], None]) -> Callable[[], None]:
        """Have ``begun`` called when anybody starts a run of this id, before its first event.

        Returns what ends that; call it in any case. Raises ``NotFound`` for what cannot become a run's id.
        """
        if not _RUN_ID.fullmatch(run_id):
            raise _not_found()
        self._expected.setdefault(run_id, set()).add(begun)

        def end() -> None:
            waiting = self._expected.get(run_id, set())
            waiting.discard(begun)
            if not waiting:
                self._expected.pop(run_id, None)

        return end

    def get(self, run_id: str, viewer: Viewer) -> Run:
        """The run of this id. Raises ``NotFound``, also for the run of somebody else."""
        self._sweep()
        run = self._runs.get(run_id)
        if run is None or not (viewer.admin or run.key == viewer.name):
            raise _not_found()
        return run

    def page(
        self,
        viewer: Viewer,
        *,
        limit: int = 20,
        after: str | None = None,
        status: str | None = None,
        model: str | None = None,
    ) -> tuple[list[Run], bool]:
        """Runs of this key (an admin's: all), newest first, from behind run ``after``; are there more?

        Raises ``NotFound`` if ``after`` is not there.
        """
        self._sweep()
        found: list[Run] = []
        newest_first = self._newest_first(viewer)
        if after is not None:
            self.get(after, viewer)
            for run in newest_first:
                if run.id == after:
                    break
        for run in newest_first:
            if (status is None or run.status == status) and (model is None or run.model == model):
                if len(found) == limit:
                    return found, True
                found.append(run)
        return found, False

    def active(
        self, viewer: Viewer, *, everyone: bool, limit: int, conversation_id: str | None = None
    ) -> list[Run]:
        """Runs under way, newest first: of this key (and conversation, if one is given), or of everyone."""
        found = []
        for run in reversed(self._runs.values()):
            if conversation_id is not None and run.conversation_id != conversation_id:
                continue
            if not run.ended and (everyone or run.key == viewer.name):
                found.append(run)
                if len(found) == limit:
                    break
        return found

    def find(self, run_id: str) -> Run | None:
        """The run of this id, whoever's it is."""
        return self._runs.get(run_id)

    def cancel_all(self, by: str) -> None:
        """End every run that is under way."""
        for run in list(self._runs.values()):
            run.cancel(by)

    async def all_ended(self) -> None:
        """Return when no run is under way."""
        while self.in_progress:
            for run in list(self._runs.values()):
                await run.wait_ended()

    async def aclose(self) -> None:
        """End what has not ended, and forget everything."""
        for run in list(self._runs.values()):
            if not run.ended:
                run.cancel("shutdown")
                run.close()
        self._runs.clear()
        self._ended.clear()
        self._with_text.clear()
        self._responses.clear()

    def expires_at(self, run: Run) -> str | None:
        """When an ended run will be forgotten; None while it is under way."""
        if not run.ended:
            return None
        return timestamp(self.wall() + run.ended_at + self._keep_s - self.monotonic())

    def run_ended(self, run: Run) -> None:
        """Called by a run when it has told its end."""
        run.ended_at = self.monotonic()
        self.in_progress -= 1
        self._ended.append(run)
        if run.has_lanes and (size := sum(lane.size for lane in run.lanes.values())):
            self._hold(run, size)

    def in_background(self, viewer: Viewer) -> int:
        """How many runs of this key that survive their asker are under way."""
        return sum(run.background and not run.ended and run.key == viewer.name for run in self._runs.values())

    def keep_response(self, run: Run, body: bytes) -> None:
        """Keep what an ended run answers, as long as the run, or until the room is wanted."""
        if run.id in self._runs:
            self._responses[run.id] = body
            self._hold(run, len(body))

    def response(self, run: Run) -> bytes | None:
        """What ``keep_response`` has kept of it."""
        return self._responses.get(run.id)

    def _hold(self, run: Run, size: int) -> None:
        self._with_text.append((run, size))
        self._text += size
        while self._text > MAX_KEPT_TEXT:
            self._drop_text()

    def _newest_first(self, viewer: Viewer) -> Iterator[Run]:
        for run in reversed(self._runs.values()):
            if viewer.admin or run.key == viewer.name:
                yield run

    def _sweep(self) -> None:
        horizon = self.monotonic() - self._keep_s
        while self._ended and self._ended[0].ended_at <= horizon:
            self._forget(self._ended.popleft())

    def _forget(self, run: Run) -> None:
        self._runs.pop(run.id, None)
        while self._with_text and self._with_text[0][0] is run:  # else its text went before
            self._drop_text()

    def _drop_text(self) -> None:
        run, size = self._with_text.popleft()
        self._text -= size
        self._responses.pop(run.id, None)
        if run.has_lanes:
            for lane in run.lanes.values():
                lane.drop()
