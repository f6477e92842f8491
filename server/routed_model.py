"""One public model over the channels that serve it: which is asked, when the next one is, and what is told.

A model's channels are tried one after another, before the first delta only: strict priority, then weight.
A channel that asks for patience gets no traffic of that model until its time has come; one that refused our
credentials is asked only when no other is left, and never twice for one request.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from contextlib import aclosing
from typing import Protocol

from server.chat import ChatRequest
from server.deltas import Batch, Delta, Extra, has_content
from server.errors import (
    InsufficientQuota,
    InvalidRequest,
    NoChannel,
    Overloaded,
    RateLimited,
    ServerError,
    UpstreamAuth,
)
from server.settings import Channel, ChannelModel, Timeouts
from server.upstreams.base import Call, Upstream

log = logging.getLogger("antiphon.router")

ATTEMPTS = 3
BACKOFF_S = 0.25
MAX_BACKOFF_S = 8.0
# A channel whose credentials were refused, or whose account is empty, comes last for this long (seconds).
REFUSED_S = 60.0
# Nobody is taken at his word for longer, lest one absurd Retry-After switch a channel off for good. (seconds)
MAX_COOLING_S = 24 * 3600.0
# So much is kept of what comes before the first delta; beyond it, what has no name here is dropped. (deltas)
MAX_HELD = 1000


class QueueFull(Overloaded):
    """Too many requests wait for a channel: ours is the queue, the channel itself has said nothing."""


class ChannelUpstream(Upstream, Protocol):
    """An upstream that is a channel.

    ``unavailable`` says what to do when it cannot serve at all. ``aclose`` ends what it keeps open beyond
    its calls, and is called by whoever built it.
    """

    @property
    def unavailable(self) -> str | None: ...

    async def aclose(self) -> None: ...


class ChannelState:
    """One channel as the router sees it: its limits, and whether it is to be left alone for now.

    ``count`` is told of each attempt's outcome: the channel's name, and ``ok`` or an error's code.
    """

    def __init__(
        self,
        settings: Channel,
        upstream: ChannelUpstream,
        count: Callable[[str, str], None] = lambda channel, outcome: None,
    ) -> None:
        self.settings = settings
        self.upstream = upstream
        self.count = count
        self.timeouts = settings.timeouts.over(Timeouts())
        self.refused_until = 0.0  # event loop time; until then others are asked first
        # The embedded model computes as many answers at a time as it has slots; the others wait here.
        limit = settings.max_concurrency or (settings.slots if settings.kind == "local" else 0)
        self._slots = asyncio.Semaphore(limit) if limit else None
        self._waiting = 0
        self._in_use = 0
        self.idle = asyncio.Event()  # no call is under way
        self.idle.set()

    @property
    def name(self) -> str:
        """The channel's name."""
        return self.settings.name

    async def take(self, call: Call) -> None:
        """Begin a call, in one of the channel's slots if they are limited; ``give`` ends it.

        Raises ``QueueFull`` at once when too many wait already, ``Overloaded`` when the call's deadline comes
        first.
        """
        if self._slots is not None:
            await self._wait_for_slot(self._slots, call)
        self._in_use += 1
        self.idle.clear()

    def give(self) -> None:
        """End a call that ``take`` began."""
        if self._slots is not None:
            self._slots.release()
        self._in_use -= 1
        if not self._in_use:
            self.idle.set()

    async def _wait_for_slot(self, slots: asyncio.Semaphore, call: Call) -> None:
        if slots.locked():
            if self._waiting >= self.settings.max_waiting:
                raise QueueFull("Too many requests wait for this channel; try again later.", retry_after_s=1)
            if call.observer is not None:
                call.observer.queued(self.name)
        self._waiting += 1
        try:
            async with asyncio.timeout_at(call.deadline):
                await slots.acquire()
        except TimeoutError:
            raise Overloaded("No slot of the channel became free in time; try again later.") from None
        finally:
            self._waiting -= 1


class RoutedModel:
    """One public model over its channels; an ``Upstream``."""

    def __init__(
        self, name: str, channels: Sequence[tuple[ChannelState, ChannelModel]], rng: random.Random
    ) -> None:
        self.name = name
        self.channels = list(channels)
        self._rng = rng
        self._cooling: dict[str, float] = {}  # channel → event loop time before which it is not asked
        self._fit = [
            state for state, _ in self.channels if state.settings.enabled and state.settings.weight > 0
        ]
        self._blind = self.vision is False
        self._no_tools = bool(channels) and all(model.tools is False for _, model in channels)

    @property
    def served(self) -> bool:
        """Is there a channel that could be asked, now or when it has cooled down?"""
        return any(state.upstream.unavailable is None for state in self._fit)

    @property
    def vision(self) -> bool | None:
        """Can it see? None where no channel says."""
        said = [model.vision for _, model in self.channels]
        return True if True in said else (False if said and None not in said else None)

    @property
    def context_length(self) -> int | None:
        """Tokens of context that every channel offers, if they say so."""
        lengths = [model.context_length for _, model in self.channels if model.context_length]
        return min(lengths) if lengths else None

    async def stream(self, chat: ChatRequest, call: Call) -> AsyncGenerator[Batch, None]:
        """Yield the answer of the first channel that gives one; see ``upstreams.base.Upstream``."""
        if chat.model != self.name:  # an alias, or the default for an unknown name
            chat = chat.with_values(model=self.name)
        if self._blind or self._no_tools:
            self._refuse_what_it_cannot(chat)
        loop = asyncio.get_running_loop()
        tried: list[ChannelState] = []
        errors: list[ServerError] = []  # why each of them was left again
        spoken = False
        state = self._first(loop.time())
        while True:
            if call.deadline is None and (total_s := (call.timeouts or state.timeouts).total_s):
                call.deadline = loop.time() + total_s
            tried.append(state)
            call.channel, call.attempts_made = state.name, len(tried)
            try:
                await state.take(call)
                try:
                    if call.observer is not None:
                        call.observer.attempt(len(tried), state.name)
                    held: list[Delta] = []
                    async with aclosing(state.upstream.stream(chat, call)) as deltas:
                        async for batch in deltas:
                            if spoken:
                                yield batch
                                continue
                            # A lone role is no first delta: kept, so that failover stays possible.
                            held += batch
                            if spoken := has_content(batch):
                                yield held
                                held = []
                            elif len(held) > MAX_HELD:
                                held = [delta for delta in held if type(delta) is not Extra]
                finally:
                    state.give()
                state.count(state.name, "ok")
                return
            except ServerError as error:
                state.count(state.name, error.code)
                if spoken:
                    raise
                errors.append(error)
                state = await self._next(tried, errors, call)

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

    def _first(self, now: float) -> ChannelState:
        """The channel to begin with. Raises ``NoChannel``."""
        ready = self._ready(now)
        if len(ready) == 1:
            return ready[0]
        if ready:
            return self._choose(ready, now)
        able = [state for state in self._fit if state.upstream.unavailable is None]
        if able:
            wait_s = min(self._cooling[state.name] for state in able) - now
            raise NoChannel(f"Every channel of {self.name} is cooling down.", retry_after_s=wait_s)
        reason = next((state.upstream.unavailable for state in self._fit), None)
        raise NoChannel(reason or f"No channel serves {self.name} now; ask the operator.")

    def _ready(self, now: float, but: Collection[ChannelState] = ()) -> list[ChannelState]:
        """The channels that may be asked now: they can serve, none of them cools, none is one of ``but``."""
        return [
            state
            for state in self._fit
            if state not in but
            and self._cooling.get(state.name, 0.0) <= now
            and state.upstream.unavailable is None
        ]

    def _choose(self, ready: list[ChannelState], now: float) -> ChannelState:
        """Of the highest priority one by weight; those that refused our credentials come last."""
        ready = [state for state in ready if state.refused_until <= now] or ready
        top = max(state.settings.priority for state in ready)
        best = [state for state in ready if state.settings.priority == top]
        return self._rng.choices(best, [state.settings.weight for state in best])[0]

    async def _next(self, tried: list[ChannelState], errors: list[ServerError], call: Call) -> ChannelState:
        """The channel for the next attempt, after the wait that is due; raises if there is to be none."""
        loop = asyncio.get_running_loop()
        error, now = errors[-1], loop.time()
        self._note(tried[-1], error, now)
        if not error.retryable or len(tried) >= (call.attempts or ATTEMPTS):
            raise _meaningful(errors)
        delay_s, ready_at = 0.0, 0.0
        if others := self._ready(now, but=tried):
            state = self._choose(others, now)
        else:
            again = _once_more(tried, errors)
            if again is None or again.upstream.unavailable is not None:
                raise _meaningful(errors)
            state, ready_at = again, self._cooling.get(again.name, 0.0)
            longest = min(MAX_BACKOFF_S, BACKOFF_S * 2 ** (len(tried) - 1))
            delay_s = max(self._rng.uniform(0, longest), ready_at - now)
            if delay_s > MAX_BACKOFF_S:
                raise _meaningful(errors)  # the client hears for how long
        connect_s = (call.timeouts or state.timeouts).connect_s
        if call.deadline is not None and now + delay_s + connect_s > call.deadline:
            raise _meaningful(errors)
        if call.observer is not None:
            same = state is tried[-1]
            call.observer.retrying(error, delay_s=delay_s, next_attempt=len(tried) + 1, same_channel=same)
        if delay_s:
            await asyncio.sleep(delay_s)
            if self._cooling.get(state.name, 0.0) > ready_at:
                raise _meaningful(errors)  # meanwhile it has asked others for more patience
        return state

    def _note(self, state: ChannelState, error: ServerError, now: float) -> None:
        """Keep in mind what an attempt has told about its channel."""
        if isinstance(error, UpstreamAuth | InsufficientQuota):
            state.refused_until = now + REFUSED_S
            log.error("channel %s: %s", state.name, error.message)
        elif error.retry_after_s and not isinstance(error, QueueFull):
            until = now + min(error.retry_after_s, MAX_COOLING_S)
            self._cooling[state.name] = max(until, self._cooling.get(state.name, 0.0))


def _once_more(tried: list[ChannelState], errors: list[ServerError]) -> ChannelState | None:
    """Who may be asked again when no other is left: the last one that failed only once and may recover."""
    hopeless = (UpstreamAuth, InsufficientQuota, QueueFull)
    last_first = zip(reversed(tried), reversed(errors), strict=True)
    return next(
        (one for one, error in last_first if tried.count(one) == 1 and not isinstance(error, hopeless)), None
    )


def _meaningful(errors: list[ServerError]) -> ServerError:
    """The cause worth telling: one that names a time first, then one that an upstream said, then the last."""
    said = [error for error in errors if error.retry_after_s] or [
        error for error in errors if isinstance(error, RateLimited) or error.upstream_status
    ]
    error = (said or errors)[-1] if errors[-1].retryable else errors[-1]
    attempts = sum(not isinstance(error, QueueFull) for error in errors)
    if attempts > 1 and error.status >= 500 and error.retry_after_s is None:
        error.should_retry = False  # our own attempts were really spent: the SDK's would multiply them
    return error
