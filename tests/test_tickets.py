"""Tickets: good for a short time, once, and for what they were made for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.errors import AuthenticationError, RateLimited
from server.tickets import KEEP_S, MAX_OF_A_KEY, Ticket, Tickets


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def ticket(key: str = "me", **more: object) -> Ticket:
    fields = {"topic": "self", "types": None, "include": frozenset[str](), **more}
    return Ticket(key, **fields)  # type: ignore[arg-type]


def test_a_ticket_is_good_once() -> None:
    tickets = Tickets(Clock())
    word = tickets.make(ticket())
    assert tickets.take(word) == ticket()
    with pytest.raises(AuthenticationError) as refused:
        tickets.take(word)
    assert refused.value.code == "invalid_ticket"


def test_a_ticket_grows_old() -> None:
    clock = Clock()
    tickets = Tickets(clock)
    first = tickets.make(ticket())
    clock.now = KEEP_S - 1
    second = tickets.make(ticket())
    clock.now = KEEP_S
    with pytest.raises(AuthenticationError):
        tickets.take(first)
    assert len(tickets) == 1
    tickets.take(second)


def test_a_key_has_so_many_and_another_its_own() -> None:
    clock = Clock()
    tickets = Tickets(clock)
    for _ in range(MAX_OF_A_KEY):
        tickets.make(ticket())
    with pytest.raises(RateLimited):
        tickets.make(ticket())
    tickets.make(ticket("other"))
    clock.now = KEEP_S
    tickets.make(ticket())


@given(st.text())
def test_no_word_that_was_not_given_opens_anything(word: str) -> None:
    tickets = Tickets(Clock())
    tickets.make(ticket())
    with pytest.raises(AuthenticationError):
        tickets.take(word)


def test_it_opens_no_more_than_it_was_made_for() -> None:
    some = frozenset({"run.created", "run.failed"})
    made = ticket(types=some, include=frozenset({"answer"}))
    assert made.opens("self", some, frozenset())
    assert made.opens("self", frozenset({"run.failed"}), frozenset({"answer"}))
    assert not made.opens("all", some, frozenset())
    assert not made.opens("self", None, frozenset())
    assert not made.opens("self", some | {"model.failed"}, frozenset())
    assert not made.opens("self", some, frozenset({"drafts"}))
