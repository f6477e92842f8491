"""Members that call tools: whether the answer is a call, and whose (``tools: agree``)."""

from __future__ import annotations

from server.coordinator.coordinator import Answer, Coordinator
from server.coordinator.outcomes import Gathered, support
from server.coordinator.tool_calls import meaning
from server.events import DecisionMade


async def send_settled(run: Coordinator, gathered: Gathered) -> Answer:
    """One draft is the answer, word for word: that whose calls most agree on, else the only one."""
    called = gathered.called
    if called is None:
        lone = gathered.drafts[0]
        run.book.run.tell(DecisionMade(method="lone", winner=lone.call.id), stage=gathered.stage)
        return await run.send_draft(lone)
    tallies = support(gathered.complete)
    votes = [tallies[key] for key in sorted(tallies, key=lambda key: -tallies[key])]
    weights = {draft.call.id: float(draft.call.member.weight) for draft in gathered.complete}
    run.book.agreement = round(tallies[meaning(called.calls)] / sum(weights.values()), 4)
    run.book.run.tell(
        DecisionMade(
            method="tools",
            winner=called.call.id,
            tallies={f"calls.{place}": float(one) for place, one in enumerate(votes, 1)},
            weights=weights,
            agreement=run.book.agreement,
            abstained=tuple(draft.call.id for draft in gathered.complete if not draft.calls),
            tie_broken_by="weight" if votes[:1] == votes[1:2] else None,
        ),
        stage=gathered.stage,
    )
    return await run.send_draft(called)
