"""The run of one model's answer, which mostly nobody watches.

While nobody does, it tells nothing: a few figures are noted, and its events are made of them when somebody
reads. That they were not made before shows nowhere but in the processor's time: a plain request would spend
a third of it on events.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import msgspec
from msgspec import UNSET

from server.chat import ChatRequest
from server.coordinator.call_log import BUG
from server.coordinator.model_log import ModelLog
from server.coordinator.run_book import EARLY_ENDS, IN_PROGRESS, STAGES, RunBook
from server.deltas import Usage
from server.errors import ServerError
from server.events import (
    MemberFailure,
    MemberRef,
    ModelFinished,
    ModelFirstToken,
    ModelStarted,
    PlannedMember,
    RunCompleted,
    RunCreated,
    RunIncomplete,
    RunQueued,
    StageFinished,
    StageStarted,
    Timings,
    token_usage,
)
from server.prices import Prices, Units, cost_of, money
from server.run_log import Lane, Run, Told
from server.upstreams.base import Call

MEMBER = "m1"
_STAGE = STAGES["draft", 1]


def created_for(run: Run, model: str, *, stream: bool) -> RunCreated:
    """What the run of one plain model's answer begins with."""
    return RunCreated(
        response_id=run.response_id,
        model=run.model,
        strategy="direct",
        stream=stream,
        members=(PlannedMember(MEMBER, model),),
        background=True if run.background else UNSET,
        warnings=run.warnings or UNSET,
    )


class OneCall(ModelLog):
    """The one call of a run, and all that the run tells. ``complete`` or ``broke_off`` ends it.

    ``created`` is the run's first event, where it is not the usual one. Until its call begins the run is
    queued; it says so if it has to wait.
    """

    __slots__ = ("_begun", "_book", "_created", "_first_told", "_quiet", "_started_ms")

    def __init__(
        self,
        run: Run,
        model: str,
        chat: ChatRequest,
        created: RunCreated | None = None,
        prices: Prices | None = None,
    ) -> None:
        super().__init__(run, _STAGE, MemberRef(MEMBER, model), chat, lane=Lane(MEMBER), prices=prices)
        self._lane.answer = True
        self._created = created
        self._started_ms: int | None = None
        self._first_told: tuple[int, int, str] | None = None
        self._book: RunBook | None = None
        self._begun = False  # has it been told that the run is in progress?
        self._quiet = run.keep_quiet(self)
        run.strategy = "direct"
        if not self._quiet:
            for _, data, stage, member in self.tell(run):
                run.tell(data, stage=stage, member=member)

    def queued(self, channel: str) -> None:
        """See ``Observer``. Before all else it is the run that waits."""
        self._break_silence()
        if self._begun:
            super().queued(channel)
        elif not (self._queued or self.ended):
            self._queued = True
            self.run.tell(RunQueued("channel", channel=channel))

    def attempt(self, number: int, channel: str) -> None:
        """See ``Observer``."""
        if number > 1:
            self._break_silence()
        super().attempt(number, channel)

    def retrying(self, error: ServerError, *, delay_s: float, next_attempt: int, same_channel: bool) -> None:
        """See ``Observer``."""
        self._break_silence()
        super().retrying(error, delay_s=delay_s, next_attempt=next_attempt, same_channel=same_channel)

    def noted(
        self, channel: str, state: str, *, reason: str | None = None, for_s: float | None = None
    ) -> None:
        """See ``Observer``."""
        self._break_silence()
        if not self.ended:
            self._begin()
        super().noted(channel, state, reason=reason, for_s=for_s)

    def adapted(self, channel: str, warnings: tuple[str, ...]) -> None:
        """See ``Observer``."""
        self._break_silence()
        super().adapted(channel, warnings)

    def complete(self, call: Call) -> None:
        """The answer is whole. ``call.answer`` stays None: there is nothing to tell of it."""
        run = self.run
        if self._quiet and self._reported is not None and self.state == "started":
            self.state = "finished"
            run.usage = self._reported
            reason = self.finish_reason or "stop"
            story = _Story(
                model=self.model,
                stream=self.request.stream,
                created=self._created,
                started_ms=self._started_ms or 0,
                channel=self.channel,
                first_told=self._first_told,
                first_text_ms=self.first_text_ms,
                finish_reason=reason,
                chars=self._lane.chars["text"],
                latency_ms=self.latency_ms,
                ended_ms=run.elapsed_ms,
                usage=self._reported,
                prices=self.prices,
                billed=self._billed,
            )
            run.end_quietly(story, "incomplete" if reason in EARLY_ENDS else "completed")
            return
        book = self._speak()
        self.finished()
        book.first_text_ms = self.first_text_ms
        book.end_stage(_STAGE, "all", drafts=1, partial=0, failed=0, cancelled=0)
        book.complete(call, MEMBER, self.finish_reason or "stop", (MEMBER,))

    def broke_off(self, error: BaseException) -> None:
        """The answer ended by ``error``: a failure, a cancellation, or a bug."""
        book = self._speak()
        self._begin()
        if isinstance(error, asyncio.CancelledError | GeneratorExit):
            self.cancelled(book.cancelled_by)
            book.end_stage(_STAGE, "cancelled", drafts=0, partial=0, failed=0, cancelled=1)
            book.cancel()
            return
        told = error if isinstance(error, ServerError) else ServerError(BUG)
        self.failed(told)
        book.end_stage(_STAGE, "all", drafts=0, partial=0, failed=1, cancelled=0)
        book.failures = (MemberFailure(MEMBER, told.code, told.upstream_status, told.retryable),)
        book.fail(told)

    def tell(self, run: Run) -> Iterator[Told]:
        """See ``run_log.run.Story``."""
        self._quiet = False
        self._book = RunBook(run, calls=[self])
        run.adopt(self._lane)
        created = self._created or created_for(run, self.model, stream=self.request.stream)
        started = None
        if self.state != "queued":
            started = self._started_ms or 0, self.channel
            self._begun = True
            self._book.stage_began(_STAGE, self.began)
        yield from _beginning(created, started, self._first_told, self._member)

    def _break_silence(self) -> None:
        """Something comes up that is no part of an even course; after the end nothing does."""
        if self._quiet and not self.ended:
            self.run.speak()

    def _speak(self) -> RunBook:
        """From now on everything is told as it happens."""
        self.run.speak()
        assert self._book is not None  # the run has asked ``tell``
        return self._book

    def _begin(self) -> None:
        """The run is in progress from now on, and so is its only stage."""
        if not self._begun:
            self._begun = True
            assert self._book is not None  # ``tell`` has been called
            self._book.begin()
            self._book.stage_began(_STAGE, self.run.monotonic() if self._queued else self.began)
            self.run.tell(StageStarted((MEMBER,)), stage=_STAGE)

    def _tell_started(self, channel: str | None) -> None:
        if not self._quiet:
            self._begin()
            super()._tell_started(channel)
            return
        self._started_ms = self.run.elapsed_ms
        self.run.status = "in_progress"

    def _tell_first(self, ttft_ms: int, kind: str) -> None:
        if not self._quiet:
            super()._tell_first(ttft_ms, kind)
            return
        self._first_told = (self.run.elapsed_ms, ttft_ms, kind)


def _beginning(
    created: RunCreated,
    started: tuple[int, str | None] | None,
    first: tuple[int, int, str] | None,
    member: MemberRef,
) -> Iterator[Told]:
    yield 0, created, None, None
    if started is not None:
        at_ms, channel = started
        yield at_ms, IN_PROGRESS, None, None
        yield at_ms, StageStarted((MEMBER,)), _STAGE, None
        yield at_ms, ModelStarted() if channel is None else ModelStarted(channel), _STAGE, member
    if first is not None:
        at_ms, ttft_ms, kind = first
        yield at_ms, ModelFirstToken(ttft_ms, kind), _STAGE, member


class _Story(msgspec.Struct, frozen=True, gc=False):
    """All that is kept of a quiet run that ended well: one small object. Times in ms since its acceptance.

    Its only stage, and its only call, begin with it.
    """

    model: str
    stream: bool
    created: RunCreated | None
    started_ms: int
    channel: str | None
    first_told: tuple[int, int, str] | None
    first_text_ms: int | None
    finish_reason: str
    chars: int
    latency_ms: int
    ended_ms: int
    usage: Usage
    prices: Prices | None
    billed: Units | None

    @property
    def cost(self) -> Units | None:
        """See ``CallLog``."""
        if self.billed is not None or self.prices is None:
            return self.billed
        rate = self.prices.on(self.channel)
        return None if rate is None else cost_of(rate, self.usage)

    def tell(self, run: Run) -> Iterator[Told]:
        """See ``run_log.run.Story``."""
        member, usage, ended_ms = MemberRef(MEMBER, self.model), token_usage(self.usage), self.ended_ms
        created = self.created or created_for(run, self.model, stream=self.stream)
        started = (self.started_ms, self.channel)
        yield from _beginning(created, started, self.first_told, member)
        cost = money(self.cost)
        told_cost = UNSET if cost is None else cost
        finished = ModelFinished(self.finish_reason, self.chars, self.latency_ms, usage, told_cost)
        yield ended_ms, finished, _STAGE, member
        stage = StageFinished(
            ended_by="all",
            drafts=1,
            partial=0,
            failed=0,
            cancelled=0,
            skipped=0,
            duration_ms=self.latency_ms,
        )
        yield ended_ms, stage, _STAGE, None
        timings = Timings(total_ms=ended_ms)
        if self.first_text_ms is not None:
            timings = Timings(first_text_ms=self.first_text_ms, total_ms=ended_ms)
        reason = self.finish_reason
        end: RunCompleted | RunIncomplete
        if reason in EARLY_ENDS:
            end = RunIncomplete(
                reason=reason,
                answer_by=MEMBER,
                level="none",
                finish_reason=reason,
                used=(MEMBER,),
                usage=usage,
                cost=cost,
                timings=timings,
            )
        else:
            end = RunCompleted(
                answer_by=MEMBER,
                level="none",
                finish_reason=reason,
                used=(MEMBER,),
                usage=usage,
                cost=cost,
                timings=timings,
            )
        yield ended_ms, end, None, None
