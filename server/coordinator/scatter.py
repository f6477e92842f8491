"""Some calls of one stage at once: started, waited for, and given up, with one end each.

The draft stages and the judges' stages are made of it. A strategy that starts its members one by one (a race,
a fallback) does so here.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence

import msgspec

from server.answer_cache import Caching
from server.chat import ChatRequest
from server.coordinator.ceiling import most_of, too_dear
from server.coordinator.member import Live, MemberCall
from server.coordinator.model_log import ModelLog
from server.coordinator.outcomes import Draft, Outcome
from server.coordinator.plan import Plan, PlannedCall
from server.coordinator.run_book import RunBook
from server.coordinator.steering import Steering
from server.coordinator.tool_calls import Tools
from server.events import MemberRef, StageRef
from server.settings import MEMBER_TIMEOUTS, Combination, Member
from server.upstreams.base import Call, TimeoutsAt, Upstream, prices_by_name
from server.upstreams.image_sharing import RunImages

# The stage ends its calls at the deadline; their own clocks, which would call it a failure, come later.
LATER_S = 1.0


class Within(msgspec.Struct, frozen=True):
    """What calls are made within: the run, its task group, and whom it may ask.

    ``images`` are those that all calls show. ``caching`` says what may be done with kept drafts; None:
    nothing.
    """

    book: RunBook
    plan: Plan
    group: asyncio.TaskGroup
    models: Callable[[str], Upstream]
    depth: int
    steering: Steering
    images: RunImages
    caching: Caching | None = None


class Scatter:
    """One stage and its calls. It must be ended by ``end``, which gives up what still runs, or ``close``.

    ``deadline`` is event loop time; None: only the calls' own clocks end them. ``live`` hears the calls while
    they come, ``fits`` refuses drafts that are not in the form asked for, ``tools`` are those that they may
    call. ``besides`` counts what there is to answer from already. ``hurried``: a watcher wants the answer
    now; ``gathers`` is made false where it is on its way.
    """

    def __init__(
        self,
        within: Within,
        stage: StageRef,
        calls: Sequence[tuple[PlannedCall, ChatRequest]],
        *,
        deadline: float | None,
        live: Live | None = None,
        answers: bool = False,
        fits: Callable[[str], bool] | None = None,
        tools: Tools | None = None,
        besides: int = 0,
    ) -> None:
        self.stage = stage
        self.over = asyncio.Event()
        self.places: Counter[str] = Counter()
        self.gathers = True
        self.hurried = False
        self._besides = besides
        self._within = within
        self._deadline = deadline
        self._changed = asyncio.Event()
        self.members = [
            self._member(planned, request, live, answers, fits, tools) for planned, request in calls
        ]
        within.steering.opened(self)

    @property
    def running(self) -> list[MemberCall]:
        """Those that were started and have no outcome yet."""
        return [one for one in self.members if one.task is not None and one.outcome is None]

    @property
    def waiting(self) -> list[MemberCall]:
        """Those that were not started."""
        return [one for one in self.members if one.task is None and one.outcome is None]

    @property
    def outcomes(self) -> tuple[Outcome, ...]:
        """What is known by now, in the order of the configuration."""
        return tuple(one.outcome for one in self.members if one.outcome is not None)

    @property
    def complete(self) -> int:
        """How many whole drafts there are."""
        return sum(isinstance(one, Draft) and one.complete for one in self.outcomes)

    def start(self, member: MemberCall) -> None:
        """Begin a call, if the run's budget has room for it."""
        planned, settings = member.planned, self._within.plan.settings
        if not self._affords(member):
            member.skip("budget", too_dear())
            return
        call = Call(
            timeouts=_timeouts(planned.member, settings),
            deadline=None if self._deadline is None else self._deadline + LATER_S,
            attempts=planned.member.attempts or settings.attempts,
            observer=member.log,
            run=self._within.book.run,
            depth=self._within.depth + 1,
        )
        call.siblings, call.images = self, self._within.images
        if self._within.caching is not None and self.stage.id == "draft.1":
            call.caching = self._within.caching.of_member(planned.id)
        self._within.book.parts.append((member.log, call))
        work = member.carry_out(lambda: self._within.models(planned.model), member.log.request, call)
        member.task = self._within.group.create_task(work, name=f"member {planned.id}")

    def _affords(self, member: MemberCall) -> bool:
        """May the call be made? If so, what it costs at most is set aside."""
        ledger, keep = self._within.book.ledger, self._within.plan.keep
        if ledger is None:
            return True
        if self.stage.name == "draft" and keep is not None and member.planned.place >= keep:
            return False
        log = member.log
        log.hold = ledger.reserve(most_of(self._within.models, log.model, log.request))
        return log.hold is not None

    def start_all(self) -> None:
        """Begin every call."""
        for member in self.members:
            self.start(member)

    @property
    def can_answer(self) -> bool:
        """Are there drafts enough, cut ones too, if the stage ended now? Judges need not have spoken."""
        if self.stage.name not in ("draft", "step"):
            return True
        needed = self._within.plan.min_success if self.stage.name == "draft" else 1
        return self._besides + sum(one.is_usable for one in self.members) >= max(1, needed)

    def enough(self) -> bool:
        """Are there drafts enough? They answer sooner than a restart of a call that failed."""
        plan = self._within.plan
        return self.stage.name == "draft" and self._besides + self.complete >= plan.quorum

    def hurry(self) -> None:
        """End the stage now: whoever waits for it sees ``hurried``."""
        self.hurried = True
        self.note()

    def note(self) -> None:
        """Wake who waits for a change."""
        self._changed.set()

    async def change(self, until: float | None) -> bool:
        """Wait for the next change; False if ``until`` (event loop time) came first."""
        try:
            async with asyncio.timeout_at(until):
                await self._changed.wait()
        except TimeoutError:
            return False
        self._changed.clear()
        return True

    def why(self) -> str:
        """Why the run is cancelled: a mistake of ours in one member, or somebody's wish."""
        return "failed" if any(one.broken for one in self.members) else self._within.book.cancelled_by

    def close(self) -> None:
        """Nobody can steer it any more."""
        self._within.steering.closed(self)

    def end(self, reason: str, ended_by: str) -> None:
        """Give up those that still run, for ``reason``, and tell the end, at once and in this order."""
        for member in self.members:
            member.give_up(reason)
        self.close()
        if self.stage.name != "draft":
            self._within.book.end_stage(self.stage, ended_by)
            return
        drafts = [one for one in self.outcomes if isinstance(one, Draft)]
        states = [member.log.state for member in self.members]
        self._within.book.end_stage(
            self.stage,
            ended_by,
            drafts=sum(draft.complete for draft in drafts),
            partial=sum(not draft.complete for draft in drafts),
            failed=states.count("failed"),
            cancelled=states.count("cancelled"),
            skipped=states.count("skipped"),
        )

    def _member(
        self,
        planned: PlannedCall,
        request: ChatRequest,
        live: Live | None,
        answers: bool,
        fits: Callable[[str], bool] | None,
        tools: Tools | None,
    ) -> MemberCall:
        book = self._within.book
        log = ModelLog(
            book.run,
            self.stage,
            MemberRef(planned.id, planned.model, planned.sample),
            request,
            keep=True,
            prices=prices_by_name(self._within.models, planned.model),
        )
        if answers:
            log.becomes_answer()
        book.calls.append(log)
        return MemberCall(
            planned,
            self._within.plan,
            log,
            settled=self._settled,
            heard=book.draft_began,
            why=self.why,
            live=live,
            fits=fits,
            tools=tools,
        )

    def _settled(self) -> None:
        self._changed.set()
        book = self._within.book
        if (
            self.stage.name == "draft"
            and book.quorum_ms is None
            and self.complete >= self._within.plan.quorum
        ):
            book.quorum_ms = book.run.elapsed_ms


def _timeouts(member: Member, combination: Combination) -> TimeoutsAt:
    """Whoever is nearest to the call decides; what nobody has set is what a member's call has by default."""
    said = member.timeouts.over(combination.timeouts)
    return lambda channel: said.over(channel.over(MEMBER_TIMEOUTS))
