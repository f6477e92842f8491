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
from server.coordinator.channel import AnswerChannel
from server.coordinator.json_shape import fits
from server.coordinator.ledger import Ledger
from server.coordinator.member import Live
from server.coordinator.outcomes import Draft, Gathered, told_failures
from server.coordinator.patience import Patience
from server.coordinator.plan import PASSING, Plan, PlannedCall, members_call, tools_field
from server.coordinator.prompts import new_fence
from server.coordinator.requests import draft_request
from server.coordinator.run_book import RunBook
from server.coordinator.scatter import LATER_S, Scatter, Within
from server.coordinator.steering import Steering
from server.coordinator.tool_calls import Tools
from server.deltas import Delta, Finished, Opening, RefusalDelta, TextDelta, ToolCallDelta
from server.errors import InvalidRequest, ModelNotFound
from server.events import StageDeadlineReached, StageQuorumReached
from server.prices import Prices
from server.upstreams.base import Call, Upstream, prices_by_name
from server.upstreams.image_sharing import RunImages

# A seed fits into a JSON number that every client reads exactly.
SEED_BITS = 31


class Answer(msgspec.Struct, frozen=True):
    """Who answered: ``by`` is ``summary`` or a member's id, ``used`` the members it was made from."""

    by: str
    finish_reason: str
    used: tuple[str, ...]


class Coordinator:
    """What a strategy works with. Times are the event loop's, in seconds.

    ``models`` finds who answers under a name, ``group`` holds the members' tasks, ``answer`` takes what the
    client gets, ``rng`` makes seeds and fences, ``patience`` knows how fast members were, ``steering`` which
    stages are open. All of it is the owner's; nothing is closed here.
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
        patience: Patience,
        steering: Steering,
    ) -> None:
        self.book = book
        self.plan = plan
        self.chat = chat
        self.call = call
        self.models = models
        self.answer = answer
        self.rng = rng
        self.patience = patience
        if plan.max_cost is not None:
            book.ledger = Ledger(plan.max_cost)
            book.ledger.set_aside(plan.summary_most)
        # A combination within another shows what that one shows.
        self.images = call.images or RunImages()
        self._within = Within(
            book, plan, group, models, call.depth, steering, self.images, caching=call.caching
        )
        self._loop = asyncio.get_running_loop()
        self._tools = Tools(chat) if members_call(plan) and tools_field(chat) is not None else None
        self._seed: int | None = None
        self._fence: str | None = None
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

    @property
    def has_tools(self) -> bool:
        """Does the answer's model, and it alone, get the client's tools?"""
        return self.plan.settings.tools == "summary" and tools_field(self.chat) is not None

    def is_settled(self, gathered: Gathered) -> bool:
        """Is one draft the answer already: the only one, or that whose calls most agree on?

        The only one is not where the model that writes the answer alone can call tools.
        """
        return gathered.called is not None or (gathered.level == "lone" and not self.has_tools)

    def fits_format(self, text: str) -> bool:
        """Is this text what ``response_format`` asks for? Anything is, where it asks for nothing."""
        if self.as_json is None:
            return True
        try:
            value = msgspec.json.decode(text)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return False
        if self.as_json != "json_schema":
            return True
        wanted = self.chat.fields.response_format or {}
        try:
            schema = msgspec.json.decode(wanted["json_schema"])["schema"]
        except (KeyError, TypeError, msgspec.DecodeError):
            return True  # the upstream's to judge
        return fits(value, schema)

    def sight(self, model: str) -> bool | None:
        """Does the model see images? None: nobody says."""
        return sight(self.models, model)

    def takes_json(self, model: str) -> bool:
        """Is the model known to take ``response_format: json_object``?"""
        return _ability(self.models, model, "json_mode") is True

    def prices(self, model: str) -> Prices | None:
        """What the model costs; None if nobody has said."""
        return prices_by_name(self.models, model)

    @property
    def seed(self) -> int:
        """The seed of every shuffle of this run, so that each stage shows the drafts in the same order."""
        if self._seed is None:
            self._seed = self.rng.getrandbits(SEED_BITS)
        return self._seed

    @property
    def fence(self) -> str:
        """The name of this run's tag around drafts."""
        if self._fence is None:
            self._fence = new_fence(self.rng)
        return self._fence

    async def draft(self, live: Live | None = None, *, chooses: bool = False) -> Gathered:
        """Ask all members at once, and gather their drafts within quorum, grace and deadline.

        ``chooses``: one of the whole drafts is to be the answer. Raises ``AllMembersFailed`` if there is
        nothing, or too little, to answer from.
        """
        gathered = await self.gather([(one, self.request(one)) for one in self.plan.calls], live=live)
        return self.accept(gathered, alone_is_whole=self.has_tools, chooses=chooses)

    async def gather(
        self,
        calls: Sequence[tuple[PlannedCall, ChatRequest]],
        *,
        number: int = 1,
        live: Live | None = None,
        besides: int = 0,
    ) -> Gathered:
        """Make these calls as draft stage ``number``, which has ``besides`` drafts of others to fall back on.

        Raises nothing for a lack of drafts: see ``accept``.
        """
        scatter = self.scatter(
            "draft", calls, number=number, live=live, answers=live is not None, besides=besides
        )
        scatter.start_all()
        try:
            ended_by = await self._wait(scatter)
        except asyncio.CancelledError:
            scatter.end(scatter.why(), "cancelled")
            raise
        scatter.end(ended_by, ended_by)
        self.book.drafts_ms = self.book.run.elapsed_ms
        return Gathered(self.plan, scatter.stage, scatter.outcomes, ended_by)

    @property
    def left_s(self) -> float:
        """Seconds until the deadline."""
        return self.deadline - self._loop.time()

    def accept(self, gathered: Gathered, *, alone_is_whole: bool = False, chooses: bool = False) -> Gathered:
        """Note what the drafts are worth; calls of tools are weighed. Raises ``AllMembersFailed`` if that is
        too little.

        ``alone_is_whole``: the one draft of a panel of one lacks nothing. ``chooses``: cut drafts are not
        used as long as there is a quorum of whole ones.
        """
        self.book.failures = told_failures(gathered.failures)
        gathered.require()
        gathered = gathered.weighed()
        if gathered.level == "none" or (alone_is_whole and len(gathered.outcomes) == 1):
            return gathered
        level = gathered.level
        if alone_is_whole and level == "lone":
            level = "partial" if self.plan.quorum > 1 else "quorum"
        if chooses and level == "partial" and len(gathered.complete) >= self.plan.quorum:
            level = "quorum"
        whole = {draft.call.id for draft in gathered.complete}
        missing = [one.call.id for one in gathered.outcomes if one.call.id not in whole]
        self.book.degrade(level, gathered.reason, missing)
        return gathered

    def scatter(
        self,
        name: str,
        calls: Sequence[tuple[PlannedCall, ChatRequest]],
        *,
        number: int = 1,
        live: Live | None = None,
        answers: bool = False,
        besides: int = 0,
    ) -> Scatter:
        """Begin stage ``name`` with these calls; none is started yet."""
        stage = self.book.begin_stage(name, [planned.id for planned, _ in calls], number)
        return Scatter(
            self._within,
            stage,
            calls,
            deadline=self.deadline if name == "draft" else None,
            live=live,
            answers=answers,
            besides=besides,
            # What goes out while it comes is the client's to judge.
            fits=self.fits_format if name == "draft" and live is None and self.as_json else None,
            tools=self._tools if name == "draft" and live is None else None,
        )

    def request(self, planned: PlannedCall) -> ChatRequest:
        """What a member is asked for its first draft."""
        blind = self.sight(planned.model) is False
        return draft_request(self.chat, self.plan, planned, blind=blind, calls=self.calls(planned.model))

    def calls(self, model: str) -> bool:
        """May the model call tools, as far as is known?"""
        return calls_tools(self.models, model) is not False

    async def send_draft(self, draft: Draft) -> Answer:
        """Give the client a draft word for word. One that was cut does not end as if it were whole."""
        log = next(one for one in reversed(self.book.calls) if one.id == draft.call.id)
        log.becomes_answer()
        self.book.text_began()
        reason = draft.finish_reason or "length"
        said: list[Delta] = [Opening()]
        if draft.text:
            said.append(RefusalDelta(draft.text) if draft.refusal else TextDelta(draft.text))
        said += [
            # Some models give no ids; a client must be able to answer each call.
            ToolCallDelta(place, call.id or f"call_{self.book.run.id[4:]}_{place}", call.name, call.arguments)
            for place, call in enumerate(draft.calls)
        ]
        await self.answer.send([*said, Finished(reason)])
        return Answer(draft.call.id, reason, (draft.call.id,))

    async def _wait(self, scatter: Scatter) -> str:
        """Wait until the stage is over; what ended it: as in ``Gathered``."""
        total = len(scatter.members)
        quorum = min(self.plan.quorum, total)
        until, ended_by, quorum_told = self.deadline, "deadline", False
        while scatter.running:
            if scatter.hurried:
                return "answer_now"
            drafts = scatter.complete
            if drafts >= quorum and not quorum_told:
                quorum_told = True
                data = StageQuorumReached(drafts, total, round(self.plan.grace_s * 1000))
                self.book.run.tell(data, stage=scatter.stage)
                if (grace_ends := self._loop.time() + self.plan.grace_s) < self.deadline:
                    until, ended_by = grace_ends, "quorum"
            if not await scatter.change(until):
                if ended_by == "deadline":
                    self.book.run.tell(StageDeadlineReached(scatter.complete, total), stage=scatter.stage)
                return ended_by
        return "all"


def sight(models: Callable[[str], Upstream], model: str) -> bool | None:
    """Does the model see images? None: nobody says, or there is no such model (its call will tell)."""
    return _ability(models, model, "vision")


def calls_tools(models: Callable[[str], Upstream], model: str) -> bool | None:
    """May the model call tools? None as for ``sight``."""
    return _ability(models, model, "tools")


def refuse_tools_for_nobody(plan: Plan, chat: ChatRequest, models: Callable[[str], Upstream]) -> None:
    """Raise ``InvalidRequest`` if the members are to call tools, and none of them can."""
    field = tools_field(chat)
    if field is None or not members_call(plan) or plan.strategy in PASSING:
        return
    if all(calls_tools(models, call.model) is False for call in plan.calls):
        raise InvalidRequest(
            f"No member of {plan.settings.name} can call tools; leave them out, or ask another model.",
            param=field,
            code="unsupported_parameter",
        )


def _ability(models: Callable[[str], Upstream], model: str, name: str) -> bool | None:
    try:
        able: bool | None = getattr(models(model), name, None)
    except ModelNotFound:
        return None
    return able


def ids(drafts: Sequence[Draft]) -> tuple[str, ...]:
    """The members whose drafts these are, in the order of the configuration."""
    return tuple(draft.call.id for draft in sorted(drafts, key=lambda draft: draft.call.place))
