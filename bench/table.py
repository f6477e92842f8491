"""The tables that a run ends with."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Console
from rich.table import Table

from bench.contestants import ANTIPHON, RELAY
from bench.promises import PROMISES, START, Promise
from bench.results import Measured, Report, Spread, Start
from bench.scenarios import PANEL, SCENARIOS, ideal_summary_ms

RIG_FULL = 0.9  # share of the rig's core from which it is the rig that limits
SERVER_FULL = 0.95  # share of the server's core from which it is the server

RIG_LIMITED = (
    f"rig-limited: mock and load used {RIG_FULL:.0%} of their core or more, and the server less than "
    f"{SERVER_FULL:.0%} of its own: it could have done more. Compare its CPU, not its rate; direct shows how "
    "much the rig can do."
)
IS_DISTURBED = (
    "disturbed: for this share of the time the server was ready to run and other work had its core. Rates "
    "and times of such a row are noise, CPU less so; measure again on a quiet machine."
)

Figure = Callable[[Measured], float | None]
Column = tuple[str, Figure, Callable[[float], str]]


def _number(value: float) -> str:
    return f"{value:,.0f}"


def _tenths(value: float) -> str:
    return f"{value:,.1f}"


def _percent(value: float) -> str:
    return f"{value:.0%}"


def _milliseconds(value: float) -> str:
    return f"{value / 1000:,.2f}"


def _of(spread: Callable[[Measured], Spread | None], share: str) -> Figure:
    def figure(measured: Measured) -> float | None:
        found = spread(measured)
        return None if found is None else float(getattr(found, share))

    return figure


_TOLD: Column = ("events told/s", lambda m: m.words_per_s, _number)
_CPU_TOLD: Column = ("CPU µs each", lambda m: m.cpu_us_per_word, _tenths)
_RATE: Column = ("requests/s", lambda m: m.answers_per_s, _number)
_WORDS: Column = ("chunks/s", lambda m: m.words_per_s, _number)
_CPU_ANSWER: Column = ("CPU µs/request", lambda m: m.cpu_us_per_answer, _number)
_CPU_WORD: Column = ("CPU µs/chunk", lambda m: m.cpu_us_per_word, _tenths)
_WHOLE: Column = ("p50 ms", _of(lambda m: m.whole_us, "p50"), _milliseconds)
_WHOLE_90: Column = ("p90 ms", _of(lambda m: m.whole_us, "p90"), _milliseconds)
_FIRST: Column = ("first word p50 ms", _of(lambda m: m.first_us, "p50"), _milliseconds)
_FIRST_90: Column = ("p90 ms", _of(lambda m: m.first_us, "p90"), _milliseconds)
_FIRST_99: Column = ("p99 ms", _of(lambda m: m.first_us, "p99"), _milliseconds)
_GAP_99: Column = ("gap p99 ms", _of(lambda m: m.gap_us, "p99"), _milliseconds)
_TRANSIT: Column = ("on its way p50 ms", _of(lambda m: m.transit_us, "p50"), _milliseconds)
_HELD: Column = ("held", lambda m: m.held, _number)
_PEAK: Column = ("peak MB", lambda m: m.peak_mb, _number)
_LOAD: Column = ("server CPU", lambda m: m.server_load, _percent)
_RIG: Column = ("rig CPU", lambda m: m.rig_load, _percent)


def _told(name: str, heading: str | None = None, shown: Callable[[float], str] = _tenths) -> Column:
    """A figure that an act tells."""
    return (heading or name, lambda measured: measured.figures.get(name), shown)


def _times(name: str) -> tuple[Column, ...]:
    return tuple(_told(f"{name} {share}", f"{name} {share} ms") for share in ("p50", "p90", "p99"))


COLUMNS: dict[str, tuple[Column, ...]] = {
    "A": (_RATE, _CPU_ANSWER, _WHOLE, _WHOLE_90, _LOAD, _RIG),
    "B": (_WORDS, _CPU_WORD, _TRANSIT, _LOAD, _RIG),
    "T": (_WORDS, _CPU_WORD, _TRANSIT, _GAP_99, _LOAD, _RIG),
    "P": (_WORDS, _CPU_WORD, _TRANSIT, _GAP_99, _LOAD, _RIG),
    "C": (_WHOLE, _WHOLE_90, _CPU_ANSWER, _LOAD, _RIG),
    "S": (_FIRST, _FIRST_90, _TRANSIT, _CPU_WORD, _LOAD, _RIG),
    "D": (_HELD, _GAP_99, _TRANSIT, _CPU_WORD, _PEAK, _LOAD, _RIG),
    "E": (_FIRST, _FIRST_90, _LOAD, _RIG),
    "W": (_TOLD, _CPU_TOLD, _TRANSIT, _PEAK, _LOAD, _RIG),
    "R": (_FIRST, _FIRST_90, _FIRST_99, _CPU_ANSWER, _HELD, _LOAD, _RIG),
    "WA": (*_times("told"), _CPU_TOLD, _told("KB each", "KB/watcher"), _PEAK, _LOAD, _RIG),
    "WT": (_told("updates/s"), *_times("told"), _CPU_TOLD, _PEAK, _LOAD, _RIG),
    "WC": (*_times("alone"), *_times("watched"), *_times("stuck"), _LOAD, _RIG),
    "WS": (_told("growth MB"), _told("closed s"), _PEAK, _LOAD, _RIG),
    "WJ": (*_times("joined"), *_times("closed"), _LOAD, _RIG),
}


def is_rig_limited(report: Report, name: str, scenario: str) -> bool:
    """Was the rig's own core full while the server's was not? Then the server could have done more."""
    rig = report.median(name, scenario, lambda measured: measured.rig_load)
    server = report.median(name, scenario, lambda measured: measured.server_load)
    return rig is not None and server is not None and rig >= RIG_FULL and server < SERVER_FULL


def is_disturbed(report: Report, name: str, scenario: str) -> bool:
    """Had other work of the machine the server's core for too long, in every round?"""
    return any(measured.is_disturbed for measured in report.rounds(name, scenario))


def _remark(report: Report, name: str, scenario: str) -> str:
    remarks = []
    if is_rig_limited(report, name, scenario):
        remarks.append("[yellow]rig-limited[/yellow]")
    if is_disturbed(report, name, scenario):
        share = report.median(name, scenario, lambda measured: measured.disturbance)
        remarks.append(f"[yellow]disturbed {share:.0%}[/yellow]")
    return " ".join(remarks)


def _cell(report: Report, name: str, scenario: str, column: Column) -> str:
    _, figure, shown = column
    value = report.median(name, scenario, figure)
    if value is None:
        return "–"
    relay = report.median(RELAY, scenario, figure)
    is_ratio_told = name != RELAY and relay and column not in (_LOAD, _RIG, _HELD)
    return f"{shown(value)} [dim]({value / relay:.2f} ×)[/dim]" if is_ratio_told and relay else shown(value)


def scenario_table(report: Report, scenario: str) -> Table:
    """One scenario: a row for each contestant, with ratios against the relay."""
    title = f"{scenario}: {SCENARIOS[scenario].title}"
    panel = PANEL if SCENARIOS[scenario].combination else SCENARIOS[scenario].panel
    if panel and not SCENARIOS[scenario].load.act:
        title += f" (ideal: {ideal_summary_ms(panel):,} ms)"
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("contestant")
    for heading, _, _ in COLUMNS[scenario]:
        table.add_column(heading, justify="right")
    table.add_column("")
    for record in report.records:
        fault = report.fault(record.name, scenario)
        if fault is None and scenario not in record.scenarios:
            continue
        cells = [_cell(report, record.name, scenario, column) for column in COLUMNS[scenario]]
        remark = "[red]no result[/red]" if fault else _remark(report, record.name, scenario)
        table.add_row(record.name, *cells, remark)
    return table


def start_table(report: Report) -> Table:
    """Cold starts and idle memory."""
    table = Table(title="Start and memory", title_justify="left", title_style="bold")
    for heading in ("contestant", "cold start s", "idle MB (PSS)", "processes"):
        table.add_column(heading, justify="left" if heading == "contestant" else "right")
    figures: tuple[tuple[Callable[[Start], float | None], str], ...] = (
        (lambda start: start.cold_s, "{:.2f}"),
        (lambda start: start.idle_mb, "{:.0f}"),
        (lambda start: start.processes, "{:.0f}"),
    )
    for record in report.records:
        if record.starts:
            values = [(report.start(record.name, figure), shown) for figure, shown in figures]
            table.add_row(
                record.name, *("–" if value is None else shown.format(value) for value, shown in values)
            )
    return table


def _mark(report: Report, promise: Promise) -> tuple[str, str]:
    """What was read, and a mark."""
    value, holds = promise.read(report), promise.holds(report)
    if promise.scenario != START and report.fault(ANTIPHON, promise.scenario):
        return "no result", "[red]✗[/red]"
    if value is None or holds is None:
        return "–", "[yellow]not measured[/yellow]"
    digits = 0 if promise.unit == "" else 2
    return f"{value:,.{digits}f} {promise.unit}", "[green]✓[/green]" if holds else "[red]✗[/red]"


def asked(report: Report) -> list[Promise]:
    """The promises that this run was to judge."""
    return [promise for promise in PROMISES if promise.scenario in (START, *report.scenarios)]


def is_kept(report: Report) -> bool:
    """Do all promises hold that this run could judge, with a result in each scenario?"""
    return not any(
        promise.holds(report) is False or report.fault(ANTIPHON, promise.scenario)
        for promise in asked(report)
    )


def promise_table(report: Report) -> Table:
    """The promises of docs/speed.md with a mark for each."""
    table = Table(title=f"What is promised of {ANTIPHON}", title_justify="left", title_style="bold")
    for heading in ("", "figure", "promised", "measured", ""):
        table.add_column(heading, justify="right" if heading == "measured" else "left")
    for promise in asked(report):
        measured, mark = _mark(report, promise)
        if promise.scenario != START:
            # Where both were disturbed alike a ratio still tells something, so the mark stays beside it.
            names = (ANTIPHON, RELAY) if promise.unit == "×" else (ANTIPHON,)
            told = [
                f"{name} {remark}" for name in names if (remark := _remark(report, name, promise.scenario))
            ]
            mark = " ".join([mark, ", ".join(told)])
        table.add_row(promise.scenario, promise.title, promise.bound, measured, mark)
    return table


def show(report: Report, console: Console) -> None:
    """Print everything: a table for each scenario, starts, promises, faults and notes."""
    for scenario in report.scenarios:
        console.print(scenario_table(report, scenario))
        for record in report.records:
            if fault := report.fault(record.name, scenario):
                console.print(f"  {record.name}: {fault}", style="red", markup=False, highlight=False)
    console.print(start_table(report))
    console.print(promise_table(report))
    rows = [(record.name, key) for record in report.records for key in report.scenarios]
    if any(is_rig_limited(report, *row) for row in rows):
        console.print(RIG_LIMITED, style="yellow", highlight=False)
    if any(is_disturbed(report, *row) for row in rows):
        console.print(IS_DISTURBED, style="yellow", highlight=False)
    for note in report.notes:
        console.print(f"note: {note}", markup=False, highlight=False)
