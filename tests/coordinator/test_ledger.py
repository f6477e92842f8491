"""What a run may cost is set aside before each call, and settled once: never above the limit."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import settings as given_settings
from hypothesis import strategies as st

from server.coordinator.ledger import Hold, Ledger


def balanced(ledger: Ledger) -> bool:
    return ledger.reserved == ledger.settled + ledger.refunded + ledger.held and ledger.held >= 0


@given(limit=st.integers(0, 10**6), seed=st.integers(0, 2**32))
@given_settings(max_examples=200, deadline=None)
def test_whatever_ends_in_whatever_order_it_is_balanced_and_never_above_the_limit(
    limit: int, seed: int
) -> None:
    rng = random.Random(seed)
    ledger = Ledger(limit)
    open_: list[Hold] = []
    ledger.set_aside(rng.randint(0, limit))
    for _ in range(500):
        if open_ and rng.random() < 0.5:
            hold = open_.pop(rng.randrange(len(open_)))
            ended = rng.choice(("finished", "cancelled", "timed out", "unknown"))
            cost = {"finished": rng.randint(0, hold.amount), "cancelled": 0, "timed out": hold.amount}
            hold.settle(cost.get(ended))
            hold.settle(rng.randint(0, 10**9))  # a second end is none
        elif (hold_ := ledger.reserve(rng.randint(0, 1 + limit // 3))) is not None:
            open_.append(hold_)
        if rng.random() < 0.01:
            ledger.release()
        assert balanced(ledger)
        assert ledger.settled + ledger.held <= limit
    ledger.release()
    for hold in open_:
        hold.settle(0)
    assert ledger.held == 0
    assert ledger.reserved == ledger.settled + ledger.refunded
    assert ledger.settled <= limit


def test_what_does_not_fit_is_refused_and_changes_nothing() -> None:
    ledger = Ledger(10)
    assert ledger.reserve(11) is None
    assert (ledger.reserved, ledger.held) == (0, 0)
    first = ledger.reserve(6)
    assert first is not None
    assert ledger.reserve(5) is None
    first.settle(2)
    assert ledger.reserve(8) is not None
    assert ledger.reserve(1) is None


def test_an_upstream_that_counts_more_than_was_reserved_is_believed_and_nothing_more_starts() -> None:
    ledger = Ledger(10)
    hold = ledger.reserve(4)
    assert hold is not None
    hold.settle(30)
    assert (ledger.settled, ledger.refunded, ledger.held) == (30, 0, 0)
    assert ledger.reserve(0) is None
    assert balanced(ledger)


def test_a_call_of_unknown_cost_is_let_through_and_counts_once_it_is_known() -> None:
    ledger = Ledger(10)
    hold = ledger.reserve(None)
    assert hold is not None
    hold.settle(9)
    assert ledger.reserve(2) is None
    kept = ledger.reserve(1)
    assert kept is not None
    kept.settle(None)  # nobody knows what it cost: all of it is kept
    assert (ledger.settled, ledger.refunded) == (10, 0)


def test_what_is_set_aside_is_nobody_elses_until_it_is_released() -> None:
    ledger = Ledger(10)
    ledger.set_aside(7)
    assert ledger.reserve(4) is None
    ledger.release()
    ledger.release()
    assert ledger.reserve(10) is not None
