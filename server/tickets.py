"""Tickets: one look at the status channel, for pages that cannot send a key.

A ticket stands in a URL in a key's place, where a key must not stand. It is good for a short time, for one
use, and for what it was made for.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from server.errors import AuthenticationError, RateLimited
from server.ids import RandomIds

KEEP_S = 30.0
MAX_OF_A_KEY = 100
"""Tickets of one key that were not used yet."""


class Ticket(msgspec.Struct, frozen=True):
    """What one ticket opens: a topic, with these types (None: all) and texts, as ``key`` may see it."""

    key: str
    topic: str
    types: frozenset[str] | None
    include: frozenset[str]

    def opens(self, topic: str, types: frozenset[str] | None, include: frozenset[str]) -> bool:
        """Is this no more than what it was made for?"""
        fits = self.types is None or (types is not None and types <= self.types)
        return topic == self.topic and fits and include <= self.include


class Tickets:
    """The tickets that were not used yet. ``monotonic`` gives seconds that never fall."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._random_id = RandomIds(16)
        self._tickets: dict[str, tuple[float, Ticket]] = {}  # oldest first

    def __len__(self) -> int:
        self._sweep()
        return len(self._tickets)

    def make(self, ticket: Ticket) -> str:
        """A word that ``take`` knows once, within ``KEEP_S``. Raises ``RateLimited`` at too many of a key."""
        self._sweep()
        if sum(one.key == ticket.key for _, one in self._tickets.values()) >= MAX_OF_A_KEY:
            raise RateLimited(
                f"This key has {MAX_OF_A_KEY} tickets that were not used; use them, or wait.",
                code="too_many_tickets",
                retry_after_s=KEEP_S,
            )
        word = f"tk_{self._random_id()}"
        self._tickets[word] = (self._monotonic() + KEEP_S, ticket)
        return word

    def take(self, word: str) -> Ticket:
        """What the ticket opens; it is spent then. Raises ``AuthenticationError`` if it is none."""
        self._sweep()
        found = self._tickets.pop(word, None)
        if found is None:
            raise AuthenticationError(
                "The ticket was used, is too old, or never was; ask for another.", code="invalid_ticket"
            )
        return found[1]

    def _sweep(self) -> None:
        now = self._monotonic()
        while self._tickets:
            word, (expires, _) = next(iter(self._tickets.items()))
            if expires > now:
                return
            del self._tickets[word]
