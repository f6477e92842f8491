"""A combination as an upstream, and the one way to answer a chat as a run.

The run of a combination is carried out by a task of its own, since task groups must not be open while a
generator yields. The client's generator reads what the task sends through a bounded channel; closing the
generator cancels the task and waits for it, and so closes every upstream beneath.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing

from msgspec import UNSET

from server.chat import ChatRequest
from server.coordinator.call_log import BUG
from server.coordinator.ceiling import is_priced, within
from server.coordinator.channel import AnswerChannel
from server.coordinator.coordinator import Answer, Coordinator, refuse_tools_for_nobody, sight
from server.coordinator.one_call import MEMBER, OneCall, created_for
from server.coordinator.patience import Patience
from server.coordinator.plan import Plan, cost_limit, expand, make_plan, refuse_overrides, takes_tools
from server.coordinator.recording import Recording, Recordings, recorded
from server.coordinator.relay import relay, relay_whole
from server.coordinator.requests import direct_request
from server.coordinator.run_book import RunBook
from server.coordinator.steering import Steering
from server.coordinator.strategies import STRATEGIES
from server.deltas import Batch, Deltas, UsageDelta
from server.errors import InvalidRequest, ServerError, ShuttingDown
from server.events import PlannedMember, RunCreated
from server.prices import units_of
from server.run_log import Run
from server.settings import Combination as CombinationSettings
from server.tasks import TaskOwner
from server.upstreams.base import Call, Upstream, prices_of

MAX_DEPTH = 2
"""Combinations may nest so deep."""

log = logging.getLogger("antiphon.coordinator")


def answer(run: Run, upstream: Upstream, chat: ChatRequest, call: Call) -> Deltas:
    """Answer ``chat``, and tell all of it in ``run``, which ends exactly once with the generator.

    Whoever calls closes the generator; closing it early is the client's leaving. Raises ``ServerError`` for a
    request that cannot be carried out (at once), and while iterating for an answer that fails.
    ``call.answer`` is set when a combination's answer is complete.
    """
    if isinstance(upstream, Combination):
        return upstream.answer(run, chat, call)
    return relay(_one_call(run, upstream, chat), upstream, call)


def answer_whole(run: Run, upstream: Upstream, chat: ChatRequest, call: Call) -> Awaitable[Batch]:
    """A plain request to a model that is no combination, answered as one batch; else as ``answer``."""
    return relay_whole(_one_call(run, upstream, chat), upstream, call)


def _one_call(run: Run, upstream: Upstream, chat: ChatRequest) -> OneCall:
    if "antiphon" in chat.json:
        try:
            refuse_overrides(chat)
        except ServerError as error:
            RunBook(run, created_for(run, upstream.name, stream=chat.stream)).fail(error)
            raise
        chat = direct_request(chat, blind=False)
    return OneCall(run, upstream.name, chat, prices=prices_of(upstream))


class Combination:
    """Many models behind one name; an ``Upstream``.

    ``models`` finds a model or combination by name, ``tasks`` holds the runs' tasks, ``rng`` makes seeds and
    fences, ``recordings`` keeps what is said, if it is to be kept.
    """

    def __init__(
        self,
        settings: CombinationSettings,
        models: Callable[[str], Upstream],
        tasks: TaskOwner,
        rng: random.Random | None = None,
        recordings: Recordings | None = None,
    ) -> None:
        self.name = settings.name
        self.settings = settings
        self._models = models
        self._tasks = tasks
        self._rng = rng or random.SystemRandom()
        self._recordings = recordings
        self._patience = Patience()

    @property
    def relays(self) -> bool:
        """Is the answer one model's, byte for byte?"""
        return self.settings.strategy == "direct"

    @property
    def commit_after_s(self) -> float:
        """Seconds after which a stream's head leaves though no text has come."""
        return self.settings.commit_after_s

    @property
    def max_cost(self) -> float | None:
        """What a run of it may cost, in the currency of the prices."""
        return self.settings.max_cost

    @property
    def vision(self) -> bool | None:
        """Does it take images?"""
        if self.settings.model is None:
            return bool(self.settings.vision_members)
        model = self.settings.vision_model or self.settings.model
        return None if model is None else sight(self._models, model)

    @property
    def tools(self) -> bool | None:
        """May it call tools? None: that is for its models to say."""
        return None if takes_tools(self.settings, self.settings.strategy, "tools") else False

    async def stream(self, chat: ChatRequest, call: Call) -> AsyncGenerator[Batch, None]:
        """Answer as a member of another combination: with a run of its own, told of in the parent's."""
        parent = call.run
        if not isinstance(parent, Run):
            raise TypeError("a combination is called within a run")
        child = parent.child(self.name)
        if call.observer is not None:
            call.observer.attempt(1, self.name)
        with child.scope():
            async with aclosing(self.answer(child, chat, call, parent=parent.id)) as batches:
                async for batch in batches:
                    yield batch

    def answer(self, run: Run, chat: ChatRequest, call: Call, *, parent: str | None = None) -> Deltas:
        """See ``answer`` above. ``parent`` is the run that this one is carried out for."""
        if self._recordings is not None:
            recording = Recording(run, chat, call, self.settings, parent)
            heard = Combination(self.settings, recording.models(self._models), self._tasks, recording.rng)
            heard._patience = self._patience
            return recorded(self._recordings, recording, heard.answer(run, chat, call, parent=parent))
        try:
            if call.depth >= MAX_DEPTH:
                raise InvalidRequest(
                    f"Combinations may nest {MAX_DEPTH} deep; address a plain model.",
                    param="model",
                    code="recursion_limit",
                )
            plan = make_plan(self.settings, chat)
            refuse_tools_for_nobody(plan, chat, self._models)
            limit = cost_limit(self.settings, chat)
            if limit is not None or is_priced(plan, self._models):
                plan = within(plan, chat, self._models, limit=None if limit is None else units_of(limit))
        except ServerError as error:
            RunBook(run, self._created(run, chat, None, parent)).fail(error)
            raise
        created = self._created(run, chat, plan, parent)
        if plan.model is None:
            return self._fan_out(RunBook(run, created), plan, chat, call)
        try:
            model = self._models(plan.model)
        except ServerError as error:
            RunBook(run, created).fail(error)
            raise
        blind = sight(self._models, plan.model) is False
        return relay(
            OneCall(run, plan.model, direct_request(chat, blind=blind), created, prices_of(model)),
            model,
            call,
        )

    def _created(self, run: Run, chat: ChatRequest, plan: Plan | None, parent: str | None) -> RunCreated:
        settings = self.settings
        if plan is None:
            plan = Plan(settings, settings.strategy, calls=expand(settings.members), model=settings.model)
        members = tuple(PlannedMember(one.id, one.model, one.member.weight) for one in plan.calls)
        if plan.model is not None:
            members = (PlannedMember(MEMBER, plan.model),)
        gathers = plan.model is None
        return RunCreated(
            response_id=run.response_id,
            model=run.model,
            strategy=plan.strategy,
            stream=chat.stream,
            members=members,
            summary=plan.summary.model if plan.summary else None,
            min_success=plan.min_success,
            quorum=plan.quorum,
            grace_s=plan.grace_s if gathers else None,
            deadline_s=plan.deadline_s if gathers else None,
            cost_ceiling=plan.ceiling,
            background=True if run.background else UNSET,
            parent=UNSET if parent is None else parent,
            warnings=run.warnings or UNSET,
        )

    async def _fan_out(
        self, book: RunBook, plan: Plan, chat: ChatRequest, call: Call
    ) -> AsyncGenerator[Batch, None]:
        """Yield what the run's task sends; end the task, and the run, whatever happens."""
        book.begin()
        book.begun, call.parts = call.begun, book.parts
        channel = AnswerChannel()
        task = self._tasks.create(
            self._carry_out(book, plan, chat, call, channel), name=f"run {book.run.id}", awaited=True
        )
        task.add_done_callback(lambda _: channel.close())
        heard = False
        try:
            try:
                while (batch := await channel.receive()) is not None:
                    yield batch
                if task.cancelled():  # by its owner, at the server's end
                    book.cancel("shutdown")
                    raise ShuttingDown("The server is shutting down; send the request again.")
                heard = True
                told = task.result()
                if (usage := book.usage) is not None:
                    yield [UsageDelta(usage, cost=book.cost, spent=book.spent)]
            finally:
                if not heard:
                    await _stop(task)
        except ServerError as error:
            book.fail(error)
            raise
        except (asyncio.CancelledError, GeneratorExit):
            book.cancel()
            raise
        except Exception:
            book.fail(ServerError(BUG))
            raise
        book.complete(call, told.by, told.finish_reason, told.used)

    async def _carry_out(
        self, book: RunBook, plan: Plan, chat: ChatRequest, call: Call, channel: AnswerChannel
    ) -> Answer:
        steering = book.run.steered = Steering()
        try:
            async with asyncio.TaskGroup() as group:
                run = Coordinator(
                    book,
                    plan,
                    chat,
                    call,
                    models=self._models,
                    group=group,
                    answer=channel,
                    rng=self._rng,
                    patience=self._patience,
                    steering=steering,
                )
                told = await STRATEGIES[plan.strategy](run)
        except BaseExceptionGroup as errors:
            raise _cause(errors) from None
        finally:
            if book.ledger is not None:
                book.ledger.release()
            book.run.steered = None
            steering.close()
        return told


async def _stop(task: asyncio.Task[Answer]) -> None:
    """Cancel the run's task, and wait until it has closed everything; its failure concerns nobody now."""
    if not task.done():
        task.cancel()
        await asyncio.wait({task})
    error = None if task.cancelled() else task.exception()
    if error is not None and not isinstance(error, ServerError):
        log.error("%s failed when its client had left", task.get_name(), exc_info=error)


def _cause(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """The one to raise: a mistake of ours before a failure."""
    found = [_cause(one) if isinstance(one, BaseExceptionGroup) else one for one in errors.exceptions]
    return next((error for error in found if not isinstance(error, ServerError)), found[0])
