"""What a run as a whole tells: its beginning, its stages, its level, and exactly one end.

The book also sums up what the calls used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import reduce
from operator import add

from msgspec import UNSET, UnsetType

from server.coordinator.call_log import CallLog
from server.coordinator.ledger import Ledger
from server.deltas import Usage
from server.errors import ServerError
from server.events import (
    ErrorInfo,
    MemberFailure,
    RunCancelled,
    RunCompleted,
    RunCreated,
    RunDegraded,
    RunFailed,
    RunIncomplete,
    RunInProgress,
    StageFinished,
    StageRef,
    StageStarted,
    Timings,
    token_usage,
)
from server.prices import Units, money
from server.run_log import Run
from server.upstreams.base import AnswerInfo, Call, CallInfo, StepInfo

# Most runs say the same here, and many are kept: they share the words.
IN_PROGRESS = RunInProgress()
STAGES = {
    (name, 1): StageRef(f"{name}.1", name)
    for name in ("draft", "judge", "rank", "critique", "summary", "step")
}
EARLY_ENDS = frozenset({"length", "content_filter"})


class RunBook:
    """One run's account. It is opened by ``run.created``; of the ends the first one counts."""

    def __init__(self, run: Run, created: RunCreated | None = None, *, calls: Iterable[CallLog] = ()) -> None:
        """``created`` None: it has been told already."""
        self.run = run
        self.calls: list[CallLog] = list(calls)
        self.parts: list[tuple[CallLog, Call]] = []  # those that were begun, and what was asked
        self.ledger: Ledger | None = None  # where the run may cost only so much
        self.failures: tuple[MemberFailure, ...] = ()
        self.level = "none"
        self.agreement: float | None = None  # of a vote
        self.steps: tuple[StepInfo, ...] = ()
        self.plain_body: bytes | None = None
        self.begun: Callable[[], None] | None = None
        self.quorum_ms: int | None = None
        self.drafts_ms: int | None = None
        self.first_text_ms: int | None = None
        self._strategy = run.strategy if created is None else created.strategy
        self._open: dict[str, tuple[StageRef, float]] = {}
        if created is not None:
            run.tell(created)

    @property
    def usage(self) -> Usage | None:
        """What all calls used; None where none cost anything."""
        used = [usage for call in self.calls if (usage := call.usage) is not None]
        return reduce(add, used) if used else None

    @property
    def spent(self) -> Usage | None:
        """The same but for the answers of other calls, that were kept or shared."""
        used = [usage for call in self.calls if (usage := call.spent) is not None]
        return reduce(add, used) if used else None

    @property
    def cost(self) -> Units | None:
        """What all calls cost; None where none cost anything, or where that is not known of one that did."""
        costs = [call.cost for call in self.calls if call.usage is not None]
        return None if not costs or None in costs else sum(one for one in costs if one is not None)

    def begin(self) -> None:
        """The request is accepted and planned."""
        self.run.tell(IN_PROGRESS)

    def begin_stage(
        self, name: str, expected: Sequence[str], number: int = 1, title: str | UnsetType = UNSET
    ) -> StageRef:
        """A stage begins; each is closed by ``end_stage``, or by the run's end."""
        stage = STAGES.get((name, number)) or StageRef(f"{name}.{number}", name, number)
        self.stage_began(stage, self.run.monotonic())
        self.run.tell(StageStarted(tuple(expected), title), stage=stage)
        return stage

    def stage_began(self, stage: StageRef, began: float) -> None:
        """Note a stage's beginning, at the run's monotonic time, without telling of it."""
        self._open[stage.id] = (stage, began)

    def end_stage(
        self,
        stage: StageRef,
        ended_by: str,
        *,
        drafts: int | UnsetType = UNSET,
        partial: int | UnsetType = UNSET,
        failed: int | UnsetType = UNSET,
        cancelled: int | UnsetType = UNSET,
        skipped: int | UnsetType = UNSET,
        title: str | UnsetType = UNSET,
        next_action: str | UnsetType = UNSET,
        chars: int | UnsetType = UNSET,
    ) -> None:
        """A stage ends, if it has not ended yet. The counts are a draft stage's, the last three a step's."""
        if stage.id not in self._open:
            return
        _, began = self._open.pop(stage.id)
        data = StageFinished(
            ended_by=ended_by,
            drafts=drafts,
            partial=partial,
            failed=failed,
            cancelled=cancelled,
            skipped=0 if skipped is UNSET and drafts is not UNSET else skipped,
            title=title,
            next_action=next_action,
            chars=chars,
            duration_ms=round((self.run.monotonic() - began) * 1000),
        )
        self.run.tell(data, stage=stage)

    def degrade(self, level: str, reason: str, members: Sequence[str] = ()) -> None:
        """The answer will be less than the whole panel's."""
        self.level = level
        self.run.tell(RunDegraded(level, reason, tuple(members)))

    def draft_began(self) -> None:
        """A member has said its first word."""
        begun, self.begun = self.begun, None
        if begun is not None:
            begun()

    def text_began(self) -> None:
        """The answer's first text has come."""
        if self.first_text_ms is None:
            self.first_text_ms = self.run.elapsed_ms

    def complete(self, call: Call, answer_by: str | None, finish_reason: str, used: Sequence[str]) -> None:
        """The answer is whole, or ended early in good order. What it tells of itself goes into ``call``."""
        if self.run.ended:
            return
        usage = self._sum_up()
        caching = {log.id: part.caching.outcome for log, part in self.parts if part.caching is not None}
        call.answer = AnswerInfo(
            strategy=self._strategy,
            level=self.level,
            answer_by=answer_by,
            members=tuple(
                CallInfo(
                    one.id,
                    one.model,
                    one.state,
                    one.usage,
                    one.code,
                    money(one.cost),
                    one.warnings,
                    caching.get(one.id, ""),
                )
                for one in self.calls
            ),
            agreement=self.agreement,
            steps=self.steps,
            plain_body=self.plain_body,
        )
        told, cost = token_usage(usage), money(self.cost)
        if finish_reason in EARLY_ENDS:
            self.run.tell(
                RunIncomplete(
                    reason=finish_reason,
                    answer_by=answer_by,
                    level=self.level,
                    finish_reason=finish_reason,
                    used=tuple(used),
                    usage=told,
                    cost=cost,
                    timings=self._timings(),
                )
            )
            return
        self.run.tell(
            RunCompleted(
                answer_by=answer_by,
                level=self.level,
                finish_reason=finish_reason,
                used=tuple(used),
                usage=told,
                cost=cost,
                timings=self._timings(),
            )
        )

    def fail(self, error: ServerError) -> None:
        """The run fails; whatever is open is closed first."""
        if self.run.ended:
            return
        self._close_stages()
        usage = self._sum_up()
        self.run.tell(
            RunFailed(
                error=ErrorInfo(error.message, error.type, error.param, error.code),
                members=self.failures,
                level=self.level,
                usage=token_usage(usage),
                cost=money(self.cost),
                timings=self._timings(),
            )
        )

    def cancel(self, by: str | None = None) -> None:
        """The run is given up: ``by`` shutdown, or whoever asked for it, or because the client left."""
        if self.run.ended:
            return
        self._close_stages()
        usage = self._sum_up()
        self.run.tell(
            RunCancelled(
                by=by or self.cancelled_by,
                level=self.level,
                usage=token_usage(usage),
                cost=money(self.cost),
                timings=self._timings(),
            )
        )

    @property
    def cancelled_by(self) -> str:
        """``client``, ``watcher`` or ``shutdown``."""
        return self.run.cancelled_by or "client"

    def _sum_up(self) -> Usage | None:
        """Have the run know what its calls used."""
        usage = self.run.usage = self.usage
        self.run.spent = self.spent
        return usage

    def _close_stages(self) -> None:
        for stage, _ in list(self._open.values()):
            self.end_stage(stage, "cancelled")

    def _timings(self) -> Timings:
        def told(value: int | None) -> int | UnsetType:
            return UNSET if value is None else value

        return Timings(
            quorum_ms=told(self.quorum_ms),
            drafts_ms=told(self.drafts_ms),
            first_text_ms=told(self.first_text_ms),
            total_ms=self.run.elapsed_ms,
        )
