"""One channel as the router sees it: its keys and their upstreams, its limits, its health."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from contextlib import aclosing
from time import monotonic
from typing import Protocol, TypeAlias
from urllib.parse import urlsplit

import msgspec

from server.chat import ChatRequest
from server.deltas import Batch, TextDelta, UsageDelta
from server.routing.health import ChannelHealth, Health, KeyHealth, LeftAlone
from server.routing.limits import MINUTE_S, Gate, Ticket
from server.settings import Breaker, Channel
from server.token_estimates import tokens_of_bytes, weight_of
from server.upstreams.base import Call, OwnTimeouts, Upstream, whole

# Is another channel than that of this health well, at this time of the event loop?
Elsewhere: TypeAlias = Callable[[Health, float], bool]


class ChannelUpstream(Upstream, Protocol):
    """An upstream that is a channel, with one of its keys.

    ``unavailable`` says what to do when it cannot serve at all. ``aclose`` ends what it keeps open beyond
    its calls, and is called by whoever built it.
    """

    @property
    def unavailable(self) -> str | None: ...

    async def aclose(self) -> None: ...


class Lane:
    """One key of a channel, and the upstream that uses it."""

    __slots__ = ("health", "upstream", "whole")

    def __init__(self, health: KeyHealth, upstream: ChannelUpstream) -> None:
        self.health = health
        self.upstream = upstream
        self.whole = whole(upstream)


class ChannelState:
    """One channel. ``upstreams``: one for each of its keys, in their order.

    ``before`` is the state that a reload replaces: its health is kept if kind and address are the same, and
    what it has counted if its limits are.
    ``count`` is told of each attempt's outcome: the channel's name, and ``ok`` or an error's code. ``place``
    names what it shares with channels that would fail together with it. Needs a running event loop.
    """

    def __init__(
        self,
        settings: Channel,
        upstreams: Sequence[ChannelUpstream],
        count: Callable[[str, str], None] = lambda channel, outcome: None,
        *,
        before: ChannelState | None = None,
    ) -> None:
        self.settings = settings
        self.name = settings.name
        self.place = _place(settings)
        self.count = count
        self.timeouts = OwnTimeouts(settings)
        secrets = settings.secrets()
        self.health: ChannelHealth
        if before is not None and _same_place(before.settings, settings):
            self.health = before.health
            self.health.adopt(secrets, _breaker(settings))
        else:
            self.health = ChannelHealth(settings.name, secrets, _breaker(settings))
        self.lanes = [Lane(*pair) for pair in zip(self.health.keys, upstreams, strict=True)]
        self.only, self.more_keys = self.lanes[0], len(self.lanes) > 1
        self.upstream = upstreams[0]
        self.gate: Gate | None
        if before is not None and Gate.same_limits(before.settings, settings):
            self.gate = before.gate  # what was begun before the reload counts on
        else:
            needed = Gate.needed(settings)
            self.gate = Gate(settings, asyncio.get_running_loop().time) if needed else None
        self.takes_calls = settings.enabled and settings.weight > 0
        self.dismissed = False
        self.in_use = 0
        self._waiting = 0
        self._turn = 0
        self.idle = asyncio.Event()  # no call is under way, and none waits to be
        self.idle.set()

    def able(self) -> bool:
        """Could it serve at all, now?"""
        return self.takes_calls and self.upstream.unavailable is None

    def against(self, health: Health, now: float) -> str | None:
        """Why it is not asked now: disabled, unavailable, breaker, cooling, refused; None if it may be.

        ``health`` is that for the model in question.
        """
        if not self.takes_calls:
            return "disabled"
        if self.upstream.unavailable is not None:
            return "unavailable"
        if health.breaker.until > now:
            return "breaker"
        if health.avoided_until > now:
            refused = all(lane.health.refused_until > now for lane in self.lanes)
            return "refused" if refused and health.blocked_until <= now else "cooling"
        return None

    def dismiss(self) -> None:
        """Begin no further call here, also not for requests that still hold older settings."""
        self.takes_calls = False
        self.dismissed = True

    def lane(self, model: str, now: float, but: Collection[KeyHealth] = ()) -> Lane:
        """The key to use for a call: each in turn, those in good standing first, ``but`` the ones tried."""
        if not self.more_keys:
            return self.only
        turn = self._turn
        in_turn = self.lanes[turn:] + self.lanes[:turn]
        chosen = min(in_turn, key=lambda lane: (lane.health in but, *_standing(lane.health, model, now)))
        # The turn goes on behind the one that was used: whoever stands behind a sick key has no double share.
        self._turn = (self.lanes.index(chosen) + 1) % len(self.lanes)
        return chosen

    def has_other_key(self, model: str, now: float, but: Collection[KeyHealth]) -> bool:
        """Is there a key in good standing besides those that were tried?"""
        return self.more_keys and any(
            lane.health not in but and lane.health.avoided_until(model) <= now for lane in self.lanes
        )

    async def aclose(self) -> None:
        """End what its upstreams keep open beyond their calls."""
        for lane in self.lanes:
            await lane.upstream.aclose()

    async def take(
        self, call: Call, chat: ChatRequest, health: Health | None = None, elsewhere: Elsewhere | None = None
    ) -> Ticket | None:
        """Begin a call as soon as the limits allow it; ``give`` ends it.

        Raises ``NoRoom`` when too many wait already or the time for it is over. A call that has waited looks
        again, as if it came now, and raises ``LeftAlone`` if the channel is not the one to ask any more:
        ``health`` is that for the model, None for a call that goes past all that is held against the
        channel; ``elsewhere`` says whether another one is well.
        """
        if self.gate is None:
            self.enter()
            return None
        tokens = tokens_of_bytes(len(chat.body)) if self.gate.counts_tokens else 0
        return await self.take_counted(call, tokens, health, elsewhere)

    async def take_counted(
        self, call: Call, tokens: int, health: Health | None = None, elsewhere: Elsewhere | None = None
    ) -> Ticket | None:
        """The same for a call that costs about so many tokens."""
        gate = self.gate
        if gate is None:
            self.enter()
            return None
        self._waiting += 1  # a reload must not end what the call is going to use
        self.idle.clear()
        try:
            ticket = await gate.enter(call, tokens)
            if ticket.waited and (wait_s := self._left_alone_s(health, elsewhere)) is not None:
                gate.withdraw(ticket)
                raise LeftAlone(
                    "The channel is left alone since this request began to wait for it; try again later.",
                    retry_after_s=min(max(wait_s, 1.0), MINUTE_S),
                )
            self.in_use += 1
            return ticket
        finally:
            self._waiting -= 1
            self._note_idle()

    def _left_alone_s(self, health: Health | None, elsewhere: Elsewhere | None) -> float | None:
        """For how long no call is to be made here by now (seconds, 0: nobody knows); None: it may be."""
        now = monotonic()
        if self.dismissed or self.upstream.unavailable is not None:
            return 0.0
        if health is None or health.avoided_until <= now:
            return None
        if health.blocked_until > now:
            return health.blocked_until - now
        return 0.0 if elsewhere is not None and elsewhere(health, now) else None

    def ask(
        self, lane: Lane, chat: ChatRequest, call: Call, ticket: Ticket | None
    ) -> AsyncGenerator[Batch, None]:
        """The answer's batches, with one of the keys; their tokens are counted where there is a limit."""
        batches = lane.upstream.stream(chat, call)
        return batches if ticket is None or ticket.tokens is None else _count(batches, chat, ticket)

    def count_tokens(self, batch: Batch, chat: ChatRequest, ticket: Ticket) -> None:
        """Count what a plain answer cost, where there is a limit."""
        if ticket.tokens is not None:
            _count_batch(batch, len(chat.body), ticket)

    def give(self, ticket: Ticket | None) -> None:
        """End a call that ``take`` began."""
        if self.gate is not None and ticket is not None:
            self.gate.leave(ticket)
        self.leave()

    def enter(self) -> None:
        """A call has begun; until ``leave`` what it uses is kept open."""
        self.in_use += 1
        self.idle.clear()

    def leave(self) -> None:
        """A call has ended."""
        self.in_use -= 1
        self._note_idle()

    def _note_idle(self) -> None:
        if not (self.in_use or self._waiting):
            self.idle.set()


class _Lent:
    """A channel's upstream, for a caller with credentials of its own."""

    def __init__(self, state: ChannelState) -> None:
        self.name = state.name
        self._state = state

    @property
    def unavailable(self) -> str | None:
        return self._state.upstream.unavailable

    async def stream(self, chat: ChatRequest, call: Call) -> AsyncGenerator[Batch, None]:
        self._state.enter()
        try:
            async with aclosing(self._state.upstream.stream(chat, call)) as batches:
                async for batch in batches:
                    yield batch
        finally:
            self._state.leave()

    async def aclose(self) -> None:
        """Nothing of its own is open."""


def lent(state: ChannelState) -> ChannelState:
    """``state`` for one call by a caller with credentials of its own: the same place, nothing else shared.

    Limits and standing are those of the channel's keys. What becomes of a stranger's call says nothing about
    them, nor is it held up by them.
    """
    settings = msgspec.structs.replace(
        state.settings, api_key=None, api_keys=(), max_concurrency=0, requests_per_min=0, tokens_per_min=0
    )
    made = ChannelState(settings, [_Lent(state)], state.count)
    made.takes_calls = state.takes_calls
    for key in made.health.keys:
        key.label = f"{state.name}, a caller's own key"
    return made


async def _count(
    batches: AsyncGenerator[Batch, None], chat: ChatRequest, ticket: Ticket
) -> AsyncGenerator[Batch, None]:
    """Yield ``batches``, and put into ``ticket`` what they cost: what is reported, else an estimate."""
    size = len(chat.body)
    async with aclosing(batches):
        async for batch in batches:
            size = _count_batch(batch, size, ticket)
            yield batch


def _count_batch(batch: Batch, size: int, ticket: Ticket) -> int:
    """Put into ``ticket`` what has been used after ``batch``; ``size`` was said before, its sum is returned.

    The sum is -1 once the upstream has said how many tokens there were.
    """
    for delta in batch:
        if type(delta) is UsageDelta:
            ticket.used, size = delta.usage.total_tokens, -1
        elif type(delta) is TextDelta and size >= 0:
            size += weight_of(delta.text)
            ticket.used = tokens_of_bytes(size)
    return size


def _standing(key: KeyHealth, model: str, now: float) -> tuple[bool, float]:
    """Good standing first; else whoever comes back soonest, lest a refused key stand in a ready one's way."""
    until = key.avoided_until(model)
    return (key.blocked_until(model) > now, max(until - now, 0.0))


def _breaker(settings: Channel) -> Breaker:
    """An embedded model has none: one death fails every call under way, and its owner starts it anew at once.

    If it keeps dying, its owner refuses calls itself.
    """
    return Breaker(failures=0, rate=0) if settings.kind == "local" else settings.breaker


def _place(settings: Channel) -> str:
    """Its host; a kind whose address is the vendor's own names the vendor, an embedded model itself."""
    if settings.base_url:
        return urlsplit(settings.base_url).netloc.lower()
    return settings.name if settings.kind == "local" else settings.kind


def _same_place(before: Channel, now: Channel) -> bool:
    return (before.kind, before.preset, before.base_url, before.path) == (
        now.kind,
        now.preset,
        now.base_url,
        now.path,
    )
