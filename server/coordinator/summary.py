"""The summary stage: one model writes the answer from the drafts, live; what stands in for it if it fails."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing
from typing import TypeAlias

import msgspec

from server.chat import ChatRequest
from server.coordinator.call_log import BUG
from server.coordinator.ceiling import most_of, too_dear
from server.coordinator.coordinator import Answer, Coordinator, ids
from server.coordinator.fitting import LEAST_DRAFT, Fit, fit
from server.coordinator.outcomes import Gathered
from server.coordinator.prompts import show, summary_turns
from server.coordinator.requests import summary_request
from server.coordinator.summary_log import SummaryLog
from server.deltas import (
    Batch,
    Delta,
    Extra,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
    UsageDelta,
)
from server.errors import ModelNotFound, ServerError, UpstreamEmpty, UpstreamInvalid
from server.events import StageRef, SummaryFallback, SummaryStarted
from server.settings import Summary, Timeouts, TimeoutsPatch
from server.upstreams.base import Call, TimeoutsAt

BEST_DRAFT = "best_draft"
_OF_THE_CALL = frozenset({UsageDelta, Extra})
_SAYS = frozenset({TextDelta, ReasoningDelta, RefusalDelta, ToolCallDelta})


Shape: TypeAlias = Callable[[Batch], Batch]


class FailedEarly(Exception):
    """A summary call failed, in ``attempts`` tries, before the client got anything of it."""

    def __init__(self, error: ServerError, attempts: int) -> None:
        super().__init__(error.message)
        self.error = error
        self.attempts = attempts


async def summarize(
    run: Coordinator, gathered: Gathered, *, notes: str | None = None, model: str | None = None
) -> Answer:
    """Have the answer written. Raises the summary's error where nothing stands in for it.

    ``notes`` are what other models said of the drafts; ``model`` writes instead of the summary's own.
    """
    summary = run.plan.summary
    assert summary is not None  # the plan of every strategy that comes here has one
    if model is not None:
        summary = msgspec.structs.replace(summary, model=model)
    strongest = gathered.strongest
    if strongest is not None and _fit(run, gathered, summary, summary.model) is None:
        run.book.degrade("partial", "context_length", ids([strongest]))
        return await run.send_draft(strongest)
    stage = run.book.begin_stage("summary", ("summary",))
    writer = _Writer(run, gathered, summary, stage, notes)
    failed: ServerError | None = None
    for name in (summary.model, *summary.fallback):
        if name == BEST_DRAFT:
            break
        if failed is not None:
            run.book.run.tell(SummaryFallback("model", model=name), stage=stage)
            run.book.degrade("summary_fallback", failed.code)
        try:
            return await writer.write(name)
        except FailedEarly as error:
            failed = error.error
    assert failed is not None
    if strongest is None or not (BEST_DRAFT in summary.fallback or failed.code == "invalid_draft"):
        run.book.end_stage(stage, "all")
        raise failed
    run.book.run.tell(SummaryFallback("draft", member=strongest.call.id), stage=stage)
    run.book.end_stage(stage, "all")
    run.book.degrade("best_draft", failed.code)
    return await run.send_draft(strongest)


class _Writer:
    """The calls of one summary stage: the same seed and fence for all of them."""

    def __init__(
        self, run: Coordinator, gathered: Gathered, summary: Summary, stage: StageRef, notes: str | None
    ) -> None:
        self._run = run
        self._gathered = gathered
        self._summary = summary
        self._stage = stage
        self._notes = notes
        self._seed = run.seed
        self._fence = run.fence
        self._attempt = 1

    async def write(self, model: str) -> Answer:
        """One model's try. Raises ``FailedEarly`` if the client has got nothing, else the ``ServerError``."""
        run, summary, plan = self._run, self._summary, self._run.plan
        shown_as = _fit(run, self._gathered, summary, model) or Fit(
            tuple(self._gathered.drafts), LEAST_DRAFT, 0
        )
        settings = plan.settings
        shown = show(
            shown_as.drafts, order=settings.order, seed=self._seed, draft_tokens=shown_as.draft_tokens
        )
        sight = run.sight(model)
        turns = summary_turns(
            run.chat,
            shown,
            summary,
            fence=self._fence,
            # Who says nothing of sight sees only if it was configured for images.
            sees=sight is True or (plan.vision_summary and sight is None),
            history=shown_as.history,
            notes=self._notes,
        )
        told = SummaryStarted(
            model,
            self._attempt,
            tuple(one.draft.call.id for one in shown),
            self._seed if settings.order == "shuffled" else None,
            ids([one.draft for one in shown if one.cut or one.draft.shortened]),
        )
        request = summary_request(run.chat, summary, model, turns, tools=plan.settings.tools == "summary")
        try:
            log = await stream_answer(
                run,
                self._stage,
                told,
                request,
                timeouts=_timeouts(summary.timeouts),
                attempts=summary.attempts,
            )
        except FailedEarly as error:
            self._attempt = error.attempts + 1
            raise
        return Answer("summary", log.finish_reason or "stop", ids(shown_as.drafts))


async def stream_answer(
    run: Coordinator,
    stage: StageRef,
    told: SummaryStarted,
    request: ChatRequest,
    *,
    timeouts: TimeoutsAt | None = None,
    attempts: int = 2,
    shape: Shape | None = None,
    keep: bool = False,
) -> SummaryLog:
    """Have ``told.model`` write the answer, live, and end the stage; the finished call.

    ``shape`` changes what the client gets, ``keep`` keeps the text in the call. Raises ``FailedEarly``, with
    the stage still open, if the client has got nothing of it, else the ``ServerError``.
    """
    # Text under a schema goes out only when it is known to fit; so it is kept. Any JSON of a plain answer can
    # be looked at too: nobody waits for its beginning.
    whole = run.as_json == "json_schema" or (run.as_json is not None and not run.chat.stream)
    prices = run.prices(told.model)
    log = SummaryLog(run.book.run, stage, told, request, keep=whole or keep, prices=prices)
    run.book.calls.append(log)
    call = Call(
        timeouts=timeouts,
        attempts=attempts,
        observer=log,
        run=run.book.run,
        depth=run.call.depth + 1,
    )
    call.images = run.images
    run.book.parts.append((log, call))
    relay = _Relay(run, log, whole=whole, shape=shape)
    try:
        _reserve(run, log)
        async with aclosing(run.models(told.model).stream(request, call)) as batches:
            async for batch in batches:
                await relay.take(batch)
        await relay.end()
    except ServerError as error:
        log.failed(error)
        if not relay.begun:
            raise FailedEarly(error, log.attempts_told) from error
        run.book.end_stage(stage, "all")
        raise
    except asyncio.CancelledError:
        log.cancelled()
        raise
    except Exception:
        log.failed(ServerError(BUG))  # it surfaces; the log says so too
        raise
    log.finished()
    run.book.end_stage(stage, "all")
    return log


def _reserve(run: Coordinator, log: SummaryLog) -> None:
    """Set aside what the call costs at most, in place of what was for it. Raises if there is no room."""
    if (ledger := run.book.ledger) is None:
        return
    ledger.release()
    log.hold = ledger.reserve(most_of(run.models, log.model, log.request))
    if log.hold is None:
        raise too_dear()


class _Relay:
    """Hands the summary's batches on, from its first word on; the sum of usage goes out at the run's end."""

    def __init__(self, run: Coordinator, log: SummaryLog, *, whole: bool, shape: Shape | None) -> None:
        self.begun = False
        self._run = run
        self._log = log
        self._whole = whole
        self._shape = shape
        self._held: list[Delta] = []

    async def take(self, batch: Sequence[Delta]) -> None:
        self._log.take(batch)
        if any(type(delta) in _OF_THE_CALL for delta in batch):
            batch = [delta for delta in batch if not is_of_the_call(delta)]
        if not self.begun:
            self._held += batch
            if self._whole or not any(type(delta) in _SAYS for delta in batch):
                return
            batch = self._release()
        if self._run.book.first_text_ms is None and any(type(delta) is TextDelta for delta in batch):
            self._run.book.text_began()
        await self._send(batch)

    async def end(self) -> None:
        """The stream is complete: raise if it said nothing, or not what was asked for."""
        if self.begun:
            return
        if not self._log.said:
            raise UpstreamEmpty("The summary model answered without any text; try again later.")
        if not self._log.refused and not self._run.fits_format(self._log.text):
            raise UpstreamInvalid("The answer is not the JSON that was asked for.", code="invalid_draft")
        self._run.book.text_began()
        await self._send(self._release())

    async def _send(self, batch: Batch) -> None:
        if self._shape is not None:
            batch = self._shape(batch)
        if batch:
            await self._run.answer.send(batch)

    def _release(self) -> list[Delta]:
        self.begun = True
        held, self._held = self._held, []
        return held


def is_of_the_call(delta: Delta) -> bool:
    """Does it tell of the summary's call alone: its usage, or a chunk without any choice?"""
    if type(delta) is UsageDelta:
        return True
    return type(delta) is Extra and (delta.original is None or b'"choices":[]' in delta.original.data)


def _fit(run: Coordinator, gathered: Gathered, summary: Summary, model: str) -> Fit | None:
    try:
        context: int | None = getattr(run.models(model), "context_length", None)
    except ModelNotFound:
        context = None
    return fit(run.chat, gathered.drafts, summary, context)


def _timeouts(said: TimeoutsPatch) -> TimeoutsAt | None:
    """The channel's own clocks, but for what is set."""
    return None if said == TimeoutsPatch() else lambda channel: said.over(channel.over(Timeouts()))
