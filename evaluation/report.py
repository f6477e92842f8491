"""docs/evaluation.md, made of figures: the same figures give the same file."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from string import Template

from evaluation.bars import bars
from evaluation.figures import Figures, RealTable, Row, StrategyTable
from evaluation.statistics import Share
from evaluation.words import against, by_strategy, losses, points, rivals

PLOT = "evaluation.svg"
HALF = 0.5
NOT_ASKED = 'None were asked when this page was made; `make eval ARGS="--only real"` does that alone.'
PAGE = Path(__file__).parent / "page.md"
COLUMNS = 125


def report(figures: Figures) -> str:
    """The whole page."""
    quiet, trouble = figures.strategies
    found = ((one.title, one.bound, one.found, "kept" if one.kept else "**missed**") for one in bars(figures))
    page = Template(PAGE.read_text(encoding="utf-8")).substitute(
        seed=figures.seed,
        bars=_table(("promise", "bound", "found", ""), found),
        votes_n=figures.votes[0].n,
        votes=_votes(figures),
        losses=losses(figures.votes),
        rivals=rivals(figures.votes),
        panel=quiet.panel,
        strategies_n=quiet.n,
        plot=PLOT,
        strategies=_strategies(quiet),
        members=_members(quiet),
        trouble=_strategies(trouble, troubled=True),
        words="\n".join(by_strategy(figures)),
        judges_n=next(iter(figures.judges[0].strategies.values())).n,
        judges=_judges(figures),
        policies_n=figures.policies[0].n,
        policies=_policies(figures),
        dead=_dead(figures),
        real=NOT_ASKED if figures.real is None else real_models(figures.real),
    )
    return "\n".join(_filled(line) for line in page.split("\n"))


def _filled(line: str) -> str:
    """A line of prose, or of a list, that figures have made too long; rows of tables stay as they are."""
    if len(line) <= COLUMNS or line.startswith("|"):
        return line
    indent = "  " if line.startswith("- ") else ""
    return textwrap.fill(
        line, COLUMNS, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _share(one: Share) -> str:
    return f"{one.mean:.3f}"


def _votes(figures: Figures) -> str:
    head = (
        "panel",
        "s",
        "best",
        "equal vote",
        "weighted",
        "k samples",
        "stubborn",
        "best_of",
        "oracle",
        "equal − best",
        "weighted − best",
    )
    return _table(
        head,
        (
            (
                one.panel,
                f"{one.spread:g}",
                _share(one.best),
                f"**{_share(one.equal)}**" if one.equal_to_best.verdict == "worse" else _share(one.equal),
                _share(one.weighted),
                _share(one.samples),
                _share(one.stubborn_samples),
                _share(one.best_of),
                _share(one.oracle),
                points(one.equal_to_best),
                points(one.weighted_to_best),
            )
            for one in figures.votes
        ),
    )


def _strategies(table: StrategyTable, *, troubled: bool = False) -> str:
    head = ["strategy", "right", "− best", "p", "− samples", "calls", "first word", "p50", "p95"]
    if troubled:
        head += ["failed", "levels"]
    return _table(head, (_strategy(one, table, troubled) for one in table.rows))


def _strategy(row: Row, table: StrategyTable, troubled: bool) -> list[str]:
    lone = row is table.rows[0]
    cells = [
        row.label,
        _share(row.right),
        "" if lone else points(row.to_best),
        "" if lone else _p(row.to_best.p),
        "" if lone else points(row.to_samples),
        f"{row.calls:g}",
        f"{row.first_p50_s:g} s",
        f"{row.p50_s:g} s",
        f"{row.p95_s:g} s",
    ]
    if troubled:
        cells += [f"{row.failed / row.right.n:.1%}", ", ".join(f"{k} {v}" for k, v in row.levels.items())]
    return cells


def _p(p: float) -> str:
    return "< .0001" if p < 0.0001 else f"{p:.4f}".removeprefix("0")


def _members(table: StrategyTable) -> str:
    told = ", ".join(f"{name} {share.mean:.3f}" for name, share in table.members.items())
    return f"The members alone: {told}. `all` is right if one of its choices is."


def _judges(figures: Figures) -> str:
    names = list(figures.judges[0].strategies)
    return _table(
        ("panel", "right in", "consistent", "takes", *names),
        (
            (
                one.panel,
                f"{one.reader:.0%}",
                "yes" if one.consistent else "",
                f"{'first' if one.bias > 0 else 'last'} {abs(one.bias):.0%}" if one.bias else "",
                *(points(one.strategies[name]) for name in names),
            )
            for one in figures.judges
        ),
    )


def _policies(figures: Figures) -> str:
    return _table(
        ("rule", "p50", "p95", "p99", "drafts", "right"),
        (
            (
                one.label,
                f"{one.p50_s:g} s",
                f"{one.p95_s:g} s",
                f"{one.p99_s:g} s",
                f"{one.drafts:g}",
                _share(one.right),
            )
            for one in figures.policies
        ),
    )


def _dead(figures: Figures) -> str:
    told = "; ".join(f"{one.how} one of {one.members}: {one.most_added_s:g} s" for one in figures.dead)
    return (
        "What a member that is dead adds to any run, at most, with the default quorum and a grace of "
        f"{figures.dead[0].grace_s:g} s (n = {figures.dead[0].n} each): {told}."
    )


def real_models(real: RealTable) -> str:
    """What real models did, as Markdown."""
    rows = (
        (
            one.label,
            f"{_share(one.right)} [{one.right.low:.3f}, {one.right.high:.3f}]",
            "" if one.to_best is None else points(one.to_best),
            f"{one.calls:g}",
            str(one.failed),
        )
        for one in real.rows
    )
    first = real.rows[0]
    asked = ", ".join(f"`{one}`" for one in real.models)
    certain = [
        f"`{one.label}` is {against(one.to_best, first.label)}"
        for one in real.rows
        if one.to_best is not None and one.to_best.verdict != "equal"
    ]
    said = f"Certain is that {'; '.join(certain)}." if certain else "None of these differences is certain."
    if first.right.mean < HALF and not any(one.to_best and one.to_best.low > 0 for one in real.rows):
        said += " Who is mostly wrong does not become right by being asked more often."
    return "\n\n".join(
        [
            f"{first.right.n} procedural tasks of reasoning-gym ({', '.join(real.tasks)}; seed {real.seed}), "
            f"asked of {asked} through a server of this version.",
            _table(("way", "right", "− first", "calls", "failed"), rows),
            said,
        ]
    )
