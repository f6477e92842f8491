"""What a member's call, or the one call of a plain model's run, tells: ``model.*``."""

from __future__ import annotations

from msgspec import UnsetType
from msgspec.structs import replace

from server.chat import ChatRequest
from server.coordinator.call_log import CallLog
from server.errors import ServerError
from server.events import (
    MemberRef,
    ModelAdapted,
    ModelCancelled,
    ModelChannel,
    ModelFailed,
    ModelFinished,
    ModelFirstToken,
    ModelHedged,
    ModelQueued,
    ModelRetrying,
    ModelSkipped,
    ModelStarted,
    StageRef,
    token_usage,
)
from server.prices import Prices
from server.run_log import Lane, Run


class ModelLog(CallLog):
    """A member's call, told as ``model.*``."""

    __slots__ = ("_member", "_queued")

    def __init__(
        self,
        run: Run,
        stage: StageRef,
        member: MemberRef,
        chat: ChatRequest,
        *,
        keep: bool = False,
        lane: Lane | None = None,
        prices: Prices | None = None,
    ) -> None:
        super().__init__(run, stage, member.id, member.model, chat, keep=keep, lane=lane, prices=prices)
        self._member = member
        self._queued = False
        self._lane.member = member

    def queued(self, channel: str) -> None:
        """See ``Observer``. Told once, before the start: a retry that waits has started long ago."""
        if self.state == "queued" and not self._queued:
            self._queued = True
            self.run.tell(ModelQueued("channel", channel), stage=self.stage, member=self._member)

    def attempt(self, number: int, channel: str) -> None:
        """See ``Observer``."""
        if self.ended:
            return
        self.channel = channel
        if number > 1:
            self.attempts = number
            self.warnings = ()
            self._member = self._lane.member = replace(self._member, attempt=number)
        self._started(channel)

    def retrying(self, error: ServerError, *, delay_s: float, next_attempt: int, same_channel: bool) -> None:
        """See ``Observer``."""
        if self.ended:
            return
        self._started(None)
        data = ModelRetrying(
            error.code, error.upstream_status, round(delay_s * 1000), next_attempt, same_channel
        )
        self.run.tell(data, stage=self.stage, member=self._member)

    def hedged(self, after_ms: int, next: str) -> None:
        """The call was silent for so long that member ``next`` is asked beside it."""
        self.run.tell(ModelHedged(after_ms, next), stage=self.stage, member=self._member)

    def finished(self) -> None:
        """The call is complete."""
        if self.ended:
            return
        self._started(None)
        self._close("finished")
        data = ModelFinished(
            self.finish_reason or "stop",
            self.chars,
            self.latency_ms,
            token_usage(self.usage),
            self.told_cost,
        )
        self.run.tell(data, stage=self.stage, member=self._member)

    def failed(self, error: ServerError, *, partial: bool = False) -> None:
        """The call failed; ``partial``: its text is used as a draft."""
        if self.ended:
            return
        self._close("failed", error.code)
        data = ModelFailed(
            code=error.code,
            http_status=error.upstream_status,
            retryable=error.retryable,
            attempts=self.attempts,
            latency_ms=self.latency_ms,
            chars=self.chars,
            partial=partial,
            usage=token_usage(self.usage),
            cost=self.told_cost,
            message=error.message,
        )
        self.run.tell(data, stage=self.stage, member=self._member)

    def cancelled(self, reason: str, *, partial: bool = False) -> None:
        """The call is given up; ``partial``: its text is used as a draft."""
        if self.ended:
            return
        self._close("cancelled", "cancelled")
        data = ModelCancelled(
            reason=reason,
            chars=self.chars,
            partial=partial,
            latency_ms=self.latency_ms,
            usage=token_usage(self.usage),
            cost=self.told_cost,
        )
        self.run.tell(data, stage=self.stage, member=self._member)

    def skipped(self, reason: str) -> None:
        """The call is not made."""
        if not self.ended:
            self.state = "skipped"
            self.run.tell(ModelSkipped(reason), stage=self.stage, member=self._member)

    def _tell_started(self, channel: str | None) -> None:
        data = ModelStarted(channel) if channel is not None else ModelStarted()
        self.run.tell(data, stage=self.stage, member=self._member)

    def _tell_first(self, ttft_ms: int, kind: str) -> None:
        self.run.tell(ModelFirstToken(ttft_ms, kind), stage=self.stage, member=self._member)

    def _tell_channel(
        self, state: str, reason: str | UnsetType, for_ms: int | UnsetType, channel: str
    ) -> None:
        self.run.tell(ModelChannel(state, reason, for_ms, channel), stage=self.stage, member=self._member)

    def _tell_adapted(self, channel: str, warnings: tuple[str, ...]) -> None:
        self.run.tell(ModelAdapted(warnings, channel), stage=self.stage, member=self._member)
