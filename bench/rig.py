"""Runs the rounds: every contestant once a round, in turning order, each freshly started."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable

from bench import cpu
from bench.contestants import DIRECT, Contestant
from bench.processes import NotStarted, Running, contestant_running, headers, mock, run_load
from bench.results import Measured, Record, Report
from bench.scenarios import MODELS, Load, Scenario
from bench.tally import Job

PAUSE_S = 0.3  # between two scenarios, for sockets to close

Say = Callable[[str], None]


def turned(contestants: list[Contestant], number: int) -> list[Contestant]:
    """The order of a round: another one begins each time, so that nobody always comes after the same."""
    by = number % len(contestants)
    return contestants[by:] + contestants[:by]


def load_of(scenario: Scenario, quick: bool) -> Load:
    return (scenario.quick or scenario.load) if quick else scenario.load


def takes(contestant: Contestant, scenario: Scenario) -> bool:
    """Can a contestant be asked what a scenario asks?"""
    if scenario.combination:
        return contestant.combination is not None
    load = scenario.load
    return not (load.watchers or load.act or scenario.panel) or contestant.watch_path is not None


def job(running: Running, scenario: Scenario, load: Load, mock_port: int, mock_pid: int) -> Job:
    """What to ask of a contestant in a scenario."""
    contestant = running.contestant
    model = (
        contestant.combination if scenario.combination else contestant.asked(scenario.panel or scenario.model)
    )
    assert model is not None  # who has no combination is not asked for one
    return Job(
        port=running.port,
        path=contestant.path,
        headers=headers(contestant),
        model=model,
        load=load,
        words=MODELS[scenario.model].words,
        exact_usage=not (scenario.combination or scenario.panel),
        watch_path=contestant.watch_path,
        server_pid=running.pid,
        mock_pid=mock_pid,
        mock_port=mock_port,
    )


class Rig:
    """One run of everything. ``say`` gets a line for each step."""

    def __init__(
        self, contestants: list[Contestant], scenarios: list[Scenario], rounds: int, quick: bool, say: Say
    ) -> None:
        self._contestants = contestants
        self._scenarios = scenarios
        self._rounds = rounds
        self._quick = quick
        self._say = say
        self._server_core, self._rig_core = cpu.cores()
        self.report = Report(
            [Record(contestant.name) for contestant in contestants],
            [scenario.key for scenario in scenarios],
            self._notes(),
        )

    def _notes(self) -> list[str]:
        notes = []
        if self._server_core is not None:
            notes.append(f"server on core {self._server_core}, mock and load on core {self._rig_core}")
        else:
            why = (
                "has no way to" if sys.platform == "darwin" else "cannot be made to, or has one core only, to"
            )
            notes.append(
                f"nothing is pinned: this system {why} bind processes to cores; figures scatter more"
            )
        if not cpu.IS_KNOWN:
            notes.append("CPU and memory are not measured: they are read from /proc, which this system lacks")
        return notes

    async def run(self) -> Report:
        """Carry out all rounds. Raises RigFailure; what was started has ended in any case."""
        async with mock(self._rig_core) as (port, pid):
            for number in range(self._rounds):
                for contestant in turned(self._contestants, number):
                    await self._turn(contestant, number, port, pid)
        return self.report

    async def _turn(self, contestant: Contestant, number: int, port: int, mock_pid: int) -> None:
        """One contestant's part of a round."""
        record = self.report.record(contestant.name)
        assert record is not None
        where = f"round {number + 1} of {self._rounds}, {contestant.name}"
        self._say(f"{where}: starting")
        try:
            async with contestant_running(contestant, port, self._server_core) as running:
                if running.start is not None:
                    record.starts.append(running.start)
                for scenario in self._scenarios:
                    if not takes(contestant, scenario):
                        continue
                    if scenario.rounds and number >= (1 if self._quick else scenario.rounds):
                        continue
                    self._say(f"{where}: {scenario.key}, {scenario.title}")
                    load = load_of(scenario, self._quick)
                    measured = await run_load(job(running, scenario, load, port, mock_pid), self._rig_core)
                    record.scenarios.setdefault(scenario.key, []).append(measured)
                    self._remark(contestant, scenario, measured)
                    await asyncio.sleep(PAUSE_S)
        except NotStarted as error:
            record.faults.append(str(error))
            self._say(f"{where}: {error}")

    def _remark(self, contestant: Contestant, scenario: Scenario, measured: Measured) -> None:
        if not measured.is_good and contestant.name != DIRECT:
            self._say(f"  no result: {measured.bad} bad answers; the first: {measured.first_fault}")
        elif not measured.is_good:
            self._say(f"  the rig itself fails in {scenario.key}: {measured.first_fault}")
