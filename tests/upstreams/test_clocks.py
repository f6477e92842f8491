"""The clocks of one call, by a loop whose time is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.errors import UpstreamTimeout
from server.settings import Timeouts
from server.upstreams.clocks import Clocks, Patrol

START = 1000.0


class Timer:
    def __init__(self, when: float, call: Callable[[], None]) -> None:
        self.when, self.call, self.cancelled = when, call, False

    def cancel(self) -> None:
        self.cancelled = True


class Loop:
    """As much of an event loop as a clock needs; time goes on by ``advance``."""

    def __init__(self) -> None:
        self.now = START
        self.timers: list[Timer] = []

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, call: Callable[[], None]) -> Timer:
        return self.call_at(self.now + delay, call)

    def call_at(self, when: float, call: Callable[[], None]) -> Timer:
        self.timers.append(Timer(when, call))
        return self.timers[-1]

    @property
    def live(self) -> list[Timer]:
        return [timer for timer in self.timers if not timer.cancelled]

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        while due := [timer for timer in self.live if timer.when <= end]:
            timer = min(due, key=lambda timer: timer.when)
            self.timers.remove(timer)
            self.now = max(self.now, timer.when)
            timer.call()
        self.now = end


class Watched(NamedTuple):
    clocks: Clocks
    expired: list[tuple[float, UpstreamTimeout]]  # seconds from the start


@pytest.fixture
def loop() -> Loop:
    return Loop()


def watched(loop: Loop, *, plain: bool = False, deadline: float | None = None, **timeouts: float) -> Watched:
    limits = {"first_token_s": 10, "idle_s": 4, "total_s": 100} | timeouts
    watched = Watched(Clocks(Patrol(loop), Timeouts(**limits), plain=plain, deadline=deadline), [])  # type: ignore[arg-type]
    watched.clocks.watch(lambda error: watched.expired.append((loop.now - START, error)))
    return watched


def clocks_of(loop: Loop, timeouts: Timeouts, *, plain: bool, head_in_time: bool = False) -> Clocks:
    return Clocks(Patrol(loop), timeouts, plain=plain, deadline=None, head_in_time=head_in_time)  # type: ignore[arg-type]


def ended(watched: Watched) -> list[tuple[float, str]]:
    return [(at, error.code.removeprefix("upstream_timeout_")) for at, error in watched.expired]


def test_a_call_that_says_nothing_ends_by_the_first_token_clock(loop: Loop) -> None:
    one = watched(loop)
    loop.advance(1000)
    assert ended(one) == [(10, "first_token")]
    assert one.expired[0][1].status == 504
    assert loop.live == []


def test_a_whole_answers_head_is_timed_only_if_the_channel_says_so(loop: Loop) -> None:
    timeouts = Timeouts(first_token_s=10, idle_s=4, total_s=100)
    assert clocks_of(loop, timeouts, plain=True).head_by == START + 100
    late, spoken = (clocks_of(loop, timeouts, plain=True, head_in_time=True) for _ in range(2))
    assert late.head_by == START + 10
    assert late.error().code == "upstream_timeout_first_token"
    told: list[tuple[str, str]] = []
    late.watch(lambda error: told.append(("late", error.clock)))
    spoken.watch(lambda error: told.append(("in time", error.clock)))
    spoken.head_came()
    loop.advance(1000)
    assert told == [("late", "first_token"), ("in time", "total")]


def test_the_head_of_a_stream_is_no_first_token(loop: Loop) -> None:
    one = watched(loop)
    one.clocks.head_came()
    loop.advance(1000)
    assert ended(one) == [(10, "first_token")]


def test_bytes_that_say_nothing_do_not_feed_the_first_token_clock(loop: Loop) -> None:
    one = watched(loop)
    for _ in range(12):
        one.clocks.heard()
        loop.advance(1)
    assert ended(one) == [(10, "first_token")]


def test_from_the_first_delta_on_silence_ends_it(loop: Loop) -> None:
    one = watched(loop)
    loop.advance(9)
    one.clocks.spoken()
    one.clocks.heard()
    loop.advance(1000)
    assert ended(one) == [(13, "idle")]


def test_a_slow_steady_stream_lives_until_the_total_clock(loop: Loop) -> None:
    one = watched(loop)
    one.clocks.spoken()
    for _ in range(50):
        one.clocks.heard()
        loop.advance(3.9)
    assert ended(one) == [(100, "total")]


def test_while_our_caller_is_slow_no_silence_is_the_upstreams(loop: Loop) -> None:
    one = watched(loop)
    one.clocks.spoken()
    one.clocks.pause()
    loop.advance(50)
    assert ended(one) == []
    one.clocks.heard()
    loop.advance(50)
    assert ended(one) == [(54, "idle")]


def test_a_slow_caller_does_not_stop_the_total_clock(loop: Loop) -> None:
    one = watched(loop)
    one.clocks.spoken()
    one.clocks.pause()
    loop.advance(200)
    assert ended(one) == [(100, "total")]


def test_a_plain_call_runs_under_the_total_clock_alone(loop: Loop) -> None:
    one = watched(loop, plain=True)
    one.clocks.spoken()
    one.clocks.heard()
    loop.advance(1000)
    assert ended(one) == [(100, "total")]


def test_the_callers_deadline_counts_if_it_comes_first(loop: Loop) -> None:
    one = watched(loop, deadline=START + 3)
    loop.advance(1000)
    assert ended(one) == [(3, "total")]
    other = watched(loop, deadline=loop.now + 3000)
    loop.advance(10)
    assert [error.code for _, error in other.expired] == ["upstream_timeout_first_token"]


def test_the_last_one_that_watches_is_told(loop: Loop) -> None:
    one = watched(loop)
    later: list[UpstreamTimeout] = []
    one.clocks.watch(later.append)
    loop.advance(1000)
    assert (one.expired, [error.clock for error in later]) == ([], ["first_token"])
    assert loop.live == []


@pytest.mark.parametrize("wait_s", [0, 1, 500])
def test_zero_switches_a_clock_off(loop: Loop, wait_s: float) -> None:
    one = watched(loop, first_token_s=0, total_s=0)
    loop.advance(wait_s)
    one.clocks.heard()
    loop.advance(500)
    assert ended(one) == []  # silence counts from the first delta on, whatever is switched off
    one.clocks.spoken()
    one.clocks.heard()
    loop.advance(500)
    assert ended(one) == [(wait_s + 504, "idle")]


def test_with_all_clocks_off_there_is_no_timer(loop: Loop) -> None:
    one = watched(loop, first_token_s=0, idle_s=0, total_s=0)
    one.clocks.spoken()
    one.clocks.heard()
    assert loop.timers == []


@pytest.mark.parametrize("first_token_s", [1.5, 10])
def test_after_the_stop_nothing_is_called_and_soon_no_timer_is_left(loop: Loop, first_token_s: float) -> None:
    one = watched(loop, first_token_s=first_token_s)
    one.clocks.stop()
    one.clocks.stop()
    loop.advance(1)
    assert loop.live == []
    loop.advance(1000)
    assert ended(one) == []


def test_calls_that_are_far_from_any_end_share_one_timer(loop: Loop) -> None:
    patrol = Patrol(loop)  # type: ignore[arg-type]
    told: list[tuple[float, int]] = []
    for number in range(100):
        clocks = Clocks(patrol, Timeouts(total_s=5 + number), plain=True, deadline=None)
        clocks.watch(lambda error, number=number: told.append((loop.now - START, number)))  # type: ignore[misc]
    assert len(loop.live) == 1
    loop.advance(1000)
    assert told == [(5 + number, number) for number in range(100)]
    assert loop.live == []


def test_a_patrol_that_is_stopped_passes_no_more(loop: Loop) -> None:
    patrol = Patrol(loop)  # type: ignore[arg-type]
    Clocks(patrol, Timeouts(total_s=50), plain=True, deadline=None).watch(lambda error: None)
    patrol.stop()
    patrol.stop()
    assert loop.live == []


def test_a_chunk_sets_no_timer(loop: Loop) -> None:
    one = watched(loop)
    one.clocks.spoken()
    for _ in range(1000):
        one.clocks.pause()
        one.clocks.heard()
    assert len(loop.timers) == 1


def test_an_error_names_its_clock_and_its_limit(loop: Loop) -> None:
    one = watched(loop)
    error = one.clocks.error()
    assert (error.status, error.clock, error.retryable) == (504, "first_token", True)
    assert "10 s" in error.message
    total = watched(loop, total_s=5).clocks.error()
    assert (total.code, total.retryable) == ("upstream_timeout_total", False)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["heard", "spoken", "pause", "nothing"]),
        st.floats(0, 8, allow_nan=False, allow_infinity=False),
    ),
    max_size=30,
)


@given(STEPS, st.sampled_from([0, 3, 10]), st.sampled_from([0, 1, 4]), st.sampled_from([0, 25]))
def test_whatever_happens_it_ends_when_the_first_clock_runs_out(
    steps: list[tuple[str, float]], first_token_s: float, idle_s: float, total_s: float
) -> None:
    loop = Loop()
    one = watched(loop, first_token_s=first_token_s, idle_s=idle_s, total_s=total_s)
    spoken, since = False, float("inf")
    for what, seconds in [*steps, ("nothing", 1000.0)]:
        if what == "spoken":
            spoken, since = True, float("inf")
            one.clocks.spoken()
        elif what == "heard":
            since = loop.now
            one.clocks.heard()
        elif what == "pause":
            since = float("inf")
            one.clocks.pause()
        silent = (since + idle_s if idle_s else float("inf")) if spoken else START + (first_token_s or 1e9)
        due = min(silent, START + (total_s or 1e9))
        loop.advance(seconds)
        if due <= loop.now:
            assert len(one.expired) == 1
            assert one.expired[0][0] == pytest.approx(due - START)
            return
        assert not one.expired
