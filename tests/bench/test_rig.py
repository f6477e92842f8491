from __future__ import annotations

import io

import pytest
from rich.console import Console

from bench.contestants import ANTIPHON, DIRECT, RELAY, Contestant, choose
from bench.processes import NotStarted, contestant_running, mock
from bench.rig import Rig, turned
from bench.scenarios import SUMMARY, WHOLE, Load, Scenario
from bench.table import show

TINY = [
    Scenario("A", "tiny", Load(2, stream=False, warmup_s=0.1, window_s=0.2), WHOLE),
    Scenario("S", "tiny", Load(2, warmup_s=0.1, window_s=0.3), "rig-short"),
    Scenario("E", "tiny", Load(1, warmup_s=0.1, window_s=0.1, drain_s=20), SUMMARY, combination=True),
    Scenario("W", "tiny", Load(1, once=True, watchers=3, warmup_s=0.1, drain_s=20), "rig-short"),
]


def test_each_round_begins_with_another() -> None:
    contestants = [Contestant(name, [name]) for name in "abc"]
    orders = ["".join(one.name for one in turned(contestants, number)) for number in range(4)]
    assert orders == ["abc", "bca", "cab", "abc"]


async def test_a_tiny_run_brings_every_table() -> None:
    contestants, _ = choose([Contestant("broken", ["false"])], [], quick=True)
    said: list[str] = []
    report = await Rig(contestants, TINY, 1, quick=False, say=said.append).run()
    for name, scenarios in ((DIRECT, "AS"), (RELAY, "AS"), (ANTIPHON, "ASEW")):
        record = report.record(name)
        assert record is not None
        assert "".join(record.scenarios) == scenarios
        held = [measured.good for measured in record.scenarios.get("W", [])]
        assert held in ([], [4])  # three watchers, and who asked
        assert [report.fault(name, scenario) for scenario in scenarios] == [None] * len(scenarios)
    broken = report.fault("broken", "A")
    assert broken is not None
    assert broken.startswith("broken ended with 1")
    assert any(line.startswith("round 1 of 1, relay: A, tiny") for line in said)
    file = io.StringIO()
    show(report, Console(file=file, width=160))
    text = file.getvalue()
    for expected in (
        "A: ",
        "S: ",
        "E: ",
        "W: ",
        "Start and memory",
        "What is promised",
        "no result",
        "note: ",
    ):
        assert expected in text


async def test_a_program_that_is_not_there_is_told_of() -> None:
    with pytest.raises(NotStarted, match="no-such-program"):
        async with contestant_running(Contestant("x", ["no-such-program-at-all"]), 1, None):
            pass


async def test_who_never_answers_is_ended_with_its_log_told() -> None:
    command = ["{python}", "-c", "import time; print('here I am', flush=True); time.sleep(600)"]
    silent = Contestant("silent", command, start_timeout_s=1)
    async with mock(None) as (port, _):
        with pytest.raises(NotStarted, match=r"no right answer in 1 s.*here I am"):
            async with contestant_running(silent, port, None):
                pass
