"""``make bench`` and ``python -m bench``."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from pathlib import Path

import msgspec
from rich.console import Console

from bench.contestants import ANTIPHON, DIRECT, RELAY, Contestant, UnfitContestants, choose, read_gateways
from bench.processes import RigFailure
from bench.results import Report
from bench.rig import Rig
from bench.scenarios import QUICK_SCENARIOS, SCENARIOS, Scenario
from bench.table import is_kept, show

WIDTH = 140
KEPT, MISSED, FAILED, ENDED = 0, 1, 2, 130

EPILOG = """\
Scenarios:
{scenarios}

Exit code: 0 when the run was carried out, whatever it found: on a machine with other work this is a report,
not a test. With --strict 1 when a promise was missed. 2 when the rig itself failed. See docs/speed.md.
"""


def parser() -> argparse.ArgumentParser:
    scenarios = "\n".join(f"  {key}  {scenario.title}" for key, scenario in SCENARIOS.items())
    made = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measure what Antiphon adds to a request, beside a minimal relay on this machine.",
        epilog=EPILOG.format(scenarios=scenarios),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--scenarios", metavar="A,B,…", help="which ones (default: all; with --quick A,T,P,D)")
    made.add_argument("--rounds", type=int, metavar="N", help="default: 3; with --quick 2")
    made.add_argument(
        "--only",
        default="",
        metavar="NAMES",
        help="contestants beside direct, relay and antiphon (default: all)",
    )
    made.add_argument("--quick", action="store_true", help="about two minutes: A, T, P, D, shorter")
    made.add_argument("--json", type=Path, metavar="FILE", help="write the results there as well")
    made.add_argument(
        "--also",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="gateways of your own, YAML or JSON",
    )
    made.add_argument("--strict", action="store_true", help="end with 1 when a promise was missed")
    return made


def chosen_scenarios(text: str | None, quick: bool) -> list[Scenario]:
    """The scenarios that were named, in their own order. Raises KeyError."""
    keys = QUICK_SCENARIOS if quick else tuple(SCENARIOS)
    wanted = [key.strip().upper() for key in text.split(",")] if text else keys
    for key in wanted:
        SCENARIOS[key]
    return [scenario for key, scenario in SCENARIOS.items() if key in wanted]


async def _until_signalled(rig: Rig) -> Report:
    """Run the rig. Ctrl-C and SIGTERM cancel it once: more of them must not disturb its cleaning up."""
    task = asyncio.current_task()
    assert task is not None

    def end() -> None:
        if not task.cancelling():
            task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, end)
    return await rig.run()


def is_for_everyone(scenario: Scenario) -> bool:
    """Is it a plain chat, which even the mock itself can answer?"""
    return not (scenario.combination or scenario.panel or scenario.load.watchers or scenario.load.act)


def missing(report: Report) -> list[str]:
    """What the run was for and is not there, in words: what all is read against, and Antiphon itself."""
    antiphon = report.record(ANTIPHON)
    return (antiphon.faults[:1] if antiphon else []) + [
        f"{name} has no result in {scenario}, so nothing can be read against it: {fault}"
        for name in (DIRECT, RELAY)
        for scenario in report.scenarios
        if is_for_everyone(SCENARIOS[scenario]) and (fault := report.fault(name, scenario))
    ]


def main(argv: list[str] | None = None) -> int:
    """Measure and print; see EPILOG for the exit code."""
    made = parser()
    given = made.parse_args(argv)
    console = Console(stderr=True, highlight=False)
    try:
        scenarios = chosen_scenarios(given.scenarios, given.quick)
        also: list[Contestant] = [one for path in given.also for one in read_gateways(path)]
        only = [name.strip() for name in given.only.split(",") if name.strip()]
        contestants, notes = choose(also, only, given.quick)
    except KeyError as error:
        made.error(f"no scenario {error}; there are {', '.join(SCENARIOS)}")
    except UnfitContestants as error:
        made.error(str(error))
    rounds = given.rounds or (2 if given.quick else 3)
    if rounds < 1:
        made.error("--rounds must be 1 or more")

    def say(line: str) -> None:
        console.print(line, markup=False, style="dim", soft_wrap=True)

    for note in notes:
        console.print(note, style="bold yellow", markup=False)
    rig = Rig(contestants, scenarios, rounds, given.quick, say)
    rig.report.notes += notes
    try:
        report = asyncio.run(_until_signalled(rig))
    except RigFailure as error:
        console.print(f"the rig failed: {error}", style="bold red", markup=False)
        return FAILED
    except asyncio.CancelledError:
        console.print("ended early; nothing is left running", style="bold")
        return ENDED
    if given.json:
        given.json.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")
    # A pipe has no width; the tables want this much.
    show(report, Console() if sys.stdout.isatty() else Console(width=WIDTH))
    if faults := missing(report):
        console.print("the rig failed: " + "; ".join(faults), style="bold red", markup=False)
        return FAILED
    return MISSED if given.strict and not is_kept(report) else KEPT


if __name__ == "__main__":
    sys.exit(main())
