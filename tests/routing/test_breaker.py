"""The circuit breaker, on a clock of its own."""

from __future__ import annotations

import math

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from server.routing.breaker import Breaker
from server.settings import Breaker as Settings


def opened(**settings: float) -> Breaker:
    """A breaker that three failures opened at the time 100."""
    breaker = Breaker(Settings(**({"failures": 3, "rate": 0} | settings)))  # type: ignore[arg-type]
    for _ in range(3):
        breaker.failed(100)
    return breaker


def test_it_opens_after_so_many_failures_in_a_row() -> None:
    breaker = Breaker(Settings(failures=3))
    assert [breaker.failed(1) for _ in range(3)] == [False, False, True]
    assert (breaker.state, breaker.until) == ("open", 11)


def test_of_one_run_two_failures_count() -> None:
    breaker = Breaker(Settings(failures=3, rate=0.1, min_calls=4))
    assert not any(breaker.failed(1, run="a") for _ in range(12))
    assert breaker.failures == 2
    assert breaker.failed(1, run="b")


def test_after_a_success_the_same_run_counts_anew() -> None:
    breaker = Breaker(Settings(failures=3))
    for _ in range(2):
        assert not any(breaker.failed(1, run="a") for _ in range(3))
        assert breaker.failures == 2
        breaker.succeeded(1)
        assert breaker.failures == 0


def test_a_run_may_open_it_where_two_in_a_row_are_enough() -> None:
    breaker = Breaker(Settings(failures=2))
    assert [breaker.failed(1, run="a") for _ in range(2)] == [False, True]


def test_calls_of_no_run_and_a_breaker_by_share_alone_count_each() -> None:
    breaker = Breaker(Settings(failures=3))
    assert [breaker.failed(1) for _ in range(3)] == [False, False, True]
    share = Breaker(Settings(failures=0, rate=0.5, min_calls=4))
    assert [share.failed(1, run="a") for _ in range(4)] == [False, False, False, True]


def test_a_success_between_failures_begins_the_row_anew() -> None:
    breaker = Breaker(Settings(failures=3))
    for _ in range(5):
        assert not breaker.failed(1)
        assert not breaker.failed(1)
        breaker.succeeded(1)
    assert breaker.state == "closed"


def test_it_opens_at_a_share_of_failures_once_there_were_enough_calls() -> None:
    breaker = Breaker(Settings(failures=0, rate=0.5, min_calls=20))
    told = []
    for _ in range(10):
        breaker.succeeded(1)
        told.append(breaker.failed(1))
    assert told == [False] * 9 + [True]


def test_calls_of_long_ago_do_not_count() -> None:
    breaker = Breaker(Settings(failures=0, rate=0.5, min_calls=4, window_s=60))
    assert not any(breaker.failed(now) for now in (0, 1, 2, 100, 101, 102, 200))
    assert breaker.failed(201) is False
    assert breaker.failed(202) is False
    assert breaker.failed(203) is True


def test_with_no_limits_it_never_opens() -> None:
    breaker = Breaker(Settings(failures=0, rate=0))
    assert not any(breaker.failed(1) for _ in range(1000))


def test_half_open_lets_one_probe_through_and_its_success_closes_it() -> None:
    breaker = opened()
    assert breaker.begin(0)
    assert breaker.until == math.inf
    breaker.answered()
    assert (breaker.state, breaker.until) == ("closed", 0)


def test_a_probe_that_fails_opens_it_for_twice_as_long_each_time_up_to_a_bound() -> None:
    breaker, now, waits = opened(max_open_s=60), 110.0, []
    for _ in range(5):
        assert breaker.begin(0)
        assert breaker.failed(now, probe=True)
        waits.append(breaker.until - now)
        now = breaker.until
    assert waits == [20, 40, 60, 60, 60]


def test_after_a_probe_the_first_failure_opens_it_anew_until_an_answer_was_whole() -> None:
    breaker = opened()
    breaker.begin(0)
    breaker.answered()
    assert breaker.failed(111)
    breaker.begin(0)
    breaker.answered()
    breaker.succeeded(140)
    assert not breaker.failed(141)


def test_a_probe_that_tells_nothing_leaves_its_turn_to_the_next() -> None:
    breaker = opened()
    breaker.begin(0)
    breaker.abandoned(115)
    assert breaker.until == 115
    assert breaker.begin(0)


def test_a_probe_is_silent_after_ten_seconds_or_as_long_as_the_breaker_was_open() -> None:
    for open_s, silent_s in ((1, 10), (30, 30)):
        breaker = opened(open_s=open_s)
        assert not breaker.silent(1000)  # open, without a probe
        breaker.begin(200)
        assert not breaker.silent(200 + silent_s - 0.1)
        assert breaker.silent(200 + silent_s)
        assert breaker.begin(300)
        assert not breaker.silent(301)
        breaker.answered()
        assert not breaker.silent(1000)


def test_of_two_probes_the_first_that_fails_opens_it_and_the_other_does_not_prolong_that() -> None:
    breaker = opened()
    breaker.begin(110)
    breaker.begin(121)
    assert breaker.failed(122, probe=True)
    assert not breaker.failed(123, probe=True)
    assert (breaker.state, breaker.until, breaker.trips) == ("open", 142, 2)


def test_a_probe_that_fails_after_another_was_answered_is_one_failure_like_any_other() -> None:
    breaker = opened()
    breaker.begin(110)
    breaker.begin(121)
    breaker.answered()
    breaker.succeeded(122)
    assert not breaker.failed(130, probe=True)
    assert (breaker.state, breaker.failures) == ("closed", 1)


def test_a_probe_that_is_abandoned_after_the_channel_came_back_changes_nothing() -> None:
    breaker = opened()
    breaker.begin(110)
    breaker.answered()  # by another call than the probe
    breaker.abandoned(115)
    assert (breaker.state, breaker.until) == ("closed", 0)


def test_calls_from_before_the_opening_neither_close_nor_prolong_it() -> None:
    breaker = opened()
    breaker.succeeded(101)
    assert not breaker.failed(102)
    assert (breaker.state, breaker.until, breaker.failures) == ("open", 110, 3)


def test_years_of_failed_probes_do_no_harm() -> None:
    breaker = opened(max_open_s=300)
    breaker.trips = 100_000
    breaker.begin(0)
    assert breaker.failed(0, probe=True)
    assert breaker.until == 300


class Life(RuleBasedStateMachine):
    """Calls begin and end in any order; the model of it is the three rules of the docstring."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.breaker = Breaker(Settings(failures=3, rate=0, open_s=10, max_open_s=80))
        self.calls: list[bool] = []  # of each call under way: is it the probe?
        self.opened_at: float | None = None

    @rule(seconds=st.floats(0, 200))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.breaker.until <= self.now)
    @rule()
    def begin(self) -> None:
        closed = self.breaker.state == "closed"
        probe = self.breaker.begin(self.now)
        assert probe is not closed
        assert not (probe and True in self.calls)
        self.calls.append(probe)

    @precondition(lambda self: self.calls)
    @rule(data=st.data(), how=st.sampled_from(["whole", "failed", "gone"]))
    def end(self, data: st.DataObject, how: str) -> None:
        probe = self.calls.pop(data.draw(st.integers(0, len(self.calls) - 1)))
        before = (self.breaker.state, self.breaker.until)
        if how == "whole":
            if probe:
                self.breaker.answered()
            self.breaker.succeeded(self.now)
        elif how == "failed":
            was_open = self.breaker.failed(self.now, probe=probe)
            if probe:
                assert was_open
        elif probe:
            self.breaker.abandoned(self.now)
        if not probe and before[0] != "closed":
            assert (self.breaker.state, self.breaker.until) == before

    @invariant()
    def one_probe_at_most(self) -> None:
        assert self.calls.count(True) <= 1
        assert (self.breaker.until == math.inf) is (True in self.calls)

    @invariant()
    def closed_means_that_calls_pass(self) -> None:
        assert (self.breaker.state == "closed") is (self.breaker.until == 0)

    @invariant()
    def it_opens_again_some_day(self) -> None:
        if self.breaker.until != math.inf:
            assert self.breaker.until <= self.now + 80

    @invariant()
    def too_many_in_a_row_are_never_let_through(self) -> None:
        if self.breaker.failures >= 3 and not self.breaker.trips:
            pytest.fail("three failures in a row did not open it")


TestLife = Life.TestCase
TestLife.settings = hypothesis_settings(max_examples=60, stateful_step_count=40, deadline=None)
