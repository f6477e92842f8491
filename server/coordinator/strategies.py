"""How a combination answers: one coroutine for each strategy, over the same few stages.

A strategy sends what the client gets into ``run.answer`` and returns who answered. It is a coroutine and no
async generator: its members' task group must not stay open over a ``yield`` (PEP 789). ``direct`` asks one
model and gathers nothing; it is ``relay.py``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias

from msgspec.structs import replace

from server.coordinator.calling import send_settled
from server.coordinator.coordinator import Answer, Coordinator, ids
from server.coordinator.judging import analyse, best_of
from server.coordinator.racing import fallback, race
from server.coordinator.rounds import cascade, council, critique, moa
from server.coordinator.steps import steps
from server.coordinator.summary import summarize
from server.coordinator.voting import vote
from server.deltas import Batch, Delta, Finished, ReasoningDelta, RefusalDelta, TextDelta, ToolCallDelta

Strategy: TypeAlias = Callable[[Coordinator], Awaitable[Answer]]


async def synthesize(run: Coordinator) -> Answer:
    """All members draft, the summary model writes the one answer. A lone draft goes out word for word."""
    gathered = await run.draft()
    if run.is_settled(gathered):
        return await send_settled(run, gathered)
    notes = None
    if run.plan.summary is not None and run.plan.summary.mode == "analysis":
        notes = await analyse(run, gathered)
    return await summarize(run, gathered, notes=notes)


async def all_drafts(run: Coordinator) -> Answer:
    """Every draft is a choice, at its member's place, while it comes.

    A member that failed before any text has no choice; one that was cut ends with ``error``.
    """
    gathered = await run.draft(live=_Choices(run))
    first = (gathered.complete or gathered.drafts)[0]
    return Answer(first.call.id, first.finish_reason or "error", ids(gathered.drafts))


class _Choices:
    """Members' texts as choices of one answer. A choice begins with its first word."""

    def __init__(self, run: Coordinator) -> None:
        self._run = run

    async def hear(self, place: int, batch: Batch) -> None:
        """See ``Live``. Only what is said goes on: the members' own chunks tell of other indices."""
        deltas: list[Delta] = []
        for delta in batch:
            match delta:
                case TextDelta(text):
                    deltas.append(TextDelta(text, place))
                    self._run.book.text_began()
                case ReasoningDelta(text):
                    deltas.append(ReasoningDelta(text, place, delta.field))
                case RefusalDelta(text):
                    deltas.append(RefusalDelta(text, place))
                case ToolCallDelta():
                    deltas.append(replace(delta, index=place, original=None))
                case _:
                    pass
        if deltas:
            await self._run.answer.send(deltas)

    def end(self, place: int, reason: str) -> None:
        """See ``Live``."""
        self._run.answer.put([Finished(reason, place)])


STRATEGIES: Mapping[str, Strategy] = {
    "synthesize": synthesize,
    "vote": vote,
    "best_of": best_of,
    "race": race,
    "fallback": fallback,
    "all": all_drafts,
    "cascade": cascade,
    "moa": moa,
    "critique": critique,
    "council": council,
    "steps": steps,
}
"""Name in the configuration → strategy."""
