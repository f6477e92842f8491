"""What the figures say of each strategy, in words that follow the figures and no more than them."""

from __future__ import annotations

from collections.abc import Mapping

from evaluation.figures import Figures, JudgeRow, Row, StrategyTable, VoteCell
from evaluation.statistics import Difference


def points(difference: Difference) -> str:
    """A difference with its bounds, in percentage points."""
    return f"{difference.mean * 100:+.1f} [{difference.low * 100:+.1f}, {difference.high * 100:+.1f}]"


def against(difference: Difference, whom: str) -> str:
    """A difference as a clause."""
    match difference.verdict:
        case "better":
            return f"better than {whom} by {difference.mean * 100:.1f} points"
        case "worse":
            return f"worse than {whom} by {-difference.mean * 100:.1f} points"
        case _:
            return f"not to be told from {whom} ({points(difference)})"


def losses(cells: list[VoteCell]) -> str:
    """The settings in which an equal vote is certainly worse than its best member."""
    lost = [one for one in cells if one.equal_to_best.verdict == "worse"]
    if not lost:
        return "In none of these settings is an equal vote certainly worse than the best member."
    told = "; ".join(
        f"{one.panel} at s = {one.spread:g} ({one.equal.mean:.3f} against {one.best.mean:.3f})"
        for one in lost
    )
    return (
        f"**Here the combination loses.** In {len(lost)} of {len(cells)} settings an equal vote is certainly "
        f"worse than its best member alone: {told}. There the weak outvote the strong, and paying for them "
        "bought a worse answer."
    )


def rivals(cells: list[VoteCell]) -> str:
    """How votes compare with samples of the best."""
    ahead = sum(one.weighted.mean >= one.samples.mean for one in cells)
    stubborn = sum(one.weighted.mean >= one.stubborn_samples.mean for one in cells)
    return (
        "The rival to beat is a vote over as many samples of the best member. If those are independent, the "
        f"weighted vote is level with or ahead of them in {ahead} of {len(cells)} settings; if half of them "
        f"repeat the first one, in {stubborn}. Where one member is clearly the best, ask it more often "
        "(`samples`) before you ask others."
    )


def by_strategy(figures: Figures) -> list[str]:
    """A paragraph for each strategy, from the first table (nothing fails) and the second (much does)."""
    quiet, trouble = figures.strategies
    rows, bad = _rows(quiet), _rows(trouble)
    told = [
        ("vote", _vote(figures, rows, bad)),
        ("best_of", _best_of(figures, rows)),
        ("synthesize", _writing(rows, bad)),
        ("critique, analysis", _notes(rows)),
        ("council, moa", _rounds(rows)),
        ("cascade", _cascade(rows, quiet)),
        ("race", _race(rows)),
        ("fallback", _fallback(bad, trouble)),
        ("all", _all(rows)),
        ("direct, steps", _direct()),
    ]
    return [f"- **{name}**: {text}" for name, text in told]


def _rows(table: StrategyTable) -> Mapping[str, Row]:
    return {one.label: one for one in table.rows}


def _vote(figures: Figures, rows: Mapping[str, Row], bad: Mapping[str, Row]) -> str:
    equal, weighted = rows["vote, equal"], rows["vote, weighted"]
    hard = [one for one in figures.votes if one.spread == 0.4 and one.panel.startswith("5 ×")]
    gain = f" Equals gain: {points(hard[0].equal_to_best)} with {hard[0].panel} at s = 0.4." if hard else ""
    return (
        "for answers that can be compared. With unequal members an equal vote is "
        f"{against(equal.to_best, 'the best one')}, a weighted one {against(weighted.to_best, 'it')}; "
        f"weights are what keeps a vote from losing.{gain} When things go wrong it is what fails least: "
        f"{bad['vote, weighted'].failed} of {bad['vote, weighted'].right.n} runs failed."
    )


def _best_of(figures: Figures, rows: Mapping[str, Row]) -> str:
    by = {(one.panel, one.reader, one.bias, one.consistent): one for one in figures.judges}
    unequal = [one for (panel, *_), one in by.items() if panel == figures.strategies[0].panel]
    pays = [
        one.reader
        for one in unequal
        if _plain(one) and one.strategies["best_of, pairwise"].verdict == "better"
    ]
    fails = [
        one.reader
        for one in unequal
        if _plain(one) and one.strategies["best_of, pairwise"].verdict == "worse"
    ]
    told = f"a judge has to be good: {_sure(pays, fails)}"
    for one in unequal:
        if one.bias:
            told += (
                f" One that takes what stands {'first' if one.bias > 0 else 'last'} in {abs(one.bias):.0%} "
                f"of all cases comes to {points(one.strategies['best_of, pairwise'])} with `swap` and to "
                f"{points(one.strategies['without swap'])} without."
            )
    told += " (Without `swap` the stronger draft stands first, so only the second kind is a danger.)"
    pairwise, ranked = rows["best_of, pairwise"], rows["best_of, list"]
    return (
        f"{told} `pairwise` makes {pairwise.calls:g} calls for an answer, `list` {ranked.calls:g}: a judge "
        "that is right as often about a whole list as about a pair makes `list` the better buy; real ones "
        "mostly are not."
    )


def _plain(one: JudgeRow) -> bool:
    return not one.bias and not one.consistent


def _sure(pays: list[float], fails: list[float]) -> str:
    parts = []
    if pays:
        parts.append(
            f"right in {', '.join(f'{one:.0%}' for one in pays)} it beats the best of five unequal members"
        )
    if fails:
        parts.append(
            f"right in {', '.join(f'{one:.0%}' for one in fails)} it does worse than no judge at all"
        )
    return (", ".join(parts) or "no judge tried here made a certain difference") + "."


def _writing(rows: Mapping[str, Row], bad: Mapping[str, Row]) -> str:
    row, troubled = rows["synthesize"], bad["synthesize"]
    return (
        f"{against(row.to_best, 'the best member')} here, and "
        f"{against(row.to_samples, 'as many samples of it')}, because the writer is taken to see the right "
        "answer among the drafts in 75 % of all cases and to have knowledge of its own. That is an "
        f"assumption about your writer, not a finding. Everything hangs on its last call: {troubled.failed} "
        f"of {troubled.right.n} runs with faults ended as an error, nearly all of them because the writer "
        "broke off after its first word, when nothing may be glued on any more; with the faults it is "
        f"{against(troubled.to_samples, 'as many samples of the best member')}."
    )


def _notes(rows: Mapping[str, Row]) -> str:
    plain = rows["synthesize"].right.mean
    critique, analysis = rows["critique"], rows["synthesize, analysis"]
    return (
        f"{(critique.right.mean - plain) * 100:+.1f} and {(analysis.right.mean - plain) * 100:+.1f} points "
        "on top of `synthesize`, for one call more. A second reader no better than the writer adds little; "
        "name a better model as critic or judge, or save the call."
    )


def _rounds(rows: Mapping[str, Row]) -> str:
    council, moa, plain = rows["council"], rows["moa"], rows["synthesize"]
    return (
        f"{(council.right.mean - plain.right.mean) * 100:+.1f} and "
        f"{(moa.right.mean - plain.right.mean) * 100:+.1f} points on top of `synthesize`, with "
        f"{council.calls:g} and {moa.calls:g} calls in place of {plain.calls:g}, and half of all answers "
        f"after {council.p50_s:g} and {moa.p50_s:g} s in place of {plain.p50_s:g}. The rounds help as far as "
        "each member can tell a good draft from a bad one; they are for answers that may take their time."
    )


def _cascade(rows: Mapping[str, Row], table: StrategyTable) -> str:
    agree, scored = rows["cascade, two agree"], rows["cascade, score 6"]
    most = table.members[table.best]
    return (
        f"saves calls, not errors. Two that agree end it after {agree.calls:g} calls on average, "
        f"{against(agree.to_best, 'the best member')} ({agree.right.mean:.3f} against {most.mean:.3f}): the "
        f"two cheapest share their mistakes. With a judge's score it is {against(scored.to_best, 'it')}, for "
        f"{scored.calls:g} calls with the judge's."
    )


def _race(rows: Mapping[str, Row]) -> str:
    row = rows["race"]
    return (
        f"for speed alone: half of all answers are there after {row.p50_s:g} s, and it is "
        f"{against(row.to_best, 'the best member')}, since here, as often in life, the weak are fast. Race "
        "models that are equally good, or the same model on several channels."
    )


def _fallback(bad: Mapping[str, Row], table: StrategyTable) -> str:
    row = bad["fallback, best first"]
    lone = table.rows[0]
    return (
        f"the best member's quality, with fewer failures: {row.failed} of {row.right.n} runs failed in place "
        f"of {lone.failed}, for {row.calls:g} calls on average. What is left are answers that broke off "
        f"after they had begun. A silent first member is waited for twice, hence the p95 of {row.p95_s:g} s: "
        "`attempts: 1` or a shorter `timeouts.first_token_s` of a member shortens that. The cheapest "
        "insurance there is."
    )


def _all(rows: Mapping[str, Row]) -> str:
    row = rows["all"]
    return (
        f"right if the reader picks the right one of the choices ({row.right.mean:.3f} of the questions have "
        "one): an upper bound for whatever only selects."
    )


def _direct() -> str:
    return (
        "`direct` is the member alone. What `steps` gains is the model's own doing, so nothing is to be "
        "learnt of it from simulated ones: measure it with yours, as below."
    )
