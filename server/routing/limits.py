"""What a channel may be burdened with: calls at a time, requests and tokens a minute, and who waits."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from server.routing.health import NoRoom
from server.routing.turns import Caller, Slots
from server.settings import Channel
from server.upstreams.base import Call

MINUTE_S = 60.0


class Entry:
    """Something that counts in a window from ``when`` on (seconds)."""

    __slots__ = ("amount", "when")

    def __init__(self, when: float, amount: int) -> None:
        self.when = when
        self.amount = amount


class Window:
    """At most ``limit`` in any ``span_s`` seconds. It reads no clock; times never fall.

    Entries may lie in the future: who must wait is entered at the time that is his, first come, first served.
    """

    def __init__(self, limit: int, span_s: float = MINUTE_S) -> None:
        self.limit = limit
        self._span_s = span_s
        self._entries: deque[Entry] = deque()
        self._total = 0

    def plan(self, now: float, amount: int) -> float:
        """The earliest time, from ``now`` on, at which ``amount`` may be entered.

        What is larger than the limit fits once nothing else counts.
        """
        entries, span_s = self._entries, self._span_s
        while entries and entries[0].when + span_s <= now:
            self._total -= entries.popleft().amount
        room, total = self.limit - min(amount, self.limit), self._total
        when = max(now, entries[-1].when) if entries else now
        for entry in entries:
            if total <= room:
                break
            when = max(when, entry.when + span_s)
            total -= entry.amount
        return when

    def enter(self, when: float, amount: int) -> Entry:
        """Count ``amount`` from ``when`` on, which ``plan`` gave."""
        entry = Entry(when, amount)
        self._entries.append(entry)
        self._total += amount
        return entry

    def settle(self, entry: Entry, amount: int, now: float) -> None:
        """The true amount is known now; 0 if nothing came of it."""
        if entry.when + self._span_s > now:  # else it counts no more
            self._total += amount - entry.amount
            entry.amount = amount


class Ticket:
    """What one call, ``caller``'s, has entered. ``used``: the tokens that it cost, as far as is known.

    ``waited``: did it wait, so that much may have changed since it was to be made?
    """

    __slots__ = ("caller", "request", "tokens", "used", "waited")

    def __init__(self, caller: Caller, request: Entry | None, tokens: Entry | None) -> None:
        self.caller = caller
        self.request = request
        self.tokens = tokens
        self.used = tokens.amount if tokens is not None else 0
        self.waited = False


class Gate:
    """The limits of one channel. ``enter`` before a call, ``leave`` after it, whatever happens.

    ``clock`` gives the event loop's time, in seconds. Who waits for a slot is let in by turns (``turns``),
    who waits for a window's time in order; past ``max_waiting`` nobody waits.
    """

    def __init__(self, channel: Channel, clock: Callable[[], float]) -> None:
        self._channel = channel
        self._clock = clock
        # The embedded model computes as many answers at a time as it has slots; the others wait here.
        limit = channel.max_concurrency or (channel.slots if channel.kind == "local" else 0)
        self._slots = Slots(limit, limit - int(limit * channel.single_share)) if limit else None
        self._requests = Window(channel.requests_per_min) if channel.requests_per_min else None
        self._tokens = Window(channel.tokens_per_min) if channel.tokens_per_min else None
        self.waiting = 0

    @staticmethod
    def needed(channel: Channel) -> bool:
        """Has this channel any limit?"""
        return bool(
            channel.max_concurrency
            or channel.kind == "local"
            or channel.requests_per_min
            or channel.tokens_per_min
        )

    @staticmethod
    def same_limits(one: Channel, other: Channel) -> bool:
        """Have both channels the same limits?"""
        return _limits(one) == _limits(other)

    @property
    def counts_tokens(self) -> bool:
        """Is ``enter`` to be told of the tokens?"""
        return self._tokens is not None

    def free(self) -> bool:
        """Could a call begin now, without waiting?"""
        if self.waiting or (self._slots is not None and self._slots.locked(_MEMBER)):
            return False
        now = self._clock()
        return self._when(now, 1) <= now

    async def enter(self, call: Call, tokens: int) -> Ticket:
        """Wait until one more call of about ``tokens`` may begin.

        Raises ``NoRoom``: at once when too many wait already or the wait would be too long, else when the
        time for it is over.
        """
        told = False
        by = self._patience(call)
        caller = _caller(call)
        if self._slots is not None:
            if told := self._slots.locked(caller):
                self._begin_waiting(call, 1.0)
            await self._wait_for_slot(self._slots, caller, by)
        try:
            ticket = await self._enter_windows(call, caller, tokens, by, told=told)
            ticket.waited = ticket.waited or told
            return ticket
        except BaseException:
            if self._slots is not None:
                self._slots.release(caller)
            raise

    def leave(self, ticket: Ticket) -> None:
        """A call has ended."""
        if self._slots is not None:
            self._slots.release(ticket.caller)
        if self._tokens is not None and ticket.tokens is not None:
            self._tokens.settle(ticket.tokens, ticket.used, self._clock())

    def withdraw(self, ticket: Ticket) -> None:
        """A call is not made after all, though it may begin."""
        if self._slots is not None:
            self._slots.release(ticket.caller)
        self._take_out(ticket)

    def _patience(self, call: Call) -> float | None:
        """The time up to which this call may wait; None: for ever."""
        limit_s = self._channel.max_wait_s
        if not limit_s:
            return call.deadline
        own = self._clock() + limit_s
        return own if call.deadline is None else min(own, call.deadline)

    async def _wait_for_slot(self, slots: Slots, caller: Caller, by: float | None) -> None:
        self.waiting += 1
        try:
            async with asyncio.timeout_at(by):
                await slots.acquire(caller)
        except TimeoutError:
            raise NoRoom(
                "No slot of the channel became free in time; try again later.", retry_after_s=1.0
            ) from None
        finally:
            self.waiting -= 1

    async def _enter_windows(
        self, call: Call, caller: Caller, tokens: int, by: float | None, *, told: bool
    ) -> Ticket:
        if self._requests is None and self._tokens is None:
            return Ticket(caller, None, None)
        now = self._clock()
        when = self._when(now, tokens)
        if when > now:
            if by is not None and when > by:
                raise NoRoom(
                    "The channel's limit of requests or tokens a minute is used up; try again later.",
                    retry_after_s=when - now,
                )
            if not told:
                self._begin_waiting(call, when - now)
        request = self._requests.enter(when, 1) if self._requests is not None else None
        counted = self._tokens.enter(when, tokens) if self._tokens is not None else None
        ticket = Ticket(caller, request, counted)
        if when > now:
            ticket.waited = True
            self.waiting += 1
            try:
                await asyncio.sleep(when - now)
            except BaseException:
                self._take_out(ticket)
                raise
            finally:
                self.waiting -= 1
        return ticket

    def _take_out(self, ticket: Ticket) -> None:
        """Take out what was entered for a call that never began."""
        now = self._clock()
        for window, entry in ((self._requests, ticket.request), (self._tokens, ticket.tokens)):
            if window is not None and entry is not None:
                window.settle(entry, 0, now)

    def _when(self, now: float, tokens: int) -> float:
        when = now
        if self._requests is not None:
            when = self._requests.plan(when, 1)
        if self._tokens is not None:
            when = max(when, self._tokens.plan(now, tokens))
        return when

    def _begin_waiting(self, call: Call, wait_s: float) -> None:
        if self.waiting >= self._channel.max_waiting:
            raise _full(wait_s)
        if call.observer is not None:
            call.observer.queued(self._channel.name)


def _limits(channel: Channel) -> tuple[object, ...]:
    return (
        channel.kind,
        channel.slots,
        channel.max_concurrency,
        channel.requests_per_min,
        channel.tokens_per_min,
        channel.max_waiting,
        channel.max_wait_s,
        channel.single_share,
    )


def _caller(call: Call) -> Caller:
    run = call.run
    return Caller(member=call.depth > 0) if run is None else Caller(run.key, run.id, member=call.depth > 0)


_MEMBER = Caller(member=True)  # who has to wait the most


def _full(wait_s: float) -> NoRoom:
    return NoRoom("Too many requests wait for this channel; try again later.", retry_after_s=wait_s)
