"""What is promised of Antiphon's speed: every number that `make bench` holds a run against.

Ratios are against the minimal relay of the same run, so they mean the same on every machine. The absolute
bounds (those with a unit) were set on a small virtual machine where a system call is dear; a faster one meets
them easily, a crowded one may not.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from bench.contestants import ANTIPHON, DIRECT, RELAY
from bench.results import Measured, Report, Spread, Start
from bench.scenarios import IDEAL_SUMMARY_MS, SCENARIOS, WIDE_PANEL, ideal_summary_ms

START = "start"  # stands where a scenario's letter would

Figure = Callable[[Measured], float | None]


def _p50(spread: Spread | None) -> float | None:
    return spread.p50 if spread else None


def _rate(measured: Measured) -> float | None:
    return measured.answers_per_s


def _word_rate(measured: Measured) -> float | None:
    return measured.words_per_s


def _word_cpu(measured: Measured) -> float | None:
    return measured.cpu_us_per_word


def _answer_cpu(measured: Measured) -> float | None:
    return measured.cpu_us_per_answer


def _whole(measured: Measured) -> float | None:
    return _p50(measured.whole_us)


def _first(measured: Measured) -> float | None:
    return _p50(measured.first_us)


class Promise(msgspec.Struct, frozen=True):
    """One line of the table: what is read from a report, and where it has to lie."""

    scenario: str
    title: str
    read: Callable[[Report], float | None]  # None: this run cannot tell
    at_least: float | None = None
    at_most: float | None = None
    unit: str = "×"

    @property
    def bound(self) -> str:
        """The promise in words."""
        sign, value = ("≥", self.at_least) if self.at_least is not None else ("≤", self.at_most)
        return f"{sign} {value:g} {self.unit}"

    def holds(self, report: Report) -> bool | None:
        """Is it kept? None: this run cannot tell."""
        value = self.read(report)
        if value is None:
            return None
        if self.at_least is not None:
            return value >= self.at_least
        return self.at_most is None or value <= self.at_most


def ratio(scenario: str, figure: Figure, name: str = ANTIPHON) -> Callable[[Report], float | None]:
    """Reads a contestant's figure over the relay's."""

    def read(report: Report) -> float | None:
        ours, relay = report.median(name, scenario, figure), report.median(RELAY, scenario, figure)
        return ours / relay if ours is not None and relay else None

    return read


def added(scenario: str, figure: Figure, name: str = ANTIPHON) -> Callable[[Report], float | None]:
    """Reads what a contestant adds to the figure of asking the mock itself, in µs."""

    def read(report: Report) -> float | None:
        ours, direct = report.median(name, scenario, figure), report.median(DIRECT, scenario, figure)
        return ours - direct if ours is not None and direct is not None else None

    return read


def _added_ratio(scenario: str, figure: Figure) -> Callable[[Report], float | None]:
    def read(report: Report) -> float | None:
        ours, relay = added(scenario, figure)(report), added(scenario, figure, RELAY)(report)
        return ours / relay if ours is not None and relay is not None and relay > 0 else None

    return read


def _scaled(read: Callable[[Report], float | None], by: float) -> Callable[[Report], float | None]:
    def scaled(report: Report) -> float | None:
        value = read(report)
        return None if value is None else value * by

    return scaled


def _median(scenario: str, figure: Figure, by: float = 1) -> Callable[[Report], float | None]:
    return _scaled(lambda report: report.median(ANTIPHON, scenario, figure), by)


def _gap_p99(measured: Measured) -> float | None:
    return measured.gap_us.p99 if measured.gap_us else None


def _late_summary_ms(report: Report) -> float | None:
    first = report.median(ANTIPHON, "E", _first)
    return None if first is None else first / 1000 - IDEAL_SUMMARY_MS


def _late_run_ms(report: Report) -> float | None:
    """What the scheduling of runs adds, at most, to the ideal: p99."""
    first = report.median(
        ANTIPHON, "R", lambda measured: measured.first_us.p99 if measured.first_us else None
    )
    return None if first is None else first / 1000 - ideal_summary_ms(WIDE_PANEL)


def _figure(scenario: str, name: str) -> Callable[[Report], float | None]:
    return _median(scenario, lambda measured: measured.figures.get(name))


def _start(figure: Callable[[Start], float | None]) -> Callable[[Report], float | None]:
    return lambda report: report.start(ANTIPHON, figure)


PROMISES = (
    Promise("A", "requests/s", ratio("A", _rate), at_least=0.8),
    Promise("T", "chunks/s", ratio("T", _word_rate), at_least=0.9),
    Promise("T", "CPU per chunk", ratio("T", _word_cpu), at_most=1.15),
    Promise("P", "CPU per chunk", ratio("P", _word_cpu), at_most=1.15),
    Promise("C", "added time, p50", _added_ratio("C", _whole), at_most=1.3),
    Promise(
        "S",
        "added time to the first word, p50",
        _scaled(added("S", _first), 1 / 1000),
        at_most=1.5,
        unit="ms",
    ),
    Promise(
        "D",
        "streams held",
        _median("D", lambda measured: measured.held),
        at_least=SCENARIOS["D"].load.connections,
        unit="",
    ),
    Promise("D", "gap between words, p99", _median("D", _gap_p99, 1 / 1000), at_most=205, unit="ms"),
    Promise(
        "D", "CPU", _median("D", lambda measured: measured.server_load, 100), at_most=55, unit="% of a core"
    ),
    Promise("D", "memory", _median("D", lambda measured: measured.peak_mb), at_most=120, unit="MB"),
    Promise("E", "summary's first word after the ideal, p50", _late_summary_ms, at_most=10, unit="ms"),
    Promise("W", "CPU for an event told to a watcher", _median("W", _word_cpu), at_most=15, unit="µs"),
    Promise(
        "R",
        "CPU for a run, its six calls and 110 chunks",
        _median("R", _answer_cpu, 1 / 1000),
        at_most=8,
        unit="ms",
    ),
    Promise("R", "first word of the summary after the ideal, p99", _late_run_ms, at_most=5, unit="ms"),
    Promise("WA", "told to each of 10,000, p99", _figure("WA", "told p99"), at_most=500, unit="ms"),
    Promise("WT", "updates for each watcher", _figure("WT", "updates/s"), at_least=10, unit="/s"),
    Promise("WT", "from event to watcher, p99", _figure("WT", "told p99"), at_most=150, unit="ms"),
    Promise("WC", "added beside 1,000 watchers, p99", _figure("WC", "watched +p99"), at_most=5, unit="ms"),
    Promise("WC", "added beside 100 stuck ones, p99", _figure("WC", "stuck +p99"), at_most=5, unit="ms"),
    Promise("WS", "memory of 100 that never read", _figure("WS", "growth MB"), at_most=150, unit="MB"),
    Promise("WS", "all of them closed after", _figure("WS", "closed s"), at_most=15, unit="s"),
    Promise("WJ", "a late watcher's snapshot, p99", _figure("WJ", "joined p99"), at_most=20, unit="ms"),
    Promise("WJ", "from command to upstream closed, p99", _figure("WJ", "closed p99"), at_most=50, unit="ms"),
    Promise(
        START, "cold start to the first answer", _start(lambda start: start.cold_s), at_most=0.8, unit="s"
    ),
    Promise(START, "idle memory (PSS)", _start(lambda start: start.idle_mb), at_most=60, unit="MB"),
)
