from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.contestants import ANTIPHON, RELAY
from bench.results import Spread
from tests.bench.reports import BAD, GOOD, changed, report


@given(st.lists(st.integers(0, 10**9), min_size=1))
def test_a_spread_rises_and_ends_with_the_most(values: list[int]) -> None:
    spread = Spread.of(values)
    assert spread is not None
    assert spread.p50 <= spread.p90 <= spread.p99 <= spread.most == max(values)
    assert spread.count == len(values)


def test_nothing_has_no_spread() -> None:
    assert Spread.of([]) is None


def test_figures_are_of_the_window() -> None:
    assert GOOD.answers_per_s == 100
    assert GOOD.words_per_s == 10_000
    assert GOOD.server_load == pytest.approx(0.99)
    assert GOOD.cpu_us_per_word == pytest.approx(99)
    assert GOOD.cpu_us_per_answer == pytest.approx(9900)


def test_what_was_not_measured_is_unknown_not_zero() -> None:
    unknown = changed(server_cpu_s=None, rig_cpu_s=None, server_waited_s=None)
    assert unknown.server_load is unknown.rig_load is unknown.disturbance is None
    assert unknown.cpu_us_per_word is unknown.cpu_us_per_answer is None
    assert changed(answers=0, words=0).cpu_us_per_word is None


def test_a_figure_is_the_median_of_the_rounds() -> None:
    made = report("A", antiphon=[changed(answers=answers) for answers in (100, 900, 200)])
    assert made.median(ANTIPHON, "A", lambda measured: measured.answers_per_s) == 100


def test_rounds_in_which_the_server_had_its_core_are_preferred() -> None:
    calm, disturbed = changed(answers=300), changed(answers=100, server_waited_s=0.5)
    made = report("A", antiphon=[disturbed, calm, disturbed], relay=[disturbed, disturbed])
    assert made.rounds(ANTIPHON, "A") == [calm]
    assert made.rounds(RELAY, "A") == [disturbed, disturbed]


def test_one_bad_round_leaves_no_result() -> None:
    made = report("A", antiphon=[GOOD, BAD, GOOD])
    assert made.median(ANTIPHON, "A", lambda measured: measured.answers_per_s) is None
    assert made.fault(ANTIPHON, "A") == "3 of 303 bad: no [DONE]"


def test_who_did_not_take_part_has_neither_result_nor_fault() -> None:
    made = report("A")
    assert made.median("nginx", "A", lambda measured: measured.answers_per_s) is None
    assert made.fault("nginx", "A") is None
    assert made.start("nginx", lambda start: start.cold_s) is None
