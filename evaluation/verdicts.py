"""What a simulated model makes of what others have said: a verdict, notes, or an answer of its own.

``discernment`` is the chance that it tells right from wrong. Asked twice about the same drafts, with their
places changed, it says the same again: what it errs about it errs about twice.
"""

from __future__ import annotations

from collections import Counter

import msgspec

from evaluation.chance import Chance
from evaluation.reading import Prompt, ShownDraft, said
from evaluation.world import Item, Skill, World

TRUSTS_ITSELF = 0.5
"""How often a model that does not see which answer is right says its own, and not what most others say."""


def reply(world: World, skill: Skill, prompt: Prompt, sample: int) -> str:
    """What the model writes. ``sample`` counts its calls about this item, from 1."""
    item = world.item(prompt.item)
    reader = _Reader(world, skill, item, prompt)
    match prompt.task:
        case "winner":
            return _json(winner=reader.winner())
        case "ranking":
            return _json(ranking=reader.ranking())
        case "score":
            return _json(score=reader.score(prompt.drafts[0]))
        case "analysis":
            return _json(contradictions=reader.faults(), consensus=["All answer the question."])
        case "faults":
            return "\n".join(reader.faults()) or "No faults."
        case _:
            value = reader.answer(sample) if prompt.drafts else world.answer(item, skill, sample)
            way = Chance(world.seed, "way", prompt.item, skill.name, sample).uniform()
            return said(value, int(way * 10_000))


class _Reader:
    def __init__(self, world: World, skill: Skill, item: Item, prompt: Prompt) -> None:
        self._world = world
        self._skill = skill
        self._item = item
        self._prompt = prompt

    def winner(self) -> str:
        """Of two drafts the one it holds to be right."""
        one, other = self._prompt.drafts
        if one.value == other.value:
            return "tie"
        low, high = sorted((one, other), key=self._known_by)
        chance = self._chance("pair", self._known_by(low), self._known_by(high))
        if chance.uniform() < abs(self._skill.bias):
            return (one if self._skill.bias > 0 else other).label
        right = [draft for draft in (one, other) if draft.value == self._item.truth]
        if not right:
            return (low if chance.uniform() < 0.5 else high).label
        wrong = other if right[0] is one else one
        return (right[0] if chance.uniform() < self._skill.discernment else wrong).label

    def ranking(self) -> list[str]:
        """All labels: what it takes to be right first, in an order of chance within."""
        drafts = [one for one in self._prompt.drafts if one.value is not None]
        sees = self._chance("look").uniform() < self._skill.discernment
        ranked = sorted(
            drafts,
            key=lambda one: (
                -(one.value == self._item.truth) if sees else 0,
                self._chance("rank", self._known_by(one)).uniform(),
            ),
        )
        if ranked and self._chance("place").uniform() < abs(self._skill.bias):
            ranked.insert(0, ranked.pop(ranked.index(drafts[0 if self._skill.bias > 0 else -1])))
        return [one.label for one in ranked]

    def score(self, draft: ShownDraft) -> int:
        """Points from 0 to 10: above 5 for what it takes to be right."""
        if draft.value is None:
            return 0
        chance = self._chance("score", self._known_by(draft))
        is_right = draft.value == self._item.truth
        looks_right = is_right == (chance.uniform() < self._skill.discernment)
        return (6 if looks_right else 1) + int(chance.uniform() * 4)

    def faults(self) -> list[str]:
        """A sentence for each draft that it takes to be wrong."""
        return [
            f"Draft {one.label} is wrong."
            for one in self._prompt.drafts
            if one.value is None
            or (one.value == self._item.truth)
            != (self._chance("fault", self._known_by(one)).uniform() < self._skill.discernment)
        ]

    def answer(self, sample: int) -> int:
        """The right answer if it sees one, else its own, or what the ranking or most of the drafts say."""
        prompt = self._prompt
        drafts = [one for one in prompt.drafts if one.value is not None]
        drafts = [one for one in drafts if one.label not in prompt.faulted] or drafts
        chance = self._chance("write", sample)
        sees = chance.uniform() < self._skill.discernment
        if sees and any(one.value == self._item.truth for one in drafts):
            return self._item.truth
        if not drafts or chance.uniform() < TRUSTS_ITSELF:
            return self._world.answer(self._item, self._skill, sample)
        by_label = {one.label: one.value for one in drafts}
        favoured = next((by_label[name] for name in prompt.ranked if name in by_label), None)
        if favoured is None:
            favoured = Counter(one.value for one in drafts).most_common(1)[0][0]
        assert favoured is not None  # drafts without a value were left out
        return favoured

    def _known_by(self, draft: ShownDraft) -> str:
        """What an error about this draft is tied to."""
        return str(draft.value) if self._skill.consistent else f"{draft.value} {draft.way}"

    def _chance(self, *names: object) -> Chance:
        return Chance(self._world.seed, self._item.number, self._skill.name, *names)


def _json(**fields: object) -> str:
    return msgspec.json.encode(fields).decode()
