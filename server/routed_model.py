"""One public model over the channels that serve it: which is asked, when the next one is, and what is told.

A model's channels are tried one after another, before the first delta only, as ``routing.choice`` says.
What each attempt tells of its channel is kept in ``routing.health``: one that asks for patience, or fails
again and again, gets no traffic of that model until its time has come; one that refused our credentials is
asked only when no other is left, and never twice with one key for one request.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from time import monotonic  # the event loop's clock; asking for the loop is a system call

from server.chat import ChatRequest
from server.deltas import Batch, Delta, Extra, has_content
from server.errors import (
    InsufficientQuota,
    InvalidRequest,
    NoChannel,
    RateLimited,
    ServerError,
    SurfaceNotOffered,
    UpstreamAuth,
    UpstreamTimeout,
)
from server.prices import Prices, Rate
from server.routing.abilities import Abilities
from server.routing.budget import RetryBudget
from server.routing.channel import ChannelState, Lane
from server.routing.choice import Candidate, Chooser
from server.routing.health import LeftAlone, NoRoom, is_about_key
from server.routing.patience import Patience
from server.settings import ChannelModel, Routing
from server.upstreams.base import Call

# So much is kept of what comes before the first delta; beyond it, what has no name here is dropped. (deltas)
MAX_HELD = 1000


class Failed:
    """An attempt that came to nothing."""

    __slots__ = ("candidate", "error", "lane")

    def __init__(self, candidate: Candidate, lane: Lane, error: ServerError) -> None:
        self.candidate = candidate
        self.lane = lane
        self.error = error


class RoutedModel(Abilities):
    """One public model over its channels; an ``Upstream``."""

    def __init__(
        self,
        name: str,
        channels: Sequence[tuple[ChannelState, ChannelModel]],
        rng: random.Random,
        routing: Routing = Routing(),  # noqa: B008 - frozen
    ) -> None:
        self.name = name
        self.channels = list(channels)
        self._rng = rng
        self._routing = routing
        self._chooser = Chooser([Candidate(*one, name) for one in channels], routing.policy, rng)
        self._lone = self._chooser.candidates[0] if len(self._chooser.candidates) == 1 else None
        self._patience = Patience(name, self._chooser, rng, routing)
        self._elsewhere = self._chooser.elsewhere
        self._budget = RetryBudget(routing.retry_ratio, routing.retry_reserve)
        self._timed = routing.policy == "least_latency" and len(self._chooser.candidates) > 1
        # Up to then some channel may be passed over, which a run is told; the others need not look.
        sick = (one.health.avoided_until for one in self._chooser.candidates)
        self._sick_until = max((until for until in sick if until < math.inf), default=0.0)
        self.prices = Prices.of((state.name, rate_on(state, model)) for state, model in channels)
        self._blind = self.vision is False
        self._no_tools = self.tools is False

    @property
    def served(self) -> bool:
        """Is there a channel that could be asked, now or when it has cooled down?"""
        return any(one.state.able() for one in self._chooser.candidates)

    async def stream(self, chat: ChatRequest, call: Call) -> AsyncGenerator[Batch, None]:
        """Yield the answer of the first channel that gives one; see ``upstreams.base.Upstream``."""
        chat = self._fitting(chat)
        failed: list[Failed] = []
        own_time = call.deadline is None
        spoken = False
        candidate, began = await self._first(call)
        while True:
            state, health = candidate.state, candidate.health
            probe = health.begin(began) if health.breaker.until else False
            lane = state.only  # which key it is to be is only known when the call begins
            self._prepare(state, failed, call, began)
            try:
                ticket = await state.take(call, chat, None if probe else health, self._elsewhere)
                try:
                    lane = self._begin(state, failed, call)
                    held: list[Delta] = []
                    async with aclosing(state.ask(lane, chat, call, ticket)) as deltas:
                        async for batch in deltas:
                            if spoken:
                                yield batch
                                continue
                            # A lone role is no first delta: kept, so that failover stays possible.
                            held += batch
                            if spoken := has_content(batch):
                                if probe or self._timed:
                                    self._spoke(candidate, monotonic() - began, call, probe=probe)
                                    probe = False
                                yield held
                                held = []
                            elif len(held) > MAX_HELD:
                                held = [delta for delta in held if type(delta) is not Extra]
                finally:
                    state.give(ticket)
                state.count(state.name, "ok")
                health.breaker.succeeded(monotonic())
                return
            except ServerError as error:
                self._note(candidate, lane, error, call, probe=probe, own_time=own_time)
                probe = False
                if spoken:
                    raise
                failed.append(Failed(candidate, lane, error))
                candidate = await self._next(failed, call)
                began = monotonic()
            finally:
                if probe:
                    health.abandoned(monotonic())

    async def whole(self, chat: ChatRequest, call: Call) -> Batch:
        """The plain answer of the first channel that gives one; see ``upstreams.base.whole``."""
        chat = self._fitting(chat)
        failed: list[Failed] = []
        own_time = call.deadline is None
        candidate, began = await self._first(call)
        while True:
            state, health = candidate.state, candidate.health
            probe = health.begin(began) if health.breaker.until else False
            lane = state.only  # which key it is to be is only known when the call begins
            self._prepare(state, failed, call, began)
            try:
                ticket = await state.take(call, chat, None if probe else health, self._elsewhere)
                try:
                    lane = self._begin(state, failed, call)
                    batch = await lane.whole(chat, call)
                    if ticket is not None:
                        state.count_tokens(batch, chat, ticket)
                finally:
                    state.give(ticket)
                if probe or self._timed:
                    self._spoke(candidate, monotonic() - began, call, probe=probe)
                    probe = False
                state.count(state.name, "ok")
                health.breaker.succeeded(monotonic())
                return batch
            except ServerError as error:
                self._note(candidate, lane, error, call, probe=probe, own_time=own_time)
                probe = False
                failed.append(Failed(candidate, lane, error))
                candidate = await self._next(failed, call)
                began = monotonic()
            finally:
                if probe:
                    health.abandoned(monotonic())

    def _fitting(self, chat: ChatRequest) -> ChatRequest:
        """The request under this model's name. Raises ``InvalidRequest`` for what it cannot do."""
        if chat.model != self.name:  # an alias, or the default for an unknown name
            chat = chat.with_values(model=self.name)
        if self._no_tools and chat.fields.tool_choice == "none" and chat.fields.tools:
            chat = chat.edit({"tools": None, "tool_choice": None})  # none of them was to be called
        if self._blind or self._no_tools:
            self._refuse_what_it_cannot(chat)
        return chat

    def _refuse_what_it_cannot(self, chat: ChatRequest) -> None:
        """Raise ``InvalidRequest`` for what no channel of this model can do, by the word of the operator."""
        for place, message in enumerate(chat.messages if self._blind else ()):
            if message.images:
                raise InvalidRequest(
                    f"{self.name} cannot see images; send text only, or ask a model with vision.",
                    param=f"messages[{place}].content",
                    code="unsupported_image",
                )
        if self._no_tools and chat.fields.tools:
            raise InvalidRequest(
                f"{self.name} cannot call tools; leave them out, or ask another model.",
                param="tools",
                code="unsupported_parameter",
            )

    async def _first(self, call: Call) -> tuple[Candidate, float]:
        """The channel to begin with, as soon as there is one, and the time by then. Raises ``NoChannel``."""
        now = monotonic()
        if call.avoid:
            return self._beside(now, call), now
        self._budget.add()
        lone = self._lone
        if lone is not None and lone.health.avoided_until <= now and lone.state.able():
            return lone, now
        siblings = call.siblings
        chosen = self._chooser.choose(now) if siblings is None else self._chooser.apart(now, siblings.places)
        if self._sick_until > now and call.observer is not None:
            for name, reason in self._chooser.passed_over(now):
                if chosen is None or name != chosen.state.name:
                    call.observer.noted(name, "passed_over", reason=reason)
        if chosen is not None:
            return chosen, now
        if not self._patience.helps(now, call):
            return self._patience.last(now), now
        return await self._patience.ready(call), monotonic()

    def may_hedge(self, call: Call) -> bool:
        """May another channel be asked beside the one that ``call`` waits for? If so, it is paid."""
        others = (one for one in self._chooser.candidates if one.state.name != call.channel)
        now = monotonic()
        return any(one.well(now) for one in others) and self._budget.spend()

    def _beside(self, now: float, call: Call) -> Candidate:
        """The channel to begin with, none of those to be avoided. Raises ``NoChannel``."""
        chosen = self._chooser.choose(now, self._avoided(call))
        if chosen is None:
            raise NoChannel(f"No other channel serves {self.name} now.")
        return chosen

    def _avoided(self, call: Call) -> list[Candidate]:
        return [one for one in self._chooser.candidates if one.state.name in call.avoid]

    def _prepare(self, state: ChannelState, failed: list[Failed], call: Call, now: float) -> None:
        """Note in ``call`` where the next attempt goes."""
        if call.deadline is None and (total_s := state.timeouts.of(call).total_s):
            call.deadline = now + total_s
        call.channel, call.attempts_made = state.name, len(failed) + call.resent + 1
        if call.siblings is not None:
            call.siblings.places[state.place] += 1

    def _begin(self, state: ChannelState, failed: list[Failed], call: Call) -> Lane:
        """The attempt begins, now that the channel has room: tell so; the key to use."""
        if call.observer is not None:
            call.observer.attempt(call.attempts_made, state.name)
        if not state.more_keys:
            return state.only
        return state.lane(self.name, monotonic(), [one.lane.health for one in failed])

    def _spoke(self, candidate: Candidate, first_token_s: float, call: Call, *, probe: bool) -> None:
        """The first delta has come."""
        if self._timed:
            candidate.health.measured(first_token_s, monotonic())
        if probe:
            candidate.health.answered()
            if call.observer is not None:
                call.observer.noted(candidate.state.name, "closed")

    async def _next(self, failed: list[Failed], call: Call) -> Candidate:
        """The channel for the next attempt, after the wait that is due; raises if there is to be none."""
        routing = self._routing
        last, now = failed[-1], monotonic()
        if not last.error.retryable or len(failed) + call.resent >= (call.attempts or routing.attempts):
            raise _meaningful(failed)
        delay_s, ready_at = 0.0, 0.0
        candidate = self._chooser.choose(now, but=self._done_with(failed, call, now))
        if candidate is None:
            candidate = _once_more(failed)
            if candidate is None or not candidate.state.able():
                raise _meaningful(failed)
            ready_at = candidate.health.blocked_until
            longest = min(routing.max_backoff_s, routing.backoff_s * 2 ** (len(failed) - 1))
            delay_s = max(self._rng.uniform(0, longest), ready_at - now)
            if delay_s > routing.max_backoff_s:
                raise _meaningful(failed)  # the client hears for how long
        connect_s = candidate.state.timeouts.of(call).connect_s
        if call.deadline is not None and now + delay_s + connect_s > call.deadline:
            raise _given_up(failed, candidate, call, "time")
        # A sibling that is well may always be asked: what must not be multiplied is the load on the sick.
        if candidate.health.breaker.failures and not self._budget.spend():
            raise _given_up(failed, candidate, call, "budget")
        if call.siblings is not None and call.siblings.enough():
            raise _given_up(failed, candidate, call, "enough")
        if call.observer is not None:
            same = candidate is last.candidate
            number = len(failed) + call.resent + 1
            call.observer.retrying(last.error, delay_s=delay_s, next_attempt=number, same_channel=same)
            if not same:
                call.observer.noted(candidate.state.name, "asked")
        if delay_s:
            await asyncio.sleep(delay_s)
            if not candidate.state.able() or candidate.health.blocked_until > max(ready_at, monotonic()):
                raise _meaningful(failed)  # meanwhile it was disabled, or has asked others for more patience
        return candidate

    def _done_with(self, failed: list[Failed], call: Call, now: float) -> list[Candidate]:
        """The channels that this request need not ask again; one with another good key is not among them."""
        used = [one.lane.health for one in failed]
        return self._avoided(call) + [
            one.candidate
            for one in failed
            if not (is_about_key(one.error) and one.candidate.state.has_other_key(self.name, now, used))
        ]

    def _note(
        self,
        candidate: Candidate,
        lane: Lane,
        error: ServerError,
        call: Call,
        *,
        probe: bool,
        own_time: bool,
    ) -> None:
        """Keep in mind what an attempt has told about its channel. ``own_time``: the caller set no end."""
        state, health = candidate.state, candidate.health
        state.count(state.name, error.code)
        call.tried += ((state.name, error.code),)
        now = monotonic()
        if isinstance(error, UpstreamTimeout) and error.clock == "total" and not own_time:
            if probe:
                health.abandoned(now)  # another had more time
            return
        run = "" if call.run is None else call.run.id
        cooldown_s = state.settings.cooldown_s
        change = health.failed(error, lane.health, now, probe=probe, cooldown_s=cooldown_s, run=run)
        until = health.avoided_until
        if self._sick_until < until < math.inf:
            self._sick_until = until
        if change is not None and call.observer is not None:
            for_s = until - now if now < until < math.inf else None
            call.observer.noted(state.name, change, for_s=for_s)


def rate_on(state: ChannelState, model: ChannelModel) -> Rate | None:
    """What a model costs on a channel; None if nobody has said."""
    if model.price is None:
        return None
    return Rate.of(model.price, bills_cancelled=state.settings.bills_cancelled)


def _once_more(failed: list[Failed]) -> Candidate | None:
    """Who may be asked again when no other is left: the last one that failed only once and may recover."""
    hopeless = (UpstreamAuth, InsufficientQuota, NoRoom, LeftAlone, SurfaceNotOffered)
    tried = [one.candidate for one in failed]
    # A 404 is the channel's word that it has not what it was asked for: it will not have it later either.
    return next(
        (
            one.candidate
            for one in reversed(failed)
            if tried.count(one.candidate) == 1
            and not isinstance(one.error, hopeless)
            and one.error.upstream_status != 404
        ),
        None,
    )


def _given_up(failed: list[Failed], candidate: Candidate, call: Call, reason: str) -> ServerError:
    """What to raise where a channel is left, but not asked any more."""
    if call.observer is not None:
        call.observer.noted(candidate.state.name, "passed_over", reason=reason)
    return _meaningful(failed)


def _meaningful(failed: list[Failed]) -> ServerError:
    """The cause worth telling: one that names a time first, then one that an upstream said, then the last."""
    errors = [one.error for one in failed]
    said = [error for error in errors if error.retry_after_s] or [
        error for error in errors if isinstance(error, RateLimited) or error.upstream_status
    ]
    error = (said or errors)[-1] if errors[-1].retryable else errors[-1]
    attempts = sum(not isinstance(error, NoRoom | LeftAlone) for error in errors)
    if attempts > 1 and error.status >= 500 and error.retry_after_s is None:
        error.should_retry = False  # our own attempts were really spent: the SDK's would multiply them
    return error
