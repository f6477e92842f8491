"""Who stands for election: panels of simulated members, and combinations of them."""

from __future__ import annotations

from typing import Any

import msgspec

from evaluation.members import Faults, SimulatedModel
from evaluation.world import Skill, World
from server.settings import Combination, Member, Summary, TimeoutsPatch
from server.strategy_settings import Judge, Vote

WRITER = "writer"
JUDGE = "judge"
NEVER = TimeoutsPatch(connect_s=0, first_token_s=0, idle_s=0, total_s=0)

PATIENT_WRITER = Summary(model=WRITER, timeouts=NEVER)
# As a careful configuration has it: the clocks of members, and a draft where the writer fails.
HASTY_WRITER = Summary(
    model=WRITER, timeouts=TimeoutsPatch(first_token_s=20, idle_s=15, total_s=55), fallback=("best_draft",)
)


class Panel(msgspec.Struct, frozen=True):
    """Members and the world they are asked about.

    ``reader`` is how often judge and writer tell right from wrong, ``consistent`` and ``bias`` are theirs too
    (see ``Skill``). The writer knows as much as the best member.
    """

    name: str
    accuracies: tuple[float, ...]
    spread: float
    medians_s: tuple[float, ...] = ()
    stubborn: float = 0.0
    reader: float = 0.75
    consistent: bool = False
    bias: float = 0.0
    faults: Faults = Faults()
    dead: str | None = None  # how the last member is out of order: refusing or silent

    @property
    def skills(self) -> tuple[Skill, ...]:
        """The members', in order: m1, m2, …"""
        medians = self.medians_s or (8.0,) * len(self.accuracies)
        return tuple(
            Skill(f"m{place}", accuracy, stubborn=self.stubborn, discernment=self.reader, median_s=median)
            for place, (accuracy, median) in enumerate(zip(self.accuracies, medians, strict=True), 1)
        )

    @property
    def best(self) -> str:
        """The name of the member that knows most; the first of equals."""
        return max(self.skills, key=lambda one: one.accuracy).name

    def world(self, seed: str) -> World:
        """The questions. Panels of one spread are asked the same ones."""
        return World(f"{seed} {self.spread:g}", self.spread)

    def models(self, seed: str) -> list[SimulatedModel]:
        """The members, a writer and a judge, made anew."""
        world, most = self.world(seed), max(self.accuracies)
        others = (
            Skill(
                name,
                most,
                discernment=self.reader,
                consistent=self.consistent,
                bias=self.bias,
                median_s=max(self.medians_s, default=8.0),
            )
            for name in (WRITER, JUDGE)
        )
        models = [SimulatedModel(world, one, self.faults) for one in self.skills]
        if self.dead is not None:
            faults = Faults(hang=1) if self.dead == "silent" else Faults(refuse=1)
            models[-1] = SimulatedModel(world, self.skills[-1], faults)
        return models + [SimulatedModel(world, one, self.faults) for one in others]


class Entry(msgspec.Struct, frozen=True):
    """A combination that is to answer.

    ``settings`` are its keys beside the members; ``patient``: it waits for everybody, however long.
    ``members`` are names of the panel's members in order (empty: all of them), ``samples`` the calls that are
    made of each, ``weights`` their weights.
    """

    label: str
    strategy: str
    settings: dict[str, Any] = {}
    members: tuple[str, ...] = ()
    samples: int = 1
    weights: tuple[float, ...] = ()
    patient: bool = True

    def combination(self, panel: Panel) -> Combination:
        """What the coordinator is given."""
        fields: dict[str, Any] = {
            "judge": Judge(model=JUDGE),
            "summary": PATIENT_WRITER if self.patient else HASTY_WRITER,
            "vote": Vote(type="number"),
            "max_members": 64,
        }
        names = self.members or tuple(one.name for one in panel.skills)
        if self.strategy == "direct":
            fields = {"model": names[0]}
        else:
            weights = self.weights or (1.0,) * len(names)
            fields["members"] = tuple(
                Member(model=name, id=name, samples=self.samples, weight=weight)
                for name, weight in zip(names, weights, strict=True)
            )
            if self.patient:
                fields |= {"quorum": len(names) * self.samples, "deadline_s": 1e6, "timeouts": NEVER}
        return Combination(**({"name": "panel", "strategy": self.strategy} | fields | self.settings))
