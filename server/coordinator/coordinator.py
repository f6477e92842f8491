"""One run of a combination: its members are called at once, and gathered within the limits.

A strategy is a coroutine over a ``Coordinator``; it owns no time-out, no retry and no event. Everything that
it starts runs in one task group, and is cancelled with it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence

import msgspec

from server.chat import ChatRequest
from server.coordinator.call_log import ModelLog
from server.coordinator.channel import AnswerChannel
from server.coordinator.member import Live, MemberCall
from server.coordinator.outcomes import Draft, Gathered, told_failures
from server.coordinator.plan import Plan, PlannedCall
from server.coordinator.requests import draft_request
from server.coordinator.run_book import RunBook
from server.deltas import Finished, Opening, RefusalDelta, TextDelta
from server.errors import ModelNotFound
from server.events import MemberRef, StageDeadlineReached, StageQuorumReached, StageRef
from server.settings import MEMBER_TIMEOUTS
from server.upstreams.base import Call, Upstream

# The stage ends its calls at the deadline; their own clocks, which would call it a failure, come later.
LATER_S = 1.0


class Answer(msgspec.Struct, frozen=True):
    """Who answered: ``by`` is ``summary`` or a member's id, ``used`` the members it was made from."""

    by: str
    finish_reason: str
    used: tuple[str, ...]


class Coordinator:
    """What a strategy works with. Times are the event loop's, in seconds.

    ``models`` finds who answers under a name, ``group`` holds the members' tasks, ``answer`` takes what the
    client gets, ``rng`` makes seeds and fences. All of it is the owner's; nothing is closed here.
    """

    def __init__(
        self,
        book: RunBook,
        plan: Plan,
        chat: ChatRequest,
        call: Call,
        *,
        models: Callable[[str], Upstream],
        group: asyncio.TaskGroup,
        answer: AnswerChannel,
        rng: random.Random,
    ) -> None:
        self.book = book
        self.plan = plan
        self.chat = chat
        self.call = call
        self.models = models
        self.answer = answer
        self.rng = rng
        self._group = group
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._members: list[MemberCall] = []
        self.deadline = self._loop.time() - book.run.elapsed_ms / 1000 + plan.deadline_s
        if call.deadline is not None:
            self.deadline = min(self.deadline, call.deadline - LATER_S)

    @property
    def as_json(self) -> str | None:
        """``json_object`` or ``json_schema`` if the client wants JSON."""
        wanted = self.chat.fields.response_format
        kind = wanted.get("type") if wanted else None
        name = msgspec.json.decode(kind) if kind is not None else None
        return name if name in ("json_object", "json_schema") else None

    def sight(self, model: str) -> bool | None:
        """Does the model see images? None: nobody says."""
        return sight(self.models, model)

    async def draft(self, live: Live | None = None) -> Gathered:
        """Ask all members at once, and gather their drafts within quorum, grace and deadline.

        Raises ``AllMembersFailed`` if there is nothing, or too little, to answer from.
        """
        plan, book = self.plan, self.book
        stage = book.begin_stage("draft", [planned.id for planned in plan.calls])
        members = self._members = [self._member(planned, stage, live) for planned in plan.calls]
        for member in members:
            self._start(member)
        try:
            ended_by = await self._gather(stage)
        except asyncio.CancelledError:
            self._end_stage(stage, self._why(), "cancelled")
            raise
        self._end_stage(stage, ended_by, ended_by)
        book.drafts_ms = book.run.elapsed_ms
        outcomes = tuple(member.outcome for member in members if member.outcome is not None)
        gathered = Gathered(plan, stage, outcomes, ended_by)
        book.failures = told_failures(gathered.failures)
        gathered.require()
        if gathered.level != "none":
            whole = {draft.call.id for draft in gathered.complete}
            missing = [planned.id for planned in plan.calls if planned.id not in whole]
            book.degrade(gathered.level, gathered.reason, missing)
        return gathered

    async def send_draft(self, draft: Draft) -> Answer:
        """Give the client a draft word for word."""
        log = next(member.log for member in self._members if member.planned is draft.call)
        log.becomes_answer()
        self.book.text_began()
        reason = draft.finish_reason or "stop"
        text = RefusalDelta(draft.text) if draft.refusal else TextDelta(draft.text)
        await self.answer.send([Opening(), text, Finished(reason)])
        return Answer(draft.call.id, reason, (draft.call.id,))

    def _member(self, planned: PlannedCall, stage: StageRef, live: Live | None) -> MemberCall:
        request = self._request(planned)
        ref = MemberRef(planned.id, planned.model, planned.sample)
        log = ModelLog(self.book.run, stage, ref, request, keep=True)
        if live is not None:
            log.becomes_answer()
        self.book.calls.append(log)
        return MemberCall(
            planned,
            self.plan,
            log,
            settled=self._note_outcome,
            why=self._why,
            live=live,
            # Choices that go out while they come are the client's to judge.
            as_json=live is None and self.as_json is not None,
        )

    def _request(self, planned: PlannedCall) -> ChatRequest:
        return draft_request(self.chat, self.plan, planned, blind=self.sight(planned.model) is False)

    def _start(self, member: MemberCall) -> None:
        planned, settings = member.planned, self.plan.settings
        call = Call(
            timeouts=planned.member.timeouts.over(settings.timeouts.over(MEMBER_TIMEOUTS)),
            deadline=self.deadline + LATER_S,
            attempts=planned.member.attempts or settings.attempts,
            observer=member.log,
            run=self.book.run,
            depth=self.call.depth + 1,
        )
        work = member.carry_out(lambda: self.models(planned.model), member.log.request, call)
        member.task = self._group.create_task(work, name=f"member {planned.id}")

    async def _gather(self, stage: StageRef) -> str:
        """Wait until the stage is over; what ended it: ``all``, ``quorum`` or ``deadline``."""
        plan, total = self.plan, len(self._members)
        until, ended_by, quorum_told = self.deadline, "deadline", False
        while any(member.outcome is None for member in self._members):
            drafts = self._complete()
            if drafts >= plan.quorum and not quorum_told:
                quorum_told = True
                data = StageQuorumReached(drafts, total, round(plan.grace_s * 1000))
                self.book.run.tell(data, stage=stage)
                if (grace_ends := self._loop.time() + plan.grace_s) < self.deadline:
                    until, ended_by = grace_ends, "quorum"
            try:
                async with asyncio.timeout_at(until):
                    await self._changed.wait()
            except TimeoutError:
                if ended_by == "deadline":
                    self.book.run.tell(StageDeadlineReached(self._complete(), total), stage=stage)
                return ended_by
            self._changed.clear()
        return "all"

    def _why(self) -> str:
        """Why the run is cancelled: a mistake of ours in one member, or somebody's wish."""
        return "failed" if any(member.broken for member in self._members) else self.book.cancelled_by

    def _note_outcome(self) -> None:
        self._changed.set()
        if self.book.quorum_ms is None and self._complete() >= self.plan.quorum:
            self.book.quorum_ms = self.book.run.elapsed_ms

    def _complete(self) -> int:
        return sum(
            1 for member in self._members if isinstance(member.outcome, Draft) and member.outcome.complete
        )

    def _end_stage(self, stage: StageRef, reason: str, ended_by: str) -> None:
        """Give up those that still run, for ``reason``, and tell the end, at once and in this order."""
        for member in self._members:
            member.give_up(reason)
        drafts = [member.outcome for member in self._members if isinstance(member.outcome, Draft)]
        states = [member.log.state for member in self._members]
        self.book.end_stage(
            stage,
            ended_by,
            drafts=sum(draft.complete for draft in drafts),
            partial=sum(not draft.complete for draft in drafts),
            failed=states.count("failed"),
            cancelled=states.count("cancelled"),
        )


def sight(models: Callable[[str], Upstream], model: str) -> bool | None:
    """Does the model see images? None: nobody says, or there is no such model (its call will tell)."""
    try:
        seen: bool | None = getattr(models(model), "vision", None)
    except ModelNotFound:
        return None
    return seen


def ids(drafts: Sequence[Draft]) -> tuple[str, ...]:
    """The members whose drafts these are, in the order of the configuration."""
    return tuple(draft.call.id for draft in sorted(drafts, key=lambda draft: draft.call.place))
