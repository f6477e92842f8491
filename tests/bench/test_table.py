from __future__ import annotations

import io

from rich.console import Console

from bench.contestants import ANTIPHON, DIRECT, NGINX
from bench.results import Record, Report
from bench.table import COLUMNS, is_disturbed, is_kept, is_rig_limited, show
from tests.bench.reports import BAD, changed, report


def shown(made: Report) -> str:
    file = io.StringIO()
    show(made, Console(file=file, width=160))
    return file.getvalue()


def test_every_scenario_has_a_table_with_a_row_for_each_contestant() -> None:
    for scenario in COLUMNS:
        text = shown(report(scenario))
        assert f"{scenario}: " in text
        for name in ("direct", "relay", "antiphon"):
            assert name in text


def test_ratios_are_against_the_relay() -> None:
    text = shown(report("A", antiphon=[changed(answers=300)]))
    assert "150 (1.50 ×)" in text
    assert "✓" in text


def test_a_missed_promise_has_its_mark() -> None:
    made = report("A", antiphon=[changed(answers=100)])
    assert "✗" in shown(made)
    assert not is_kept(made)


def test_bad_answers_are_no_result_and_their_fault_is_told() -> None:
    made = report("A", antiphon=[BAD])
    text = shown(made)
    assert "no result" in text
    assert "antiphon: 3 of 303 bad: no [DONE]" in text
    assert not is_kept(made)


def test_a_contestant_that_did_not_start_is_told_of() -> None:
    made = report("A")
    made.records.append(Record(NGINX, faults=["nginx ended with 1"]))
    assert "nginx: nginx ended with 1" in shown(made)
    assert is_kept(made)


def test_a_full_rig_beside_an_idle_server_limits_the_row() -> None:
    made = report("A", antiphon=[changed(rig_cpu_s=1.9, server_cpu_s=1.0)])
    assert is_rig_limited(made, ANTIPHON, "A")
    assert "rig-limited: mock and load" in shown(made)


def test_a_full_server_is_its_own_limit() -> None:
    made = report("A", antiphon=[changed(rig_cpu_s=1.9)])
    assert not is_rig_limited(made, ANTIPHON, "A")
    assert "rig-limited" not in shown(made)


def test_without_a_server_there_is_nothing_to_limit() -> None:
    made = report("A", direct=[changed(rig_cpu_s=2.0, server_cpu_s=None)])
    assert not is_rig_limited(made, DIRECT, "A")


def test_a_server_that_waited_for_its_core_was_disturbed() -> None:
    made = report("A", antiphon=[changed(server_waited_s=0.4)])
    assert is_disturbed(made, ANTIPHON, "A")
    assert "disturbed 20%" in shown(made)


def test_what_cannot_be_measured_here_is_said_to_be_not_measured() -> None:
    made = report("P", antiphon=[changed(server_cpu_s=None)])
    assert "not measured" in shown(made)
    assert is_kept(made)


def test_notes_stand_below_the_tables() -> None:
    made = report("A")
    made.notes.append("nginx is [left] out")
    assert "note: nginx is [left] out" in shown(made)
