"""One member's call in a draft stage: its stream is read, and becomes a draft or a failure."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing
from typing import Protocol

from server.chat import ChatRequest
from server.coordinator.call_log import BUG
from server.coordinator.model_log import ModelLog
from server.coordinator.outcomes import Draft, Failure, Outcome
from server.coordinator.plan import Plan, PlannedCall
from server.coordinator.tool_calls import ToolCall, ToolCalls, Tools
from server.deltas import Batch
from server.errors import ContentFiltered, RunCancelled, ServerError, UpstreamEmpty, UpstreamInvalid
from server.openai_wire import kept_in
from server.upstreams.base import Call, Upstream

# Stands in a chunk that has pictures, and in few others.
_PICTURES = b'"images"'
PICTURES_LOST = "images of the draft were left out: drafts are texts"
# An answer that ends so may hold no text.
CALLS = frozenset({"tool_calls", "function_call"})


class Live(Protocol):
    """Whoever wants a member's text while it comes, not only as a draft. ``place`` is the member's."""

    async def hear(self, place: int, batch: Batch) -> None:
        """A batch has come; waits while the client is behind."""

    def end(self, place: int, reason: str) -> None:
        """The member says no more."""


class MemberCall:
    """One planned call. ``outcome`` is None while it runs; ``settled`` is called when it gets one,
    ``heard`` at its first word.

    ``carry_out`` runs as ``task`` in the run's group; ``give_up`` ends it from outside. ``why`` says why it
    was cancelled where nobody gave it up. ``tools`` are those that it may call, None where calls are nothing
    that is looked at here.
    """

    def __init__(
        self,
        planned: PlannedCall,
        plan: Plan,
        log: ModelLog,
        *,
        settled: Callable[[], None],
        heard: Callable[[], None],
        why: Callable[[], str],
        live: Live | None = None,
        fits: Callable[[str], bool] | None = None,
        tools: Tools | None = None,
    ) -> None:
        self.planned = planned
        self.log = log
        self.outcome: Outcome | None = None
        self.broken = False  # by a mistake of ours
        self.error: ServerError | None = None  # why it failed, if it did
        self._plan = plan
        self._settled = settled
        self._heard = heard
        self._spoke = False
        self._showed = False  # pictures, which no draft can hold
        self._why = why
        self._live = live
        self._fits = fits
        self._tools = tools
        self._calls = ToolCalls()
        self.task: asyncio.Task[None] | None = None

    async def carry_out(self, upstream: Callable[[], Upstream], request: ChatRequest, call: Call) -> None:
        """Read the answer to its end. A failure is an outcome; anything else is a bug, and surfaces."""
        try:
            async with aclosing(upstream().stream(request, call)) as batches:
                async for batch in batches:
                    self.log.take(batch)
                    if self._tools is not None:
                        self._calls.take(batch)
                    if not self._spoke and self.log.said:
                        self._spoke = True
                        self._heard()
                    if self._live is not None:
                        await self._live.hear(self.planned.place, batch)
                    elif not self._showed and _shows(batch):
                        self._showed = True
                        before = () if call.warnings is None else call.warnings[1]
                        call.adapted(call.channel, (*before, PICTURES_LOST))
            self._settle(self._finish())
        except ServerError as error:
            if self.outcome is None:
                self._settle(self._fail(error))
        except asyncio.CancelledError:
            self.give_up(self._why())
            raise
        except Exception:
            self.broken = True
            self.log.failed(ServerError(BUG))
            raise

    def give_up(self, reason: str) -> None:
        """End the call now, if it runs: what it said is a draft, if that is allowed and enough."""
        if self.outcome is not None:
            return
        self._end_live("error")
        by_hand = reason in ("client", "watcher")
        partial = self._partial(by_hand=by_hand)
        if reason == "watcher":
            self.error = RunCancelled("A watcher cancelled the call whose words the answer was.")
        self.log.cancelled(reason, partial=partial is not None)
        # Too slow, or not wanted any more: either way it is no fault of an upstream's.
        failure = Failure(
            self.planned,
            "cancelled",
            "The member was cancelled." if by_hand else "The member did not finish in time.",
            retryable=True,
            too_slow=reason in ("deadline", "quorum"),
        )
        self._settle(partial or failure)
        if self.task is not None and self.task is not asyncio.current_task():
            self.task.cancel()

    @property
    def is_usable(self) -> bool:
        """Is there a draft, or would there be one if the call ended now?"""
        if self.outcome is None:
            return self._partial() is not None
        return isinstance(self.outcome, Draft)

    def skip(self, reason: str, error: ServerError | None = None) -> None:
        """Say that the call, which was not started, is not made; ``error``: that is a failure."""
        if self.task is None and self.outcome is None:
            self.error = error
            self.log.skipped(reason)
            self._settle(Failure(self.planned, reason, "The member was not asked."))

    def _finish(self) -> Outcome:
        """The stream is complete: is it a draft?"""
        log, calls = self.log, self._calls.made
        if log.finish_reason == "content_filter":
            return self._fail(ContentFiltered("The model's answer was cut off by moderation."))
        if not (log.text or calls) and not (self._live is not None and log.finish_reason in CALLS):
            return self._fail(UpstreamEmpty("The model's answer holds no text."))
        if (wrong := self._wrong(calls)) is not None:
            return self._fail(UpstreamInvalid(wrong, code="invalid_draft"))
        log.finished()
        reason = "tool_calls" if calls else log.finish_reason or "stop"
        self._end_live(reason)
        return Draft(self.planned, log.text, reason, refusal=log.refused, calls=calls)

    def _wrong(self, calls: Sequence[ToolCall]) -> str | None:
        """Why the whole answer is none that was asked for; None if it is one."""
        if calls:
            allowed = self._tools is not None and self._tools.allow(calls)
            if not allowed:
                return "The model called a tool that was not offered, or with wrong arguments."
            return None
        if self._tools is not None and self._tools.needed and not self.log.refused:
            return "The model called no tool, and a call was asked for."
        if self._fits is not None and not self._fits(self.log.text):
            return "The model's answer is not the JSON that was asked for."
        return None

    def _fail(self, error: ServerError) -> Outcome:
        self.error = error
        self._end_live("error")
        partial = self._partial()
        self.log.failed(error, partial=partial is not None)
        return partial or Failure.of(self.planned, error)

    def _partial(self, *, by_hand: bool = False) -> Draft | None:
        """The unfinished text as a draft. Cut JSON is none, nor is what began to call tools."""
        settings = self._plan.settings
        text = self.log.text
        if not (settings.partial_drafts and text) or self._fits is not None or self._calls.made:
            return None
        if len(text) < settings.partial_min_chars:
            return None
        refusal = self.log.refused
        return Draft(self.planned, text, None, complete=False, refusal=refusal, by_hand=by_hand)

    def _end_live(self, reason: str) -> None:
        if self._live is not None and self.log.said:
            self._live.end(self.planned.place, reason)

    def _settle(self, outcome: Outcome) -> None:
        self.outcome = outcome
        self._settled()


def _shows(batch: Batch) -> bool:
    """Are there pictures in it?"""
    return any(
        _PICTURES in original.data and (kept := kept_in(original.data)) is not None and kept.images
        for delta in batch
        if (original := delta.original) is not None
    )
