"""Checks a run's events against the rules that every run keeps (``docs/events.md``, state machine).

One checker reads any log: tests use it on every run, and a watcher may use it on what it is sent. It takes
stored and volatile events alike, in the order in which they were told. No I/O, no clock.
"""

from __future__ import annotations

from collections.abc import Iterable

from server.events import (
    MEMBER_ENDS,
    Event,
    ModelDelta,
    RunCancelled,
    RunCompleted,
    RunCreated,
    RunDegraded,
    RunFailed,
    RunIncomplete,
    RunInProgress,
    RunQueued,
    StageDeadlineReached,
    StageFinished,
    StageQuorumReached,
    StageStarted,
    SummaryDelta,
)


class _Stage:
    def __init__(self, name: str, expected: Iterable[str]) -> None:
        self.name = name
        self.waiting = set(expected)
        self.gathered = False
        self.first_tokens: set[str] = set()
        self.started: set[str] = set()


class RunChecker:
    """Takes one run's events; ``faults`` says what was wrong with them. ``joined`` marks a late start."""

    def __init__(self, *, joined: bool = False) -> None:
        self.faults: list[str] = []
        self.ended = False
        self._joined = joined
        self._run_id: str | None = None
        self._head: int | None = None
        self._elapsed_ms = 0
        self._begun = joined
        self._stages: dict[str, _Stage] = {}
        self._closed: set[str] = set()
        self._level: str | None = None
        self._summary: str | None = None  # open, finished or failed
        self._offsets: dict[tuple[str, str], int] = {}

    def apply(self, event: Event) -> None:
        """Look at the next event."""
        data = event.data
        self._run_id = self._run_id or event.run_id
        if event.run_id != self._run_id:
            self._fault(event, f"is of another run, {event.run_id}")
        if self.ended:
            self._fault(event, "follows the run's end")
        if event.elapsed_ms < self._elapsed_ms and not data.volatile:
            self._fault(event, "is earlier than the one before")
        if data.volatile:
            self._check_delta(event)
            return
        self._elapsed_ms = event.elapsed_ms
        self._check_number(event)
        kind = event.type.partition(".")[0]
        if (kind == "run") != (event.stage is None):
            self._fault(event, "has no stage" if event.stage is None else "has a stage")
        if (kind == "model") != (event.member is not None):
            self._fault(event, "has no member" if event.member is None else "has a member")
        if kind == "run":
            self._check_run(event)
        elif kind == "stage":
            self._check_stage(event)
        elif kind == "model":
            self._check_member(event)
        elif kind == "summary":
            self._check_summary(event)

    def finish(self) -> list[str]:
        """Say that the log is over; returns all faults."""
        if not self.ended:
            self.faults.append("the run has no end")
        return self.faults

    def _fault(self, event: Event, text: str) -> None:
        self.faults.append(f"{event.sequence_number} {event.type} {text}")

    def _check_number(self, event: Event) -> None:
        number = event.sequence_number
        if self._head is None:
            if number != 1 and not self._joined:
                self._fault(event, "is the first, but not number 1")
            if not isinstance(event.data, RunCreated) and not self._joined:
                self._fault(event, "is the first, but not run.created")
        elif number != self._head + 1:
            self._fault(event, f"follows number {self._head}")
        elif isinstance(event.data, RunCreated):
            self._fault(event, "comes twice")
        self._head = number

    def _check_run(self, event: Event) -> None:
        match event.data:
            case RunQueued() if self._begun:
                self._fault(event, "comes after run.in_progress")
            case RunInProgress():
                self._begun = True
            case RunDegraded(level=level):
                self._level = level
            case RunCompleted() | RunIncomplete() as data:
                if data.level != (self._level or "none") and not (self._joined and self._level is None):
                    self._fault(event, f"tells of level {data.level}, not {self._level or 'none'}")
                self._end(event)
            case RunFailed() | RunCancelled():
                self._end(event)
            case _:
                pass

    def _end(self, event: Event) -> None:
        self.ended = True
        for id in self._stages:
            self._fault(event, f"leaves {id} open")

    def _check_stage(self, event: Event) -> None:
        assert event.stage is not None
        id = event.stage.id
        if isinstance(event.data, StageStarted):
            if id in self._stages or id in self._closed:
                self._fault(event, f"starts {id} twice")
            self._stages[id] = _Stage(event.stage.name, event.data.expected)
            return
        stage = self._stages.get(id)
        if stage is None:
            if not self._joined or id in self._closed:
                self._fault(event, f"speaks of {id}, which is not open")
            return
        if isinstance(event.data, (StageQuorumReached, StageDeadlineReached)):
            stage.gathered = True
        elif isinstance(event.data, StageFinished):
            if left := sorted(stage.waiting - {"summary"}):
                self._fault(event, f"comes before the end of {', '.join(left)}")
            if event.data.ended_by in ("quorum", "deadline") and not stage.gathered:
                self._fault(event, f"ends by {event.data.ended_by}, of which was not told")
            if stage.name == "summary" and self._summary == "open":
                self._fault(event, "leaves the summary open")
            del self._stages[id]
            self._closed.add(id)

    def _check_member(self, event: Event) -> None:
        assert event.stage is not None
        if event.member is None:
            return
        stage, member = self._stages.get(event.stage.id), event.member.id
        if stage is None:
            if not self._joined or event.stage.id in self._closed:
                self._fault(event, f"is in {event.stage.id}, which is not open")
            return
        if member not in stage.waiting:
            self._fault(event, f"speaks of {member}, which is not expected or has ended")
        match event.type:
            case "model.started" | "model.queued":
                if member in stage.first_tokens:
                    self._fault(event, f"comes after {member}'s first token")
                stage.started.add(member)
            case "model.first_token":
                if member in stage.first_tokens:
                    self._fault(event, f"is {member}'s second first token")
                if member not in stage.started:
                    self._fault(event, f"comes before {member} started")
                stage.first_tokens.add(member)
            case "model.retrying" if member in stage.first_tokens:
                self._fault(event, f"comes after {member}'s first token")
            case "model.finished" if member not in stage.started:
                self._fault(event, f"comes before {member} started")
            case "model.skipped" if member in stage.first_tokens:
                self._fault(event, f"comes after {member}'s first token")
            case _:
                pass
        if event.type in MEMBER_ENDS:
            stage.waiting.discard(member)

    def _check_summary(self, event: Event) -> None:
        assert event.stage is not None
        if event.stage.id not in self._stages and not self._joined:
            self._fault(event, f"is in {event.stage.id}, which is not open")
        if any(stage.name == "draft" for stage in self._stages.values()):
            self._fault(event, "comes before the drafts have ended")
        match event.type:
            case "summary.started":
                if self._summary == "open":
                    self._fault(event, "comes before the end of the attempt before")
                self._summary = "open"
            case "summary.finished" | "summary.failed":
                if self._summary != "open" and not self._joined:
                    self._fault(event, "ends what has not begun")
                self._summary = event.type.partition(".")[2]
            case "summary.fallback" if self._summary != "failed" and not self._joined:
                self._fault(event, "follows no failure")
            case _:
                pass

    def _check_delta(self, event: Event) -> None:
        data = event.data
        if self._head is not None and event.sequence_number > self._head:
            self._fault(event, f"is volatile, and numbered beyond {self._head}")
        if not isinstance(data, (ModelDelta, SummaryDelta)):
            return
        lane = event.member.id if event.member is not None else "summary"
        expected = self._offsets.get((lane, data.kind))
        if expected is not None and data.text_offset != expected:
            self._fault(event, f"of {lane} is at {data.text_offset}, not at {expected}")
        self._offsets[lane, data.kind] = data.text_offset + len(data.text)


def check_run(events: Iterable[Event]) -> list[str]:
    """What is wrong with a whole log; an empty list if nothing is."""
    checker = RunChecker()
    for event in events:
        checker.apply(event)
    return checker.finish()
