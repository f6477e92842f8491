"""Strategy ``vote``: the answers inside the drafts are counted, and a draft of the winners goes out."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from server.coordinator.calling import send_settled
from server.coordinator.coordinator import Answer, Coordinator
from server.coordinator.outcomes import Draft
from server.coordinator.summary import summarize
from server.coordinator.values import value_of
from server.events import DecisionMade
from server.strategy_settings import Vote


class Count(msgspec.Struct, frozen=True):
    """A vote's result. ``winner`` None: nobody said anything that could be counted.

    ``ranking`` holds the winners' drafts, strongest first, ``tied`` whether another value had as many votes.
    ``agreement`` is the winning value's share of all votes cast.
    """

    winner: str | None
    ranking: tuple[Draft, ...]
    tallies: dict[str, float]
    weights: dict[str, float]
    agreement: float | None
    abstained: tuple[str, ...]
    tied: bool


def count(drafts: Sequence[Draft], vote: Vote) -> Count:
    """Count the values of these drafts. The result does not depend on their order."""
    ordered = sorted(drafts, key=lambda draft: (-draft.call.member.weight, draft.text))  # by no place
    values = {draft.call.id: value_of(draft.text, vote) for draft in ordered}
    weights = {
        draft.call.id: 1.0 if vote.weights == "equal" else float(draft.call.member.weight)
        for draft in ordered
    }
    tallies: dict[str, float] = {}
    for id, value in sorted(values.items()):
        if value is not None:
            tallies[value] = tallies.get(value, 0.0) + weights[id]
    abstained = tuple(sorted(id for id, value in values.items() if value is None))
    if not tallies:
        return Count(None, (), {}, weights, None, abstained, False)
    most = max(tallies.values())
    leaders = [value for value, votes in tallies.items() if votes >= most - 1e-9]
    # Among equals the value of the strongest draft leads, whatever the members' order is.
    winner = next(value for draft in ordered if (value := values[draft.call.id]) in leaders)
    ranking = tuple(draft for draft in ordered if values[draft.call.id] == winner)
    agreement = round(most / sum(tallies.values()), 4)
    return Count(winner, ranking, tallies, weights, agreement, abstained, len(leaders) > 1)


async def vote(run: Coordinator) -> Answer:
    """All members draft; the draft with the answer of the most (by weight) goes out word for word.

    A tie, or an agreement below ``min_agreement``, is for ``on_tie`` to decide; so is a vote in which
    nobody said anything that counts.
    """
    gathered = await run.draft(chooses=True)
    if gathered.called is not None:
        return await send_settled(run, gathered)
    settings = run.plan.settings.vote
    complete = gathered.complete
    result = count(complete, settings)
    run.book.agreement = result.agreement
    weak = result.agreement is None or result.agreement < settings.min_agreement
    open_end = weak or result.tied
    synthesize = open_end and settings.on_tie == "synthesize" and run.plan.summary is not None
    chosen = result.ranking[0] if result.ranking else gathered.strongest
    if synthesize and len(gathered.drafts) > 1:
        chosen = None
    run.book.run.tell(
        DecisionMade(
            method="vote" if len(gathered.drafts) > 1 else "lone",
            winner=None if chosen is None else chosen.call.id,
            ranking=tuple(draft.call.id for draft in result.ranking),
            tallies={f"value.{place}": votes for place, votes in enumerate(_sizes(result), 1)},
            weights=result.weights,
            agreement=result.agreement,
            abstained=result.abstained,
            tie_broken_by=settings.on_tie if open_end else None,
        ),
        stage=gathered.stage,
    )
    if chosen is not None:
        if result.winner is None and len(gathered.drafts) > 1:
            run.book.degrade("best_draft", "no_votes", [chosen.call.id])
        return await run.send_draft(chosen)
    if synthesize:
        cut = [draft.call.id for draft in gathered.drafts if not draft.complete]
        if cut and run.book.level == "quorum":
            run.book.degrade("partial", gathered.reason, cut)  # now they are used
        return await summarize(run, gathered)
    return await run.send_draft(gathered.drafts[0])


def _sizes(result: Count) -> list[float]:
    """The votes of each value, the winner's first. The values are text, which no event may hold."""
    return sorted(result.tallies.values(), reverse=True)
