"""``antiphon doctor``: what would clients see if the upstreams of this configuration failed?"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from server.cli.config_file import add_config_file, add_examples
from server.config import ConfigError, default_path, load
from server.doctor.aiming import targets
from server.doctor.catalogue import catalogue
from server.doctor.examination import Finding, cases, examine
from server.doctor.faults import Fault
from server.doctor.remarks import left_out, remarks
from server.serving import run as run_loop
from server.settings import Settings

WIDE = 200
"""Columns of a scorecard that goes to a file."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own options."""
    parser.description = (
        "Puts simulators in the place of the vendors of a configuration, has them fail in every way that is\n"
        "known, and judges what a client sees, streamed and plain: status, code, text, end, time and cost.\n"
        "No vendor is asked and no secret is used or needed: for variables that are not set, made-up values\n"
        "stand in. It takes about a minute for a few channels."
    )
    add_examples(
        parser,
        "doctor conf/examples/failover.yaml",
        "doctor --only status-429,tls-expired --config /etc/antiphon.yaml",
        "doctor --list --kind spark",
        status="0 all passed, 1 something failed, 2 wrong usage or configuration, or nothing to examine",
    )
    add_config_file(parser)
    parser.add_argument("--only", metavar="NAMES", help="these faults alone, by a comma list")
    parser.add_argument("--kind", metavar="KINDS", help="channels of these kinds alone, by a comma list")
    parser.add_argument("--list", action="store_true", help="name the faults and what is promised, and end")
    parser.add_argument("--json", action="store_true", help="one JSON object for each line of the scorecard")


def run(options: argparse.Namespace) -> int:
    """Print the scorecard. Status 1 if anything failed, 2 for a wrong configuration, fault name or kind."""
    faults = catalogue()
    for option, words, known in (
        ("fault", options.only, {fault.name for fault in faults}),
        ("kind", options.kind, {fault.kind for fault in faults}),
    ):
        if unknown := _named(words) - known:
            hint = f"one of {', '.join(sorted(known))}" if option == "kind" else "see --list"
            print(f"antiphon: no such {option}: {', '.join(sorted(unknown))}; {hint}", file=sys.stderr)
            return 2
    names, kinds = _named(options.only), _named(options.kind)
    faults = tuple(
        fault
        for fault in faults
        if fault.name in (names or [fault.name]) and fault.kind in (kinds or [fault.kind])
    )
    if options.list:
        _print_list(faults)
        return 0
    try:
        loaded = load(path := default_path(options.file), rehearsal=True)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    settings = loaded.settings
    if loaded.stood_in:
        unset = ", ".join(loaded.stood_in)
        print(f"antiphon: not set, and not needed here: {unset}; made-up values stand in", file=sys.stderr)
    if (why := _nothing_to_examine(path, settings, faults)) is not None:
        print(f"antiphon: nothing was examined: {why}", file=sys.stderr)
        return 2
    findings = _examined(settings, faults, as_json=options.json)
    if not options.json:
        _print_scorecard(findings)
        _print_remarks(settings)
    return 1 if any(finding.wrong for finding in findings) else 0


def _nothing_to_examine(path: Path, settings: Settings, faults: tuple[Fault, ...]) -> str | None:
    """Why no fault can be done to these settings, and what to do; None if one can."""
    if cases(settings, faults):
        return None
    if targets(settings):
        return (
            "no model of this configuration is asked first at a channel that the faults chosen by --kind and "
            "--only can be done to; leave these out"
        )
    return (
        f"{path} has no channel with an upstream that could fail; it has "
        f"{left_out(settings) or 'none that answers chats'}. 'antiphon test' tries what is there. To see "
        "more here, add a channel that asks a vendor or another server, as conf/examples/failover.yaml does"
    )


def _named(words: str | None) -> set[str]:
    return set() if words is None else {name.strip() for name in words.split(",")}


def _examined(settings: Settings, faults: tuple[Fault, ...], *, as_json: bool) -> list[Finding]:
    planned = cases(settings, faults)
    with _progress(len(planned)) as advance:

        def on_done(finding: Finding) -> None:
            advance(finding.fault)
            if as_json:
                print(msgspec.json.encode(finding).decode(), flush=True)

        return run_loop(examine(settings, planned, on_done))


@contextmanager
def _progress(total: int) -> Iterator[Callable[[str], None]]:
    """A line on stderr that tells which fault of how many is done, where somebody watches."""
    columns = (TextColumn("{task.description:<32}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=total)
        yield lambda fault: progress.update(task, advance=1, description=fault)


def _console() -> Console:
    return Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else WIDE)


def _print_list(faults: tuple[Fault, ...]) -> None:
    table = Table("fault", "kind", "a stream gets", "a plain request gets", box=None)
    for fault in faults:
        streamed, plain = (str(promise or "-") for promise in (fault.streamed, fault.plain))
        table.add_row(fault.name, fault.kind, streamed, "the same" if plain == streamed else plain)
    _console().print(table)


def _print_scorecard(findings: list[Finding]) -> None:
    table = Table("fault", "model", "form", "sick", "client saw", "seconds", "calls", "result", box=None)
    for one in findings:
        saw = " ".join(str(part) for part in (one.status, one.seen, one.code) if part)
        form = "stream" if one.stream else "plain"
        sick = "first channel" if one.rescued else "all"
        result = (
            f"FAIL: {one.wrong}" if one.wrong else ("pass" if one.looks == 1 else "pass, at a second look")
        )
        table.add_row(one.fault, one.model, form, sick, saw, f"{one.seconds:.2f}", str(one.calls), result)
    console = _console()
    console.print(table)
    failed = sum(bool(one.wrong) for one in findings)
    console.print(f"{len(findings) - failed} passed, {failed} failed")


def _print_remarks(settings: Settings) -> None:
    for remark in remarks(settings):
        _console().print(f"note: {remark}")
