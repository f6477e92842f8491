"""Questions whose answers are known, and how likely a model of some skill is to know them.

A question has a difficulty that is common to all models: a model of accuracy ``a`` knows the answer with
the chance ``a + spread * z``, kept between 0 and 1, where ``z`` is normal. Who does not know it says, in
``lure`` of all cases, the one wrong answer that everybody finds plausible, else a number of its own.
"""

from __future__ import annotations

import msgspec

from evaluation.chance import Chance

LURE = 0.77
"""Share of wrong answers that are the common one; it makes two wrong models agree in about 60 % (0.77²)."""


class Skill(msgspec.Struct, frozen=True):
    """What a simulated model can do.

    ``accuracy`` is that on questions of mean difficulty. ``stubborn`` is the share of its samples that say
    what its first one said; 0: they are independent, as far as the question lets them. ``discernment`` is how
    often it can tell right from wrong among what others say; ``consistent``: who errs about an answer errs
    about every draft that comes to it, else about this draft alone. ``bias`` is how often it prefers what
    stands first without looking (below 0: what stands last). A call takes about ``median_s`` seconds
    (log-normal, of deviation ``sigma``), a third of which passes before the first word.
    """

    name: str
    accuracy: float
    stubborn: float = 0.0
    discernment: float = 0.75
    consistent: bool = False
    bias: float = 0.0
    median_s: float = 8.0
    sigma: float = 0.6


class Item(msgspec.Struct, frozen=True):
    """One question: its number, how easy it is (``z`` above), its answer, and the wrong one that lures."""

    number: int
    z: float
    truth: int
    lure: int


class World(msgspec.Struct, frozen=True):
    """All questions of a cell. ``seed`` makes them; the same seed makes the same ones."""

    seed: str
    spread: float
    lure: float = LURE

    def item(self, number: int) -> Item:
        """The question of this number."""
        chance = Chance(self.seed, "item", number)
        truth = 10_000 + int(chance.uniform() * 90_000)
        lure = 10_000 + int(chance.uniform() * 90_000)
        return Item(number, chance.normal(), truth, lure if lure != truth else lure + 1)

    def answer(self, item: Item, skill: Skill, sample: int) -> int:
        """What a model says of its own accord at its ``sample``-th call (from 1) about the item."""
        if (
            sample > 1
            and Chance(self.seed, "again", item.number, skill.name, sample).uniform() < skill.stubborn
        ):
            sample = 1
        chance = Chance(self.seed, "answer", item.number, skill.name, sample)
        known = skill.accuracy + self.spread * item.z
        if chance.uniform() < known:
            return item.truth
        if chance.uniform() < self.lure:
            return item.lure
        own = 10_000 + int(chance.uniform() * 90_000)
        return own if own != item.truth else own + 1
