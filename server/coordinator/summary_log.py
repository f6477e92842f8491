"""What one call of the summary stage tells, as ``summary.*``."""

from __future__ import annotations

from msgspec import UnsetType
from msgspec.structs import replace

from server.chat import ChatRequest
from server.coordinator.call_log import CallLog
from server.errors import ServerError
from server.events import (
    StageRef,
    SummaryAdapted,
    SummaryChannel,
    SummaryFailed,
    SummaryFinished,
    SummaryFirstToken,
    SummaryStarted,
    token_usage,
)
from server.prices import Prices
from server.run_log import Run


class SummaryLog(CallLog):
    """A call of the summary stage, told as ``summary.*``. It is told as started when it is made.

    ``told`` is what ``summary.started`` says; its ``attempt`` counts on over the stage's models.
    """

    __slots__ = ("_open", "_told")

    def __init__(
        self,
        run: Run,
        stage: StageRef,
        told: SummaryStarted,
        chat: ChatRequest,
        *,
        keep: bool = False,
        prices: Prices | None = None,
    ) -> None:
        super().__init__(run, stage, "summary", told.model, chat, keep=keep, prices=prices)
        self._told = told
        self._open = False  # told as begun, and not yet as ended
        self._lane.answer = True
        self._started(None)
        self.paid = False

    @property
    def attempts_told(self) -> int:
        """The number of the last attempt."""
        return self._told.attempt

    def queued(self, channel: str) -> None:
        """See ``Observer``. A summary that waits for a slot has been told as started."""

    def attempt(self, number: int, channel: str) -> None:
        """See ``Observer``."""
        if self.ended:
            return
        self.paid = True
        self.channel = channel
        if number > 1:
            self.warnings = ()
            self._told = replace(self._told, attempt=self._told.attempt + 1)
            self._tell_started(channel)

    def retrying(self, error: ServerError, *, delay_s: float, next_attempt: int, same_channel: bool) -> None:
        """See ``Observer``. Each attempt has an end of its own."""
        if not self.ended:
            self._tell_failed(error.code, error.upstream_status, retryable=error.retryable)

    def finished(self) -> None:
        """The answer is complete."""
        if self.ended:
            return
        self._close("finished")
        data = SummaryFinished(
            self.finish_reason or "stop",
            self.chars,
            self.latency_ms,
            token_usage(self.usage),
            self.told_cost,
        )
        self.run.tell(data, stage=self.stage)

    def failed(self, error: ServerError) -> None:
        """The call failed."""
        if self.ended:
            return
        self._close("failed", error.code)
        self._tell_failed(error.code, error.upstream_status, retryable=error.retryable)

    def cancelled(self) -> None:
        """The call is given up."""
        if self.ended:
            return
        self._close("cancelled", "cancelled")
        self._tell_failed("cancelled", None, retryable=False)

    def _tell_failed(self, code: str, http_status: int | None, *, retryable: bool) -> None:
        if self._open:  # not so while it waits for its next attempt
            self._open = False
            data = SummaryFailed(code, http_status, retryable, self.chars, self.told_cost)
            self.run.tell(data, stage=self.stage)

    def _tell_started(self, channel: str | None) -> None:
        self._open = True
        self.run.tell(self._told, stage=self.stage)

    def _tell_first(self, ttft_ms: int, kind: str) -> None:
        self.run.tell(SummaryFirstToken(ttft_ms, kind), stage=self.stage)

    def _tell_channel(
        self, state: str, reason: str | UnsetType, for_ms: int | UnsetType, channel: str
    ) -> None:
        self.run.tell(SummaryChannel(state, reason, for_ms, channel), stage=self.stage)

    def _tell_adapted(self, channel: str, warnings: tuple[str, ...]) -> None:
        self.run.tell(SummaryAdapted(warnings, channel), stage=self.stage)
