"""A run as it stands: the pure fold of its events. A snapshot and a watcher's screen are both this.

``RunView.apply`` takes events in order, stored and volatile alike; ``snapshot`` gives the object that
``GET /v1/runs/{id}`` answers, and ``from_snapshot`` continues from such an object. No I/O, no clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from server.events import (
    DecisionMade,
    Event,
    ModelAdapted,
    ModelCancelled,
    ModelDelta,
    ModelFailed,
    ModelFinished,
    ModelFirstToken,
    ModelProgress,
    ModelQueued,
    ModelRetrying,
    ModelSkipped,
    ModelStarted,
    RunCancelled,
    RunCompleted,
    RunCreated,
    RunDegraded,
    RunFailed,
    RunIncomplete,
    StageFinished,
    StageStarted,
    SummaryAdapted,
    SummaryDelta,
    SummaryFailed,
    SummaryFinished,
    SummaryFirstToken,
    SummaryStarted,
    timestamp,
)

ENDED = frozenset({"completed", "incomplete", "failed", "cancelled"})
"""The statuses of a run that is over."""

MEMBER_ENDED = frozenset({"finished", "failed", "cancelled", "skipped"})
"""The states of a member that says no more."""

_SEEN = ("ttft_ms", "latency_ms", "code", "reason", "finish_reason", "cost", "tokens_estimated", "warnings")


class CallView:
    """One model call, a member's or the summary's.

    ``state``: pending, queued, started, retrying, finished, failed, cancelled, skipped. ``text`` is what the
    deltas brought, by kind. What is None has not come about.
    """

    __slots__ = (
        "attempt",
        "began_ms",
        "chars",
        "code",
        "cost",
        "ended_ms",
        "finish_reason",
        "id",
        "latency_ms",
        "model",
        "reason",
        "state",
        "text",
        "tokens_estimated",
        "ttft_ms",
        "usage",
        "warnings",
    )

    def __init__(self, id: str, model: str) -> None:
        self.id = id
        self.model = model
        self.state = "pending"
        self.attempt = 1
        self.chars = 0
        self.ttft_ms: int | None = None
        self.latency_ms: int | None = None
        self.code: str | None = None
        self.reason: str | None = None
        self.finish_reason: str | None = None
        self.tokens_estimated: int | None = None
        self.usage: Any = None
        self.cost: float | None = None
        self.warnings: list[str] | None = None
        self.text: dict[str, str] = {}
        self.began_ms: int | None = None  # elapsed_ms of the run at the call's start and end
        self.ended_ms: int | None = None

    @property
    def ended(self) -> bool:
        return self.state in MEMBER_ENDED

    def hear(self, delta: ModelDelta | SummaryDelta) -> None:
        """Take the text of a delta. After a gap what came before it is not known: it is left out."""
        before = self.text.get(delta.kind, "")
        self.text[delta.kind] = before + delta.text
        if delta.kind == "text":
            self.chars = max(self.chars, delta.text_offset + len(delta.text))

    def note_cost(self, cost: float | UnsetType) -> None:
        """Take what the call's end tells of its cost."""
        if cost is not UNSET:
            self.cost = cost

    def snapshot(self) -> dict[str, Any]:
        told = {name: value for name in _SEEN if (value := getattr(self, name)) is not None}
        return {"attempt": self.attempt, "chars": self.chars, **told}


class StageView:
    """One stage and what is expected of it: member ids, and those that still run."""

    __slots__ = ("began_ms", "ended_by", "expected", "id", "name", "open", "round")

    def __init__(self, id: str, name: str, round: int, expected: tuple[str, ...], began_ms: int) -> None:
        self.id = id
        self.name = name
        self.round = round
        self.expected = expected
        self.open = dict.fromkeys(expected)
        self.began_ms = began_ms
        self.ended_by: str | None = None


class RunView:
    """One run. ``head`` is the number of the last stored event that was applied."""

    def __init__(self, id: str = "") -> None:
        self.id = id
        self.head = 0
        self.elapsed_ms = 0
        self.status = "queued"
        self.created_at: float | None = None
        self.model = ""
        self.strategy = ""
        self.level = "none"
        self.stage: str | None = None
        self.stages: dict[str, StageView] = {}
        self.members: dict[str, CallView] = {}
        self.summary: CallView | None = None
        self.summary_model: str | None = None
        self.decision: Any = None
        self.answer_by: str | None = None
        self.usage: Any = None
        self.cost: float | None = None
        self.error: Any = None
        self.timings: Any = None
        self.cancelled_by: str | None = None

    @property
    def ended(self) -> bool:
        return self.status in ENDED

    def apply(self, event: Event) -> None:
        """Take the next event. Events already seen are passed over."""
        data = event.data
        if not data.volatile:
            if event.sequence_number <= self.head:
                return
            self.head = event.sequence_number
        self.id = self.id or event.run_id
        self.elapsed_ms = max(self.elapsed_ms, event.elapsed_ms)
        if data.status is not None:
            self.status = data.status
        kind = data.type.partition(".")[0]
        if kind == "model":
            self._apply_to_member(event)
        elif kind == "summary":
            self._apply_to_summary(event)
        else:
            self._apply_to_run(event)

    def _apply_to_run(self, event: Event) -> None:
        data = event.data
        match data:
            case RunCreated():
                self.created_at = event.time
                self.model = data.model
                self.strategy = data.strategy
                self.summary_model = data.summary
                for planned in data.members:
                    self.members[planned.id] = CallView(planned.id, planned.model)
            case RunDegraded():
                self.level = data.level
            case DecisionMade():
                decision = msgspec.to_builtins(data)
                decision.pop("analysis", None)  # text; it is behind a gate
                self.decision = decision
            case RunCompleted() | RunIncomplete():
                self.level = data.level
                self.answer_by = data.answer_by
                self._end(data)
            case RunFailed():
                self.error = msgspec.to_builtins(data.error)
                self._end(data)
            case RunCancelled():
                self.cancelled_by = data.by
                self._end(data)
            case StageStarted():
                if event.stage is not None:
                    where = event.stage
                    self.stage = where.id
                    self.stages[where.id] = StageView(
                        where.id, where.name, where.round, data.expected, event.elapsed_ms
                    )
            case StageFinished():
                if event.stage is not None and (stage := self.stages.get(event.stage.id)) is not None:
                    stage.ended_by = data.ended_by
            case _:
                pass

    def _end(self, data: RunCompleted | RunIncomplete | RunFailed | RunCancelled) -> None:
        self.stage = None
        self.usage = msgspec.to_builtins(data.usage)
        self.cost = data.cost
        self.timings = msgspec.to_builtins(data.timings)

    def _apply_to_member(self, event: Event) -> None:
        ref, data = event.member, event.data
        if ref is None:
            return
        call = self.members.get(ref.id)
        if call is None:
            call = self.members[ref.id] = CallView(ref.id, ref.model)
        call.attempt = ref.attempt
        match data:
            case ModelQueued():
                call.state = "queued"
            case ModelStarted():
                call.state = "started"
                call.began_ms = event.elapsed_ms
            case ModelFirstToken():
                call.state = "started"
                call.ttft_ms = data.ttft_ms
            case ModelProgress():
                call.chars = data.chars
                call.tokens_estimated = data.tokens_estimated
            case ModelDelta():
                call.hear(data)
            case ModelRetrying():
                call.state, call.warnings = "retrying", None
                call.attempt = data.next_attempt
            case ModelAdapted():
                call.warnings = list(data.warnings)
            case ModelFinished():
                call.finish_reason = data.finish_reason
                self._end_call(event, call, "finished", data)
            case ModelFailed():
                call.code = data.code
                self._end_call(event, call, "failed", data)
            case ModelCancelled():
                call.reason = data.reason
                self._end_call(event, call, "cancelled", data)
            case ModelSkipped():
                call.reason = data.reason
                self._end_call(event, call, "skipped", None)
            case _:
                pass

    def _end_call(
        self,
        event: Event,
        call: CallView,
        state: str,
        data: ModelFinished | ModelFailed | ModelCancelled | None,
    ) -> None:
        call.state = state
        call.ended_ms = event.elapsed_ms
        if data is not None:
            call.chars = data.chars
            call.latency_ms = data.latency_ms
            call.usage = msgspec.to_builtins(data.usage)
            call.note_cost(data.cost)
        if event.stage is not None and (stage := self.stages.get(event.stage.id)) is not None:
            stage.open.pop(call.id, None)

    def _apply_to_summary(self, event: Event) -> None:
        data = event.data
        if isinstance(data, SummaryStarted):
            self.summary = CallView("summary", data.model)
            self.summary.state = "started"
            self.summary.attempt = data.attempt
            self.summary.began_ms = event.elapsed_ms
            return
        call = self.summary
        if call is None:
            return
        match data:
            case SummaryFirstToken():
                call.ttft_ms = data.ttft_ms
            case SummaryDelta():
                call.hear(data)
            case SummaryAdapted():
                call.warnings = list(data.warnings)
            case SummaryFinished():
                call.finish_reason = data.finish_reason
                call.latency_ms = data.latency_ms
                call.usage = msgspec.to_builtins(data.usage)
                call.note_cost(data.cost)
                self._end_summary(event, call, "finished", data.chars)
            case SummaryFailed():
                call.code = data.code
                call.note_cost(data.cost)
                self._end_summary(event, call, "failed", data.chars)
            case _:
                pass

    def _end_summary(self, event: Event, call: CallView, state: str, chars: int) -> None:
        call.state = state
        call.chars = chars
        call.ended_ms = event.elapsed_ms

    def snapshot(self) -> dict[str, Any]:
        """The run as JSON's objects, without ``epoch`` and ``expires_at``, which the log does not know."""
        summary: dict[str, Any] | None = None
        if self.summary is not None:
            summary = {"state": self.summary.state, "model": self.summary.model, **self.summary.snapshot()}
        elif self.summary_model is not None:
            summary = {"state": "pending", "model": self.summary_model, "chars": 0}
        return {
            "object": "run",
            "id": self.id,
            "head": self.head,
            "status": self.status,
            "created_at": None if self.created_at is None else timestamp(self.created_at),
            "model": self.model,
            "strategy": self.strategy,
            "level": self.level,
            "stage": self.stage,
            "members": [
                {"id": call.id, "model": call.model, "state": call.state, **call.snapshot()}
                for call in self.members.values()
            ],
            "summary": summary,
            "decision": self.decision,
            "answer_by": self.answer_by,
            "usage": self.usage,
            "cost": self.cost,
            "error": self.error,
            "cancelled_by": self.cancelled_by,
            "timings": self.timings,
        }

    @classmethod
    def from_snapshot(cls, told: Mapping[str, Any]) -> RunView:
        """The view that ``told`` is the snapshot of. What is missing or unknown in it is passed over."""
        view = cls(str(told.get("id", "")))
        for name in ("head", "status", "model", "strategy", "level", "stage", "decision", "answer_by"):
            if told.get(name) is not None:
                setattr(view, name, told[name])
        for name in ("usage", "cost", "error", "cancelled_by", "timings"):
            setattr(view, name, told.get(name))
        if isinstance(created := told.get("created_at"), str):
            view.created_at = datetime.fromisoformat(created).timestamp()
        for member in told.get("members") or ():
            view.members[member["id"]] = _call(member["id"], member)
        if (summary := told.get("summary")) is not None:
            view.summary_model = summary.get("model")
            if summary.get("state") != "pending":
                view.summary = _call("summary", summary)
        return view


def _call(id: str, told: Mapping[str, Any]) -> CallView:
    call = CallView(id, str(told.get("model", "")))
    for name in ("state", "attempt", "chars", *_SEEN):
        if told.get(name) is not None:
            setattr(call, name, told[name])
    for kind, name in (("text", "text"), ("reasoning", "reasoning")):
        if isinstance(text := told.get(name), str):
            call.text[kind] = text
    return call
