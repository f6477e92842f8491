"""One struct for the data of each type of event.

A field that is UNSET is left out of the JSON; one that is None is told as null. Lengths are Unicode code
points, times milliseconds unless the name says otherwise, costs are in the currency of the prices.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from msgspec import UNSET, UnsetType

from server.events.parts import (
    Data,
    ErrorInfo,
    MemberFailure,
    Names,
    OptInt,
    OptNumber,
    OptStr,
    PlannedMember,
    Timings,
    TokenUsage,
)


class RunCreated(Data, frozen=True, gc=False, kw_only=True):
    """``warnings``: what of the request was left out whichever model is asked."""

    type: ClassVar[str] = "run.created"
    response_id: str
    model: str
    strategy: str
    stream: bool
    members: tuple[PlannedMember, ...] = ()
    summary: str | None = None
    min_success: int = 1
    quorum: int = 1
    grace_s: int | float | None = None
    deadline_s: int | float | None = None
    cost_ceiling: float | None = None
    background: bool | UnsetType = UNSET
    parent: OptStr = UNSET
    warnings: Names | UnsetType = UNSET


class RunQueued(Data, frozen=True, gc=False):
    """The run waits before its first call. ``waiting_for``: channel (a slot of it)."""

    type: ClassVar[str] = "run.queued"
    status: ClassVar[str | None] = "queued"
    gated: ClassVar[Mapping[str, str]] = {"channel": "channels"}
    waiting_for: str
    channel: OptStr = UNSET


class RunInProgress(Data, frozen=True, gc=False):
    type: ClassVar[str] = "run.in_progress"
    status: ClassVar[str | None] = "in_progress"


class RunDegraded(Data, frozen=True, gc=False):
    type: ClassVar[str] = "run.degraded"
    level: str
    reason: str
    members: Names = ()


class RunControl(Data, frozen=True, gc=False):
    """A watcher's command that was carried out. ``by`` is the name of its key, or ``admin``."""

    type: ClassVar[str] = "run.control"
    verb: str
    target: OptStr = UNSET
    by: str = "admin"


class RunCompleted(Data, frozen=True, gc=False, kw_only=True):
    """``answer_by`` is ``summary`` or a member's id (of several answers: the first)."""

    type: ClassVar[str] = "run.completed"
    status: ClassVar[str | None] = "completed"
    terminal: ClassVar[bool] = True
    answer_by: str | None
    level: str = "none"
    finish_reason: str
    used: Names = ()
    usage: TokenUsage | None = None
    cost: float | None = None
    timings: Timings = Timings()


class RunIncomplete(Data, frozen=True, gc=False, kw_only=True):
    """The answer ended early in good order; ``reason`` is ``length`` or ``content_filter``."""

    type: ClassVar[str] = "run.incomplete"
    status: ClassVar[str | None] = "incomplete"
    terminal: ClassVar[bool] = True
    reason: str
    answer_by: str | None
    level: str = "none"
    finish_reason: str
    used: Names = ()
    usage: TokenUsage | None = None
    cost: float | None = None
    timings: Timings = Timings()


class RunFailed(Data, frozen=True, gc=False, kw_only=True):
    type: ClassVar[str] = "run.failed"
    status: ClassVar[str | None] = "failed"
    terminal: ClassVar[bool] = True
    error: ErrorInfo
    members: tuple[MemberFailure, ...] = ()
    level: OptStr = UNSET
    usage: TokenUsage | None = None
    cost: float | None = None
    timings: Timings = Timings()


class RunCancelled(Data, frozen=True, gc=False, kw_only=True):
    """``by`` is ``client``, ``watcher`` or ``shutdown``."""

    type: ClassVar[str] = "run.cancelled"
    status: ClassVar[str | None] = "cancelled"
    terminal: ClassVar[bool] = True
    by: str
    level: OptStr = UNSET
    usage: TokenUsage | None = None
    cost: float | None = None
    timings: Timings = Timings()


class StageStarted(Data, frozen=True, gc=False):
    type: ClassVar[str] = "stage.started"
    expected: Names
    title: OptStr = UNSET


class StageQuorumReached(Data, frozen=True, gc=False):
    type: ClassVar[str] = "stage.quorum_reached"
    drafts: int
    of: int
    grace_ms: int


class StageDeadlineReached(Data, frozen=True, gc=False):
    type: ClassVar[str] = "stage.deadline_reached"
    drafts: int
    of: int


class StageFinished(Data, frozen=True, gc=False, kw_only=True):
    """``ended_by``: all, quorum, deadline, answer_now, winner, cancelled. The counts are a draft stage's.

    ``title`` (of a step; it is the model's text), ``next_action`` and ``chars`` are a step's.
    """

    type: ClassVar[str] = "stage.finished"
    gated: ClassVar[Mapping[str, str]] = {"title": "reasoning"}
    ended_by: str
    drafts: OptInt = UNSET
    partial: OptInt = UNSET
    failed: OptInt = UNSET
    cancelled: OptInt = UNSET
    skipped: OptInt = UNSET
    title: OptStr = UNSET
    next_action: OptStr = UNSET
    chars: OptInt = UNSET
    duration_ms: int


class ModelQueued(Data, frozen=True, gc=False):
    """``waiting_for``: channel (a slot of it)."""

    type: ClassVar[str] = "model.queued"
    gated: ClassVar[Mapping[str, str]] = {"channel": "channels"}
    waiting_for: str
    channel: OptStr = UNSET


class ModelStarted(Data, frozen=True, gc=False):
    type: ClassVar[str] = "model.started"
    gated: ClassVar[Mapping[str, str]] = {"channel": "channels"}
    channel: OptStr = UNSET


class ModelFirstToken(Data, frozen=True, gc=False):
    """``kind``: text, reasoning, tool_call, refusal."""

    type: ClassVar[str] = "model.first_token"
    ttft_ms: int
    kind: str = "text"


class ModelProgress(Data, frozen=True, gc=False):
    type: ClassVar[str] = "model.progress"
    volatile: ClassVar[bool] = True
    chars: int
    tokens_estimated: int


class ModelDelta(Data, frozen=True, gc=False):
    type: ClassVar[str] = "model.delta"
    volatile: ClassVar[bool] = True
    kind: str
    text: str
    text_offset: int


class ModelRetrying(Data, frozen=True, gc=False):
    type: ClassVar[str] = "model.retrying"
    code: str
    http_status: int | None
    delay_ms: int
    next_attempt: int
    same_channel: bool


class ModelChannel(Data, frozen=True, gc=False):
    """``state``: asked, hedged, passed_over (with ``reason``), kept (its answer is given again), shared (with
    an equal request), open (its breaker), closed, cooling, refused.

    ``for_ms``: so long it is not asked, or only as the last one; of a hedge: so long another was silent.
    """

    type: ClassVar[str] = "model.channel"
    gated: ClassVar[Mapping[str, str]] = {"channel": "channels"}
    state: str
    reason: OptStr = UNSET
    for_ms: OptInt = UNSET
    channel: OptStr = UNSET


class ModelAdapted(Data, frozen=True, gc=False):
    """The request did not go upstream as it was asked; ``warnings`` tell in words what was adapted."""

    type: ClassVar[str] = "model.adapted"
    gated: ClassVar[Mapping[str, str]] = {"channel": "channels"}
    warnings: Names
    channel: OptStr = UNSET


class ModelHedged(Data, frozen=True, gc=False):
    type: ClassVar[str] = "model.hedged"
    after_ms: int
    next: str


class ModelFinished(Data, frozen=True, gc=False):
    type: ClassVar[str] = "model.finished"
    finish_reason: str
    chars: int
    latency_ms: int
    usage: TokenUsage | None = None
    cost: OptNumber = UNSET


class ModelFailed(Data, frozen=True, gc=False, kw_only=True):
    """``partial``: its text is used as a draft."""

    type: ClassVar[str] = "model.failed"
    code: str
    http_status: int | None
    retryable: bool
    attempts: int = 1
    latency_ms: int
    chars: int = 0
    partial: bool = False
    usage: TokenUsage | None = None
    cost: OptNumber = UNSET
    message: str


class ModelCancelled(Data, frozen=True, gc=False, kw_only=True):
    """``reason``: quorum, deadline, answer_now, lost_race, watcher, client, shutdown."""

    type: ClassVar[str] = "model.cancelled"
    reason: str
    chars: int = 0
    partial: bool = False
    latency_ms: int
    usage: TokenUsage | None = None
    cost: OptNumber = UNSET


class ModelSkipped(Data, frozen=True, gc=False):
    """``reason``: breaker, budget, no_vision, not_allowed, not_needed."""

    type: ClassVar[str] = "model.skipped"
    reason: str


class DecisionMade(Data, frozen=True, gc=False, kw_only=True):
    """``method``: vote, best_of, race, rank, lone, tools, accept."""

    type: ClassVar[str] = "decision.made"
    gated: ClassVar[Mapping[str, str]] = {"analysis": "drafts"}
    method: str
    winner: str | None
    ranking: Names | UnsetType = UNSET
    tallies: dict[str, float] | UnsetType = UNSET
    weights: dict[str, float] | UnsetType = UNSET
    agreement: float | UnsetType | None = UNSET
    abstained: Names | UnsetType = UNSET
    tie_broken_by: str | UnsetType | None = UNSET
    seed: int | UnsetType = UNSET
    analysis: dict[str, Any] | UnsetType = UNSET


class SummaryStarted(Data, frozen=True, gc=False):
    """``order``: the drafts as they were shown; ``truncated``: those that were shown cut."""

    type: ClassVar[str] = "summary.started"
    model: str
    attempt: int = 1
    order: Names = ()
    seed: int | None = None
    truncated: Names = ()


class SummaryChannel(Data, frozen=True, gc=False):
    """As ``ModelChannel``, of the summary's call."""

    type: ClassVar[str] = "summary.channel"
    gated: ClassVar[Mapping[str, str]] = {"channel": "channels"}
    state: str
    reason: OptStr = UNSET
    for_ms: OptInt = UNSET
    channel: OptStr = UNSET


class SummaryAdapted(Data, frozen=True, gc=False):
    """As ``ModelAdapted``, of the summary's call."""

    type: ClassVar[str] = "summary.adapted"
    gated: ClassVar[Mapping[str, str]] = {"channel": "channels"}
    warnings: Names
    channel: OptStr = UNSET


class SummaryFirstToken(Data, frozen=True, gc=False):
    type: ClassVar[str] = "summary.first_token"
    ttft_ms: int
    kind: str = "text"


class SummaryDelta(Data, frozen=True, gc=False):
    type: ClassVar[str] = "summary.delta"
    volatile: ClassVar[bool] = True
    kind: str
    text: str
    text_offset: int


class SummaryFinished(Data, frozen=True, gc=False):
    type: ClassVar[str] = "summary.finished"
    finish_reason: str
    chars: int
    latency_ms: int
    usage: TokenUsage | None = None
    cost: OptNumber = UNSET


class SummaryFailed(Data, frozen=True, gc=False):
    type: ClassVar[str] = "summary.failed"
    code: str
    http_status: int | None
    retryable: bool
    chars: int = 0
    cost: OptNumber = UNSET


class SummaryFallback(Data, frozen=True, gc=False):
    """``to`` is ``model`` or ``draft``; then ``model`` or ``member`` names it."""

    type: ClassVar[str] = "summary.fallback"
    to: str
    model: OptStr = UNSET
    member: OptStr = UNSET


def _leaves(base: type[Data]) -> list[type[Data]]:
    return [leaf for kind in base.__subclasses__() for leaf in (_leaves(kind) or [kind])]


DATA_TYPES: Mapping[str, type[Data]] = {kind.type: kind for kind in _leaves(Data)}
"""Name of each event type → the struct of its data."""

TEXT_TYPES = frozenset({"model.delta", "summary.delta"})
MEMBER_ENDS = frozenset({"model.finished", "model.failed", "model.cancelled", "model.skipped"})
SUMMARY_ENDS = frozenset({"summary.finished", "summary.failed"})
RUN_ENDS = frozenset(name for name, kind in DATA_TYPES.items() if kind.terminal)
