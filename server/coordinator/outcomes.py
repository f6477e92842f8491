"""What became of a member, and what its combination may still answer from.

A member's failure is a value. The ladder from a full panel down to an error is decided here, from values
alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import msgspec
from msgspec.structs import replace

from server.coordinator.plan import Plan, PlannedCall
from server.coordinator.tool_calls import ToolCall, meaning
from server.errors import AllMembersFailed, InvalidRequest, ServerError, UpstreamRefused
from server.events import MemberFailure, StageRef

# Why there is no draft of a member that did nothing wrong.
_NO_FAULTS = frozenset({"budget", "set_aside", "cancelled"})


class Draft(msgspec.Struct, frozen=True):
    """A member's answer. ``complete`` is false for one that was cut, of which this is the beginning.

    ``refusal`` tells that the text is a refusal. ``finish_reason`` is None for a cut draft, and ``by_hand``
    tells that a watcher cut it. ``calls`` are those of tools that it makes, beside its text or without any.
    """

    call: PlannedCall
    text: str
    finish_reason: str | None
    complete: bool = True
    refusal: bool = False
    calls: tuple[ToolCall, ...] = ()
    by_hand: bool = False

    @property
    def shortened(self) -> bool:
        """Does it end before its end, be it cut or out of tokens?"""
        return not self.complete or self.finish_reason == "length"


class Failure(msgspec.Struct, frozen=True):
    """A member that gave nothing to answer from.

    ``code`` is the error's, or ``cancelled``, ``invalid_draft``, ``budget`` or ``set_aside``.
    ``retry_after_s``: who failed has named this time (seconds). ``refused``: the upstream judged the request
    at fault, and its field ``param`` if it named one.
    """

    call: PlannedCall
    code: str
    message: str
    http_status: int | None = None
    retryable: bool = False
    too_slow: bool = False
    retry_after_s: float | None = None
    refused: bool = False
    param: str | None = None

    @classmethod
    def of(cls, call: PlannedCall, error: ServerError) -> Failure:
        """The failure that ``error`` is."""
        return cls(
            call,
            error.code,
            error.message,
            http_status=error.upstream_status,
            retryable=error.retryable,
            too_slow=error.status == 504,
            retry_after_s=error.retry_after_s,
            # The client named the combination: that a member's model is gone is no mistake of the request.
            refused=isinstance(error, UpstreamRefused | InvalidRequest)
            and not error.retryable
            and error.upstream_status != 404,
            param=error.param,
        )


Outcome: TypeAlias = Draft | Failure


class Gathered(msgspec.Struct, frozen=True):
    """The outcomes of a draft stage, in the order of the configuration.

    ``ended_by`` is ``all``, ``quorum``, ``deadline`` or ``answer_now``. ``called`` is the draft whose calls
    of tools are the answer, if that is what most want.
    """

    plan: Plan
    stage: StageRef
    outcomes: tuple[Outcome, ...]
    ended_by: str
    called: Draft | None = None

    @property
    def drafts(self) -> list[Draft]:
        """All that can be answered from, cut drafts too."""
        return [one for one in self.outcomes if isinstance(one, Draft)]

    @property
    def complete(self) -> list[Draft]:
        """The drafts that are whole."""
        return [one for one in self.drafts if one.complete]

    @property
    def failures(self) -> list[Failure]:
        """The members that gave nothing."""
        return [one for one in self.outcomes if isinstance(one, Failure)]

    @property
    def level(self) -> str:
        """The rung of the ladder before any summary: none, quorum, partial or lone."""
        complete, drafts = len(self.complete), len(self.drafts)
        if drafts == 1 and complete == 1:
            return "lone"
        if complete < drafts or complete < self.plan.quorum:
            return "partial"
        return "none" if complete == len(self.outcomes) else "quorum"

    @property
    def reason(self) -> str:
        """Why it is not the whole panel: what ended the stage, or that members failed; ``all`` if it is."""
        whole = len(self.complete) == len(self.outcomes)
        if self.ended_by != "all" or whole:
            return self.ended_by
        codes = {failure.code for failure in self.failures}
        codes |= {"cancelled" if draft.by_hand else "failed" for draft in self.drafts if not draft.complete}
        return codes.pop() if len(codes) == 1 and codes <= _NO_FAULTS else "failed"

    @property
    def strongest(self) -> Draft | None:
        """The whole draft of the greatest weight, the first of equals."""
        return max(self.complete, key=lambda draft: draft.call.member.weight, default=None)

    def weighed(self) -> Gathered:
        """Do most, by weight, call tools? Then ``called`` is set; else drafts that do are set aside.

        Of several sets of calls the one with the most support counts, as its strongest member made it.
        """
        complete = self.complete
        callers = [draft for draft in complete if draft.calls]
        if not callers:
            return self
        if 2 * _weight(callers) > _weight(complete):
            tallies = support(callers)
            most = max(tallies.values())
            winners = [draft for draft in callers if tallies[meaning(draft.calls)] == most]
            return replace(self, called=max(winners, key=lambda draft: draft.call.member.weight))
        words = "The member called tools, and most did not."
        return replace(
            self,
            outcomes=tuple(
                Failure(one.call, "set_aside", words) if one in callers else one for one in self.outcomes
            ),
        )

    def require(self) -> None:
        """Raise ``AllMembersFailed`` if there is nothing to answer from, or too little."""
        drafts = len(self.drafts)
        if drafts >= max(1, self.plan.min_success):
            return
        slow = bool(self.failures) and all(failure.too_slow for failure in self.failures)
        if drafts:
            message = (
                f"Only {drafts} of {len(self.outcomes)} members gave a draft, "
                f"{self.plan.min_success} are wanted; try again later."
            )
        elif self.failures and all(failure.refused for failure in self.failures):
            raise self._refusal()
        else:
            message = "No member of the combination gave a draft; see error.details.members, and try again."
        error = AllMembersFailed(
            message,
            code="too_few_drafts" if drafts else None,
            status=504 if slow else None,
            details={"members": [_detail(failure) for failure in self.failures]},
        )
        if not any(failure.retryable or failure.too_slow for failure in self.failures):
            error.should_retry = False  # the same request would fail in the same way
        error.retry_after_s = self._retry_after_s()
        raise error

    def _refusal(self) -> AllMembersFailed:
        """Every upstream blames the request: the client's mistake, told as by a single model."""
        words = {failure.message for failure in self.failures}
        codes = {failure.code for failure in self.failures}
        fields = {failure.param for failure in self.failures}
        error = AllMembersFailed(
            words.pop()
            if len(words) == 1
            else "Every member refused the request; see error.details.members.",
            code=codes.pop() if len(codes) == 1 else None,
            param=fields.pop() if len(fields) == 1 else None,
            status=400,
            details={"members": [_detail(failure) for failure in self.failures]},
        )
        error.type = InvalidRequest.type
        error.should_retry = False
        return error

    def _retry_after_s(self) -> float | None:
        """When there may be drafts enough, in seconds; None if some failure that may pass named no time."""
        passing = [failure for failure in self.failures if failure.retryable or failure.too_slow]
        times = sorted(one.retry_after_s for one in passing if one.retry_after_s is not None)
        wanted = max(1, self.plan.min_success) - len(self.drafts)
        return times[wanted - 1] if len(times) == len(passing) >= wanted else None


def support(drafts: Sequence[Draft]) -> Mapping[tuple[str, ...], float]:
    """The weight of the members behind each set of calls; see ``meaning``."""
    tallies: defaultdict[tuple[str, ...], float] = defaultdict(float)
    for draft in drafts:
        if draft.calls:
            tallies[meaning(draft.calls)] += draft.call.member.weight
    return tallies


def told_failures(failures: Sequence[Failure]) -> tuple[MemberFailure, ...]:
    """The failures as ``run.failed`` tells them."""
    return tuple(
        MemberFailure(failure.call.id, failure.code, failure.http_status, failure.retryable)
        for failure in failures
    )


def _detail(failure: Failure) -> dict[str, Any]:
    return {
        "id": failure.call.id,
        "model": failure.call.model,
        "code": failure.code,
        "message": failure.message,
    }


def _weight(drafts: Sequence[Draft]) -> float:
    return sum(draft.call.member.weight for draft in drafts)
