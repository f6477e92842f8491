from __future__ import annotations

import pytest

from bench.promises import PROMISES, START, Promise
from bench.results import Measured, Spread
from bench.scenarios import IDEAL_SUMMARY_MS, SCENARIOS
from tests.bench.reports import BAD, GOOD, changed, report


def promise(scenario: str, title: str) -> Promise:
    (found,) = (one for one in PROMISES if (one.scenario, one.title) == (scenario, title))
    return found


def spread(p50: float) -> Spread:
    return Spread(1, p50, p50, p50, p50)


def test_every_promise_is_of_a_scenario_and_has_one_bound() -> None:
    for one in PROMISES:
        assert one.scenario in {*SCENARIOS, START}
        assert (one.at_least is None) != (one.at_most is None)


@pytest.mark.parametrize(("answers", "holds"), [(160, True), (159, False), (400, True)])
def test_requests_are_held_against_the_relay_s(answers: int, holds: bool) -> None:
    made = report("A", antiphon=[changed(answers=answers)])
    assert promise("A", "requests/s").holds(made) is holds


@pytest.mark.parametrize(("cpu_s", "holds"), [(2.2, True), (2.3, False)])
def test_cpu_is_held_against_the_relay_s(cpu_s: float, holds: bool) -> None:
    made = report("P", antiphon=[changed(server_cpu_s=cpu_s)])
    assert promise("P", "CPU per chunk").holds(made) is holds


def test_added_times_are_what_is_above_asking_the_mock_itself() -> None:
    def whole(p50: float) -> list[Measured]:
        return [changed(whole_us=spread(p50))]

    made = report("C", direct=whole(1000), relay=whole(2000), antiphon=whole(2500))
    one = promise("C", "added time, p50")
    assert one.read(made) == 1.5
    assert one.holds(made) is False


def test_the_first_word_s_time_is_told_in_milliseconds() -> None:
    made = report("S", direct=[changed(first_us=spread(20_000))], antiphon=[changed(first_us=spread(21_200))])
    assert promise("S", "added time to the first word, p50").read(made) == pytest.approx(1.2)


def test_the_summary_is_held_against_the_ideal() -> None:
    assert IDEAL_SUMMARY_MS == 1340
    made = report("E", antiphon=[changed(first_us=spread(1_349_000))])
    assert promise("E", "summary's first word after the ideal, p50").read(made) == pytest.approx(9)


def test_starts_are_judged_in_every_run() -> None:
    made = report("A")
    assert promise(START, "idle memory (PSS)").read(made) == 30
    assert promise(START, "cold start to the first answer").holds(made) is True


def test_without_a_result_nothing_is_said() -> None:
    assert promise("A", "requests/s").holds(report("A", relay=[BAD])) is None
    assert promise("A", "requests/s").holds(report("A", antiphon=[BAD])) is None
    assert promise("P", "CPU per chunk").holds(report("P", relay=[changed(server_cpu_s=None)])) is None
    assert promise("T", "chunks/s").holds(report("A", relay=[GOOD])) is None


def test_a_bound_is_told_in_words() -> None:
    assert promise("D", "gap between words, p99").bound == "≤ 205 ms"
    assert promise("A", "requests/s").bound == "≥ 0.8 ×"
