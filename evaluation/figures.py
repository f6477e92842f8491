"""What an evaluation found, as data: all that the report is made of, and no times of this machine."""

from __future__ import annotations

import msgspec

from evaluation.statistics import Difference, Share


class VoteCell(msgspec.Struct, frozen=True):
    """One panel at one spread of difficulty: who votes how well.

    ``samples`` are votes over as many samples of the best member, independent ones and such that repeat
    themselves half of the time. ``permuted``: how many answers changed when the members changed places.
    """

    panel: str
    spread: float
    n: int
    best: Share
    equal: Share
    weighted: Share
    samples: Share
    stubborn_samples: Share
    best_of: Share
    oracle: Share
    equal_to_best: Difference
    weighted_to_best: Difference
    best_of_to_best: Difference
    permuted: int
    permuted_n: int


class Row(msgspec.Struct, frozen=True):
    """One strategy over one panel. ``samples`` is the vote over as many samples of the best as it has calls.

    Times are virtual seconds. ``failed`` counts runs that ended with an error, ``levels`` those that did not.
    """

    label: str
    right: Share
    to_best: Difference
    samples: Share
    to_samples: Difference
    calls: float
    first_p50_s: float
    p50_s: float
    p95_s: float
    failed: int
    levels: dict[str, int]


class StrategyTable(msgspec.Struct, frozen=True):
    """Every strategy over one panel. ``members`` are the members alone, in order."""

    panel: str
    n: int
    best: str
    members: dict[str, Share]
    rows: list[Row]


class JudgeRow(msgspec.Struct, frozen=True):
    """Judges of one quality: the strategies that depend on them, against the best member."""

    panel: str
    reader: float
    bias: float
    consistent: bool
    strategies: dict[str, Difference]


class Policy(msgspec.Struct, frozen=True):
    """How long runs take under one rule of waiting; virtual seconds."""

    label: str
    n: int
    p50_s: float
    p95_s: float
    p99_s: float
    drafts: float
    right: Share


class DeadMember(msgspec.Struct, frozen=True):
    """One member of ``members`` that is dead: the most that it added to any run, in virtual seconds."""

    members: int
    how: str
    n: int
    grace_s: float
    most_added_s: float
    failed: int


class Task(msgspec.Struct, frozen=True):
    """One way to answer over procedural tasks, through real models. Times are those of this machine."""

    label: str
    right: Share
    to_best: Difference | None
    calls: float
    failed: int


class RealTable(msgspec.Struct, frozen=True):
    """Real models on procedural tasks."""

    models: tuple[str, ...]
    tasks: tuple[str, ...]
    seed: int
    rows: list[Task]


class Figures(msgspec.Struct, frozen=True):
    """A whole evaluation."""

    seed: str
    quick: bool
    votes: list[VoteCell]
    bar: Difference
    strategies: list[StrategyTable]
    judges: list[JudgeRow]
    policies: list[Policy]
    dead: list[DeadMember]
    real: RealTable | None = None
