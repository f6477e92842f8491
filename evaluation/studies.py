"""The questions of the evaluation, each a function from a lab to figures."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec

from evaluation.arena import Result
from evaluation.figures import DeadMember, JudgeRow, Policy, Row, StrategyTable, VoteCell
from evaluation.lab import Lab
from evaluation.members import Faults
from evaluation.panels import HASTY_WRITER, PATIENT_WRITER, Entry, Panel
from evaluation.statistics import Difference, difference, percentile, share
from server.config_accuracies import weight_of
from server.settings import TimeoutsPatch
from server.strategy_settings import Accept, BestOf, Cascade, Vote

VOTING = (
    (0.70, 0.70, 0.70, 0.70, 0.70),
    (0.80, 0.75, 0.70, 0.65, 0.60),
    (0.85, 0.70, 0.55),
    (0.90, 0.60, 0.60),
)
SPREADS = (0.0, 0.2, 0.4)
UNEQUAL = VOTING[1]
# The better a member, the longer it takes. (seconds)
MEDIANS_S = (12.0, 10.0, 8.0, 6.0, 4.0)
TROUBLE = Faults(straggle=0.04, hang=0.03, stall=0.02, cut=0.02, busy=0.05, garbage=0.02)
SLOW = Faults(straggle=0.04, hang=0.03)
# How often a judge is right, how often it takes what stands first (below 0: last), is it consistent?
JUDGES = (
    (0.6, 0.0, False),
    (0.75, 0.0, False),
    (0.9, 0.0, False),
    (0.75, 0.0, True),
    (0.75, 0.35, False),
    (0.75, -0.35, False),
)
CALIBRATION = 1_000_000
"""Weights are measured on items from this number on, which no table counts."""
LEAST_MEASURED = 400
EQUAL = Vote(type="number", weights="equal")


def name_of(accuracies: tuple[float, ...]) -> str:
    """A panel's name: what its members know."""
    if len(set(accuracies)) == 1:
        return f"{len(accuracies)} × {accuracies[0]:.2f}"
    return " ".join(f"{one:.2f}" for one in accuracies)


def alone(member: str) -> Entry:
    """One member, asked directly."""
    return Entry(f"{member} alone", "direct", members=(member,))


def samples_of(member: str, count: int) -> Entry:
    """A vote over samples of one member."""
    return Entry(f"{count} × {member}", "vote", {"vote": EQUAL}, members=(member,), samples=count)


def measured_weights(lab: Lab, panel: Panel, n: int) -> tuple[float, ...]:
    """What each member weighs by its accuracy on questions of their own."""
    sound = msgspec.structs.replace(panel, faults=Faults())
    weights = []
    for one in panel.skills:
        results = lab.run(sound, alone(one.name), max(n, LEAST_MEASURED), CALIBRATION)
        weights.append(round(weight_of(share([result.right for result in results]).mean), 4))
    return tuple(weights)


def vote_cell(lab: Lab, accuracies: tuple[float, ...], spread: float, n: int) -> VoteCell:
    """One panel at one spread: votes, samples and a judge against its best member."""
    panel = Panel(f"{name_of(accuracies)}, s {spread:g}", accuracies, spread)
    names = tuple(one.name for one in panel.skills)
    weights = measured_weights(lab, panel, n)
    equal = Entry("vote, equal", "vote", {"vote": EQUAL})
    weighted = Entry("vote, weighted", "vote", weights=weights)
    turned = Entry("vote, equal, turned", "vote", {"vote": EQUAL}, members=names[::-1])
    turned_weighted = Entry("vote, weighted, turned", "vote", members=names[::-1], weights=weights[::-1])
    by_member = [lab.right(panel, alone(one), n) for one in names]
    best = lab.right(panel, alone(panel.best), n)
    stubborn = msgspec.structs.replace(panel, name=f"{panel.name}, stubborn", stubborn=0.5)
    samples = samples_of(panel.best, len(names))
    judged = lab.right(panel, Entry("best_of, pairwise", "best_of"), n)
    some = max(1, n // 4)
    changed = sum(
        one.values != other.values
        for first, second in ((equal, turned), (weighted, turned_weighted))
        for one, other in zip(lab.run(panel, first, n), lab.run(panel, second, some), strict=False)
    )
    voted, weighed = lab.right(panel, equal, n), lab.right(panel, weighted, n)
    return VoteCell(
        name_of(accuracies),
        spread,
        n,
        best=share(best),
        equal=share(voted),
        weighted=share(weighed),
        samples=share(lab.right(panel, samples, n)),
        stubborn_samples=share(lab.right(stubborn, samples, n)),
        best_of=share(judged),
        oracle=share([any(one) for one in zip(*by_member, strict=True)]),
        equal_to_best=difference(voted, best, lab.seed),
        weighted_to_best=difference(weighed, best, lab.seed),
        best_of_to_best=difference(judged, best, lab.seed),
        permuted=changed,
        permuted_n=2 * some,
    )


def strategy_entries(panel: Panel, weights: tuple[float, ...], *, patient: bool) -> list[Entry]:
    """Every strategy whose answers can be foretold, over this panel."""
    writer = PATIENT_WRITER if patient else HASTY_WRITER
    analysis = msgspec.structs.replace(writer, mode="analysis")
    upwards = tuple(one.name for one in reversed(panel.skills))
    chosen: list[tuple[str, str, dict[str, Any]]] = [
        ("fallback, best first", "fallback", {}),
        ("race", "race", {}),
        ("vote, equal", "vote", {"vote": EQUAL}),
        ("vote, weighted", "vote", {}),
        ("best_of, pairwise", "best_of", {}),
        ("best_of, list", "best_of", {"best_of": BestOf(method="list")}),
        ("best_of, scorer", "best_of", {"best_of": BestOf(method="scorer")}),
        ("cascade, two agree", "cascade", {"cascade": Cascade(accept=Accept(agree=2))}),
        ("cascade, score 6", "cascade", {"cascade": Cascade(accept=Accept(score=6))}),
        ("synthesize", "synthesize", {}),
        ("synthesize, analysis", "synthesize", {"summary": analysis}),
        ("critique", "critique", {}),
        ("council", "council", {}),
        ("moa", "moa", {}),
        ("all", "all", {}),
    ]
    entries = []
    for label, strategy, settings in chosen:
        weighs = label == "vote, weighted"
        members = upwards if strategy == "cascade" else ()
        entries.append(
            Entry(label, strategy, settings, members, weights=weights if weighs else (), patient=patient)
        )
    return entries


def strategies(lab: Lab, n: int, *, faults: Faults = Faults()) -> StrategyTable:  # noqa: B008 - frozen
    """Every strategy against the best member, and against as many samples of it as the strategy has calls."""
    troubled = faults != Faults()
    name = f"{name_of(UNEQUAL)}, s 0.4, strategies{', trouble' if troubled else ''}"
    panel = Panel(name, UNEQUAL, 0.4, MEDIANS_S, faults=faults)
    # With limits, as a user has them; the best member alone has its own two attempts.
    lone = "fallback" if troubled else "direct"
    members = {
        one.name: lab.run(
            panel, Entry(f"{one.name} alone", lone, members=(one.name,), patient=not troubled), n
        )
        for one in panel.skills
    }
    best = members[panel.best]
    right = [one.right for one in best]
    rows = [row(lab, f"{panel.best} alone", best, right, right)]
    for entry in strategy_entries(panel, measured_weights(lab, panel, n), patient=not troubled):
        results = lab.run(panel, entry, n)
        calls = max(1, round(sum(one.calls for one in results) / n))
        rival = msgspec.structs.replace(samples_of(panel.best, calls), patient=not troubled)
        rows.append(row(lab, entry.label, results, right, lab.right(panel, rival, n)))
    return StrategyTable(
        name_of(UNEQUAL),
        n,
        panel.best,
        {one: share([result.right for result in results]) for one, results in members.items()},
        rows,
    )


def row(lab: Lab, label: str, results: list[Result], best: list[bool], samples: list[bool]) -> Row:
    """A strategy's line in the table."""
    right = [one.right for one in results]
    answered = [one for one in results if one.error is None]
    times = [one.total_s for one in results]
    return Row(
        label,
        share(right),
        difference(right, best, lab.seed),
        share(samples),
        difference(right, samples, lab.seed),
        round(sum(one.calls for one in results) / len(results), 2),
        round(percentile([one.first_s for one in answered if one.first_s is not None], 0.5), 1),
        round(percentile(times, 0.5), 1),
        round(percentile(times, 0.95), 1),
        len(results) - len(answered),
        dict(sorted(Counter(one.level or "none" for one in answered).items())),
    )


def judges(lab: Lab, n: int) -> list[JudgeRow]:
    """How good a judge or writer must be before it pays, and what preferring the first place does."""
    found = []
    entries = {
        "best_of, pairwise": Entry("best_of, pairwise", "best_of"),
        "without swap": Entry("best_of, no swap", "best_of", {"best_of": BestOf(swap=False)}),
        "best_of, list": Entry("best_of, list", "best_of", {"best_of": BestOf(method="list")}),
        "best_of, scorer": Entry("best_of, scorer", "best_of", {"best_of": BestOf(method="scorer")}),
        "synthesize": Entry("synthesize", "synthesize"),
    }
    for accuracies in (UNEQUAL, VOTING[3]):
        for reader, bias, consistent in JUDGES:
            takes = f", takes {'first' if bias > 0 else 'last'}" if bias else ""
            name = f"{name_of(accuracies)}, s 0.4, reader {reader:g}{takes}{', consistent' * consistent}"
            panel = Panel(name, accuracies, 0.4, reader=reader, bias=bias, consistent=consistent)
            best = lab.right(panel, alone(panel.best), n)
            strategies = {
                label: difference(lab.right(panel, entry, n), best, lab.seed)
                for label, entry in entries.items()
            }
            found.append(JudgeRow(name_of(accuracies), reader, bias, consistent, strategies))
    return found


def policies(lab: Lab, n: int) -> list[Policy]:
    """How long a panel of five takes under some rules of waiting, some members being slow or silent."""
    panel = Panel("5 × 0.70, s 0.4, waiting", VOTING[0], 0.4, faults=SLOW)
    # Three tries, each waited for as long as an upstream keeps a silent connection.
    for_all = {"quorum": 5, "deadline_s": 3600.0, "attempts": 3}
    clocks = TimeoutsPatch(first_token_s=150, idle_s=150, total_s=0)
    rules: list[tuple[str, dict[str, Any]]] = [
        ("all of them, 3 tries of 150 s", for_all | {"timeouts": clocks}),
        ("4 of 5, grace 5 s, deadline 60 s (the default)", {}),
        ("3 of 5, grace 5 s, deadline 45 s", {"quorum": 3, "deadline_s": 45.0}),
        ("3 of 5, no grace, deadline 45 s", {"quorum": 3, "grace_s": 0.0, "deadline_s": 45.0}),
    ]
    found = []
    for label, settings in rules:
        results = lab.run(panel, Entry(label, "vote", settings | {"vote": EQUAL}, patient=False), n)
        times = [one.total_s for one in results]
        found.append(
            Policy(
                label,
                n,
                round(percentile(times, 0.5), 1),
                round(percentile(times, 0.95), 1),
                round(percentile(times, 0.99), 1),
                drafts=round(sum(one.drafts for one in results) / n, 2),
                right=share([one.right for one in results]),
            )
        )
    return found


def dead_members(lab: Lab, n: int) -> list[DeadMember]:
    """What one member that refuses or says nothing adds to the time of those that are well."""
    found = []
    for count in (3, 4, 5):
        for how in ("refusing", "silent"):
            panel = Panel(f"{count} × 0.70, one {how}", (0.70,) * count, 0.4, dead=how)
            names = tuple(one.name for one in panel.skills)
            default = Entry("vote, default limits", "vote", patient=False)
            living = Entry("vote, without it", "vote", members=names[:-1])
            results, well = lab.run(panel, default, n), lab.run(panel, living, n)
            added = (one.total_s - other.total_s for one, other in zip(results, well, strict=True))
            failed = sum(one.error is not None for one in results)
            found.append(DeadMember(count, how, n, 5.0, round(max(added), 3), failed))
    return found


def equal_bar(lab: Lab, n: int) -> Difference:
    """An equal vote of five equal members against one of them, at the widest spread."""
    panel = Panel("5 × 0.70, s 0.4", VOTING[0], 0.4)
    voted = lab.right(panel, Entry("vote, equal", "vote", {"vote": EQUAL}), n)
    return difference(voted, lab.right(panel, alone(panel.best), n), lab.seed)
