"""``antiphon doctor``: what would clients see if the upstreams of this configuration failed?"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from server.config import ConfigError, default_path, load
from server.doctor.catalogue import catalogue
from server.doctor.examination import Finding, cases, examine


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own options."""
    parser.add_argument("file", nargs="?", type=Path, help="configuration file (default: as for 'serve')")
    parser.add_argument("--only", metavar="NAMES", help="these faults alone, by a comma list")
    parser.add_argument("--list", action="store_true", help="name the faults, and end")
    parser.add_argument("--json", action="store_true", help="one JSON object for each line of the scorecard")


def run(options: argparse.Namespace) -> int:
    """Print the scorecard. Status 1 if anything failed, 2 for a wrong configuration or fault name."""
    faults = catalogue()
    if options.list:
        print("\n".join(fault.name for fault in faults))
        return 0
    if options.only is not None:
        wanted = {name.strip() for name in options.only.split(",")}
        if unknown := wanted - {fault.name for fault in faults}:
            print(f"antiphon: no such fault: {', '.join(sorted(unknown))}; see --list", file=sys.stderr)
            return 2
        faults = tuple(fault for fault in faults if fault.name in wanted)
    try:
        settings = load(default_path(options.file)).settings
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    planned = cases(settings, faults)
    findings = asyncio.run(examine(settings, planned, _as_json if options.json else _nothing))
    if not options.json:
        _print_scorecard(findings)
    return 1 if any(finding.wrong for finding in findings) else 0


def _as_json(finding: Finding) -> None:
    print(msgspec.json.encode(finding).decode(), flush=True)


def _nothing(finding: Finding) -> None:
    """The scorecard is printed at the end, in the order of the catalogue."""


def _print_scorecard(findings: list[Finding]) -> None:
    table = Table("fault", "model", "sick", "client saw", "seconds", "calls", "result", box=None)
    for one in findings:
        saw = " ".join(str(part) for part in (one.status, one.seen, one.code) if part)
        sick = "first channel" if one.rescued else "all"
        result = f"FAIL: {one.wrong}" if one.wrong else "pass"
        table.add_row(one.fault, one.model, sick, saw, f"{one.seconds:.2f}", str(one.calls), result)
    console = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 200)
    if findings:
        console.print(table)
    failed = sum(bool(one.wrong) for one in findings)
    console.print(f"{len(findings) - failed} passed, {failed} failed")
    if not findings:
        console.print("No channel of this configuration has an upstream to fail.")
