"""``make eval`` and ``python -m evaluation``."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
from rich.console import Console

from evaluation.bars import bars
from evaluation.figures import Figures, RealTable
from evaluation.lab import Lab
from evaluation.plot import lines_of, plot
from evaluation.real import evaluate_models
from evaluation.report import PLOT, real_models, report
from evaluation.studies import (
    SPREADS,
    TROUBLE,
    VOTING,
    dead_members,
    equal_bar,
    judges,
    policies,
    strategies,
    vote_cell,
)
from evaluation.tasks import NoTasks, make_tasks
from server.config import ConfigError, default_path, load
from server.errors import ServerError
from server.logs import set_up_logging
from server.settings import Logging

RESULTS = Path("build/evaluation")
DOCS = Path("docs")
FIGURES = Path("evaluation/figures.json")
KEPT, MISSED, WRONG = 0, 1, 2
EMBEDDED = "local/smollm2-135m"
ACCURACIES = "accuracies.json"
EMBEDDED_TOKENS = 32
TASKS = 15
SEED = 1
"""Of the procedural tasks."""


class Sizes(msgspec.Struct, frozen=True):
    """How many questions each study asks, for each of its entries."""

    votes: int = 2000
    bar: int = 5000
    strategies: int = 2000
    judges: int = 1000
    policies: int = 5000
    dead: int = 500


QUICK = Sizes(votes=100, bar=2000, strategies=60, judges=30, policies=400, dead=30)


def parser() -> argparse.ArgumentParser:
    """Reads the words of the command line."""
    made = argparse.ArgumentParser(
        prog="python -m evaluation",
        description="Hold combinations against their best member, and against samples of it.",
        epilog="Exit code: 0; 1 when a promise was missed; 2 for wrong usage. See docs/evaluation.md.",
    )
    made.add_argument(
        "--quick", action="store_true", help="fewer questions; docs/evaluation.md is left alone"
    )
    made.add_argument("--seed", default="antiphon", help="other questions (default: %(default)s)")
    made.add_argument(
        "--results", type=Path, default=RESULTS, metavar="FOLDER", help="raw results (default: %(default)s)"
    )
    made.add_argument(
        "--only",
        choices=("simulated", "real", "page"),
        help="write docs/evaluation.md with these figures made anew, and the others as they were",
    )
    own = made.add_argument_group("models of your own, on procedural tasks; docs/evaluation.md is left alone")
    own.add_argument("--config", type=Path, metavar="FILE", help="configuration (default: as for 'serve')")
    own.add_argument(
        "--models", metavar="A,B,…", help=f"the first one judges and writes (default: {EMBEDDED})"
    )
    own.add_argument(
        "--max-tokens", type=int, metavar="N", help="of each answer; with it nobody judges (default: none)"
    )
    own.add_argument("--tasks", type=int, default=TASKS, metavar="N", help="how many (default: %(default)s)")
    return made


def evaluate(lab: Lab, sizes: Sizes, *, quick: bool) -> Figures:
    """All studies of simulated members."""
    return Figures(
        lab.seed,
        quick,
        votes=[vote_cell(lab, panel, spread, sizes.votes) for panel in VOTING for spread in SPREADS],
        bar=equal_bar(lab, sizes.bar),
        strategies=[strategies(lab, sizes.strategies), strategies(lab, sizes.strategies, faults=TROUBLE)],
        judges=judges(lab, sizes.judges),
        policies=policies(lab, sizes.policies),
        dead=dead_members(lab, sizes.dead),
    )


def write(figures: Figures, folder: Path) -> None:
    """The page and its plot."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "evaluation.md").write_text(report(figures), encoding="utf-8")
    table = figures.strategies[0]
    title = f"Members {table.panel}, s = 0.4, n = {table.n}"
    sides = ("against the best member", "against as many samples of it")
    (folder / PLOT).write_text(plot(title, sides, lines_of(table)), encoding="utf-8")


def ask_models(given: argparse.Namespace, tell: Callable[[str], None]) -> RealTable:
    """Real models on procedural tasks; what they said, and how often they were right, is kept too.

    Raises ``NoTasks``, ``ConfigError`` and ``ServerError``.
    """
    settings = load(default_path(given.config)).settings
    set_up_logging(Logging(level="error"))
    models = [one.strip() for one in (given.models or EMBEDDED).split(",") if one.strip()]
    tasks = make_tasks(given.tasks, SEED)
    # The embedded model may talk for ever; how long others think is theirs to say.
    most = given.max_tokens or (EMBEDDED_TOKENS if given.models is None else None)
    table, raw = asyncio.run(evaluate_models(settings, models, tasks, SEED, tell, most_tokens=most))
    given.results.mkdir(parents=True, exist_ok=True)
    lines = b"".join(msgspec.json.encode(one) + b"\n" for one in raw)
    (given.results / "real models.jsonl").write_bytes(lines)
    right = {name: round(row.right.mean, 4) for name, row in zip(models, table.rows, strict=False)}
    told = msgspec.json.encode({"tasks": len(tasks), "accuracies": right})
    (given.results / ACCURACIES).write_bytes(msgspec.json.format(told, indent=1) + b"\n")
    return table


def make_figures(given: argparse.Namespace, tell: Callable[[str], None]) -> Figures:
    """All that was asked for, with what is kept of earlier runs in the place of the rest."""
    if given.only in ("real", "page"):
        figures = msgspec.json.decode(FIGURES.read_bytes(), type=Figures)
    else:
        lab = Lab(given.seed, given.results, tell)
        figures = evaluate(lab, QUICK if given.quick else Sizes(), quick=given.quick)
        tell(f"{lab.calls} calls were simulated")
    if given.quick or given.only == "page":
        return figures
    if given.only == "simulated":
        before = msgspec.json.decode(FIGURES.read_bytes(), type=Figures) if FIGURES.exists() else figures
        return msgspec.structs.replace(figures, real=before.real)
    return msgspec.structs.replace(figures, real=ask_models(given, tell))


def main(argv: list[str] | None = None) -> int:
    """Evaluate, write and print; see the parser's epilogue for the exit code."""
    made = parser()
    given = made.parse_args(argv)
    if given.tasks < 1:
        made.error("--tasks must be 1 or more")
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    began = time.monotonic()

    def tell(what: str) -> None:
        console.print(f"{time.monotonic() - began:5.0f} s  {what}", markup=False, style="dim")

    try:
        if given.config is not None or given.models is not None:
            print(real_models(ask_models(given, tell)))
            tell(f"raw results, and {ACCURACIES}: {given.results.resolve()}")
            return KEPT
        figures = make_figures(given, tell)
    except (NoTasks, ConfigError) as error:
        console.print(str(error), markup=False, style="bold red")
        return WRONG
    except ServerError as error:
        console.print(error.message, markup=False, style="bold red")
        return WRONG
    folder = given.results if given.quick else DOCS
    write(figures, folder)
    data = msgspec.json.format(msgspec.json.encode(figures), indent=1) + b"\n"
    (given.results / "figures.json" if given.quick else FIGURES).write_bytes(data)
    print(report(figures))
    tell(f"raw results: {given.results.resolve()}")
    tell(f"the page: {(folder / 'evaluation.md').resolve()}")
    missed = [one for one in bars(figures) if not one.kept]
    for one in missed:
        console.print(f"missed: {one.title}: {one.found}, bound {one.bound}", markup=False, style="bold red")
    return MISSED if missed else KEPT


if __name__ == "__main__":
    sys.exit(main())
