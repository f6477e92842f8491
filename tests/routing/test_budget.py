"""The budget of further attempts."""

from __future__ import annotations

from server.routing.budget import RetryBudget


def test_it_begins_full_and_is_emptied_by_attempts() -> None:
    budget = RetryBudget(0.2, 3)
    assert [budget.spend() for _ in range(5)] == [True, True, True, False, False]


def test_so_many_requests_pay_for_one_attempt() -> None:
    budget = RetryBudget(0.25, 10)
    while budget.spend():
        pass
    allowed = 0
    for _ in range(100):
        budget.add()
        allowed += budget.spend()
    assert allowed == 25


def test_it_never_holds_more_than_its_reserve() -> None:
    budget = RetryBudget(1, 2)
    for _ in range(100):
        budget.add()
    assert budget.left == 2


def test_what_would_go_beyond_the_reserve_is_not_kept() -> None:
    budget = RetryBudget(0.75, 2)
    budget.spend()
    budget.add()
    budget.add()
    assert budget.left == 2


def test_without_ratio_and_reserve_there_are_no_further_attempts() -> None:
    budget = RetryBudget(0, 0)
    budget.add()
    assert not budget.spend()
