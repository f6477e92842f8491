"""What one call of a run tells: its events, its figures, its text.

It is the call's ``Observer`` and is handed each batch. Nothing is told after its end, so an upstream that is
still closing cannot speak out of turn.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from msgspec import UNSET, UnsetType

from server.chat import ChatRequest
from server.coordinator.ledger import Hold
from server.deltas import (
    Batch,
    Delta,
    Finished,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
    Usage,
    UsageDelta,
)
from server.errors import UpstreamInvalid
from server.events import (
    StageRef,
)
from server.prices import UNITS, Prices, Units, cost_of
from server.run_log import Lane, Run
from server.token_estimates import Weighing, estimate_usage

# Code points of a text that is kept for later use (a draft); beyond them the call fails.
MAX_TEXT = 8 * 1024 * 1024
BUG = "The server made a mistake; please report it with the request's id."


class CallLog(ABC):
    """One call's figures; ``ModelLog`` or ``SummaryLog`` tells them.

    ``state`` is as in the run's snapshot: queued, started, finished, failed, cancelled or skipped. With
    ``keep`` the answer's text is kept. ``lane`` is given where it is not to be one of the run's yet.
    ``began`` is the run's monotonic time; ``said``: has anything come? ``prices`` are the model's, None if
    nobody has said; ``channel`` is where the last attempt went, None if that is not sure. ``warnings``
    tell what was adapted in the request of the last attempt.
    """

    __slots__ = (
        "_billed",
        "_lane",
        "_parts",
        "_reported",
        "_spent",
        "_unseen",
        "_wide",
        "attempts",
        "began",
        "channel",
        "code",
        "finish_reason",
        "first_text_ms",
        "hold",
        "id",
        "model",
        "paid",
        "prices",
        "refused",
        "request",
        "run",
        "said",
        "stage",
        "state",
        "warnings",
    )

    def __init__(
        self,
        run: Run,
        stage: StageRef,
        id: str,
        model: str,
        chat: ChatRequest,
        *,
        keep: bool = False,
        lane: Lane | None = None,
        prices: Prices | None = None,
    ) -> None:
        self.run = run
        self.stage = stage
        self.id = id
        self.model = model
        self.state = "queued"
        self.attempts = 1
        self.code: str | None = None
        self.finish_reason: str | None = None
        self.first_text_ms: int | None = None  # since the run's acceptance
        self.refused = False
        self.paid = False  # was it sent, so that it costs something even if cut?
        self.request = chat
        self.began = run.monotonic()
        self.prices = prices
        self.hold: Hold | None = None
        self.channel: str | None = None
        self.warnings: tuple[str, ...] = ()
        self._reported: Usage | None = None
        self._billed: Units | None = None  # what the answer says of its cost
        self._spent: Usage | None = None  # what of the usage was used now, if that is not all
        self.said = False
        self._unseen = 0  # weight that costs tokens but stands in no text of the lane's first choice
        self._wide = Weighing()  # pieces that are not plain ASCII
        self._parts: list[str] | None = [] if keep else None
        self._lane = run.lane(id) if lane is None else lane
        self._lane.stage = stage
        if keep:
            self._lane.keep()  # the same pieces of text: a watcher that comes late gets all of it

    @property
    def ended(self) -> bool:
        """Has the end been told?"""
        return self.state in ("finished", "failed", "cancelled", "skipped")

    @property
    def chars(self) -> int:
        """Code points of the answer's text so far."""
        return self._lane.chars["text"]

    @property
    def text(self) -> str:
        """The text so far, or the refusal; only with ``keep``."""
        return "".join(self._parts or ())

    @property
    def latency_ms(self) -> int:
        """Milliseconds since the call began."""
        return round((self.run.monotonic() - self.began) * 1000)

    @property
    def usage(self) -> Usage | None:
        """What the upstream reported, else an estimate; None for a call that cost nothing."""
        if self._reported is not None:
            return self._reported
        weight = sum(self._lane.chars.values()) + self._wide.beyond + self._unseen
        if not weight and not (self.paid and self.state in ("finished", "cancelled")):
            return None
        return estimate_usage(self.request, weight)

    @property
    def spent(self) -> Usage | None:
        """What of ``usage`` was used now: nothing where the answer is that of another call."""
        return self.usage if self._spent is None else self._spent

    @property
    def cost(self) -> Units | None:
        """What the call costs; None for one that cost nothing, or if that is not known."""
        if self._billed is not None:
            return self._billed
        rate = None if self.prices is None else self.prices.on(self.channel)
        if rate is None or (usage := self.usage) is None:
            return None
        cost = cost_of(rate, usage)
        if self.state == "cancelled" and rate.bills_cancelled:
            limit = self.request.max_tokens
            return None if limit is None else max(cost, rate.most(usage.prompt_tokens, limit))
        return cost

    @property
    def told_cost(self) -> float | UnsetType:
        """The cost as the call's end tells it: not at all where it is not known."""
        cost = self.cost
        return UNSET if cost is None else cost / UNITS

    def _close(self, state: str, code: str | None = None) -> None:
        """The call has ended; what was set aside for it is settled."""
        self.state, self.code = state, code
        if self.hold is not None:
            self.hold.settle(0 if self.usage is None else self.cost)

    def becomes_answer(self) -> None:
        """The client's answer is this call's text."""
        self._lane.answer = True

    def take(self, batch: Batch) -> None:
        """Count what a batch brought. Raises ``UpstreamInvalid`` when a kept text grows beyond bounds."""
        for delta in batch:
            if type(delta) is TextDelta:
                text = delta.text
                if self.first_text_ms is None:
                    self._first_text()
                if not text.isascii():
                    self._wide.add(text)
                if delta.index:
                    self._unseen += len(text)
                    continue
                self._lane.add("text", text)
                if self._parts is not None:
                    self._keep(text)
            elif type(delta) is UsageDelta:
                self._reported = delta.usage
                if delta.cost is not None:
                    self._billed = delta.cost
                if delta.spent is not None and self._spent is None:
                    self._spent = delta.spent
            elif type(delta) is Finished:
                if not delta.index or self.finish_reason is None:
                    self.finish_reason = delta.reason
            else:
                self._take_other(delta)

    def _take_other(self, delta: Delta) -> None:
        match delta:
            case ReasoningDelta():
                self._note("reasoning", delta.text, delta.index)
            case RefusalDelta():
                self.refused = True
                self._note("refusal", delta.text, delta.index)
                if self._parts is not None and not delta.index:
                    self._keep(delta.text)
            case ToolCallDelta():
                # For people to read, call by call.
                name = f"{delta.name} " if delta.name else ""
                begins = "\n" if name and delta.position else ""
                self._note("tool_call", begins + name + delta.arguments, delta.index)
            case _:
                pass

    def _note(self, kind: str, text: str, index: int) -> None:
        if not self.said:
            self._first(kind)
        if not text.isascii():
            self._wide.add(text)
        if index:
            self._unseen += len(text)
        else:
            self._lane.add(kind, text)

    def _keep(self, text: str) -> None:
        assert self._parts is not None
        self._parts.append(text)
        if sum(self._lane.chars.values()) > MAX_TEXT:
            raise UpstreamInvalid("The model's answer is far too long to be kept.")

    def _first_text(self) -> None:
        if not self.said:
            self._first("text")
        self.first_text_ms = self.run.elapsed_ms

    def _first(self, kind: str) -> None:
        self.said = True
        if self.ended:
            return
        self._started(None)
        self._tell_first(round((self.run.monotonic() - self.began) * 1000), kind)

    def _started(self, channel: str | None) -> None:
        if self.state == "queued":
            self.state = "started"
            self.paid = True
            self._tell_started(channel)

    def noted(
        self, channel: str, state: str, *, reason: str | None = None, for_s: float | None = None
    ) -> None:
        """See ``Observer``."""
        if self.ended:
            return
        if state == "hedged":
            self.channel = None  # whoever speaks first
        elif state in ("kept", "shared"):
            self._billed, self._spent = 0, Usage()  # another call has paid for it
        for_ms = UNSET if for_s is None else round(for_s * 1000)
        self._tell_channel(state, UNSET if reason is None else reason, for_ms, channel)

    def adapted(self, channel: str, warnings: tuple[str, ...]) -> None:
        """See ``Observer``."""
        if not self.ended:
            self.warnings = warnings
            self._tell_adapted(channel, warnings)

    @abstractmethod
    def _tell_channel(
        self, state: str, reason: str | UnsetType, for_ms: int | UnsetType, channel: str
    ) -> None: ...

    @abstractmethod
    def _tell_adapted(self, channel: str, warnings: tuple[str, ...]) -> None: ...

    @abstractmethod
    def _tell_started(self, channel: str | None) -> None: ...

    @abstractmethod
    def _tell_first(self, ttft_ms: int, kind: str) -> None: ...
