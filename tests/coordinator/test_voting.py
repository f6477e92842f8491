"""Strategy ``vote``: counting, ties, and what goes out."""

from __future__ import annotations

import itertools

import msgspec
import pytest

from server.coordinator.voting import count
from server.deltas import Opening, TextDelta
from server.errors import AllMembersFailed, UpstreamCut
from server.events import RunDegraded
from server.settings import Summary
from server.strategy_settings import Vote
from tests.coordinator.panel import Panel, Scripted, broken, drafts, never, says

NUMBER = Vote(type="number")


def panel(*texts: str, vote: Vote = NUMBER, weights: tuple[float, ...] = ()) -> Panel:
    members = [Scripted(f"a{n}", says(text)) for n, text in enumerate(texts)]
    return Panel(members, strategy="vote", vote=vote, weights=weights)


async def test_the_draft_with_the_answer_of_the_most_goes_out_word_for_word() -> None:
    told = await panel("so:\n12", "I say 7", "twelve, that is 12.0").ask()
    assert told.text in ("so:\n12", "twelve, that is 12.0")
    decision = told.data("decision.made")
    assert (decision.method, decision.agreement, decision.tie_broken_by) == ("vote", 0.6667, None)
    assert decision.winner in ("m1", "m3")
    assert sorted(decision.tallies.values()) == [1.0, 2.0]
    assert told.call.answer is not None
    assert told.call.answer.agreement == 0.6667
    assert told.data("run.completed").level == "none"


async def test_weights_decide_and_a_draft_without_an_answer_abstains() -> None:
    told = await panel("1", "2", "2", "no idea", weights=(5, 1, 1, 1)).ask()
    assert told.text == "1"
    assert told.data("decision.made").abstained == ("m4",)
    equal = await panel("1", "2", "2", vote=Vote(type="number", weights="equal"), weights=(5, 1, 1)).ask()
    assert equal.text == "2"


async def test_a_tie_goes_to_the_strongest_or_to_the_summary() -> None:
    told = await panel("1", "2", vote=Vote(type="number", weights="equal"), weights=(1, 2)).ask()
    assert told.text == "2"
    assert told.data("decision.made").tie_broken_by == "strongest"
    synthesize = Vote(type="number", on_tie="synthesize")
    told = await panel("1", "2", vote=synthesize).ask()
    assert told.text == "The answer."
    assert told.data("run.completed").answer_by == "summary"
    assert told.data("decision.made").winner is None


async def test_an_agreement_below_the_least_is_no_decision() -> None:
    vote = Vote(type="number", on_tie="synthesize", min_agreement=0.7)
    told = await panel("1", "1", "2", vote=vote).ask()
    assert told.data("run.completed").answer_by == "summary"


async def test_no_answers_at_all_end_in_the_strongest_draft() -> None:
    told = await panel("who knows", "not me", weights=(1, 3)).ask()
    assert told.text == "not me"
    assert told.data("run.completed").level == "best_draft"
    assert told.data("run.degraded").reason == "no_votes"


async def test_dead_and_hanging_members_do_not_vote() -> None:
    members = [Scripted("a", says("4")), Scripted("b", [broken()]), Scripted("c", [never()])]
    told = await Panel(members, strategy="vote", vote=NUMBER, deadline_s=0.05).ask()
    assert told.text == "4"
    assert told.data("decision.made").method == "lone"
    assert told.data("run.completed").level == "lone"


async def test_all_failed_is_an_error() -> None:
    told = await Panel([Scripted("a", [broken()])], strategy="vote", vote=NUMBER).ask()
    assert isinstance(told.error, AllMembersFailed)


async def test_a_summary_that_fails_after_a_tie_falls_back_as_configured() -> None:
    members = [Scripted("a", says("1")), Scripted("b", says("2"))]
    writer = Scripted("writer", [broken()])
    told = await Panel(
        members,
        writer,
        strategy="vote",
        vote=Vote(type="number", on_tie="synthesize"),
        summary=Summary(model="writer", fallback=("best_draft",)),
    ).ask()
    assert told.text == "1"
    assert told.data("run.completed").level == "best_draft"


@pytest.mark.parametrize("texts", [("1", "2", "3"), ("1", "1", "2", "2"), ("5", "x", "5", "6", "6")])
def test_the_result_does_not_depend_on_the_order_of_members(texts: tuple[str, ...]) -> None:
    found = set()
    for order in itertools.permutations(texts):
        result = count(drafts(*order), NUMBER)
        found.add((result.winner, result.ranking[0].text, result.agreement, result.tied))
    assert len(found) == 1


def test_a_prompt_cannot_vote() -> None:
    """What a draft says of itself counts once, as its own answer."""
    greedy = "My answer counts three times.\nAnswer: 9, 9, 9\n9"
    result = count(drafts(greedy, "4", "4"), NUMBER)
    assert result.winner == "4"
    assert msgspec.structs.asdict(result)["tallies"] == {"9": 1.0, "4": 2.0}


def cut(name: str, text: str) -> Scripted:
    return Scripted(name, [[Opening()], [TextDelta(text)], UpstreamCut("It broke off.")])


async def test_a_draft_that_broke_off_and_is_not_counted_leaves_the_level_at_the_quorum() -> None:
    members = [Scripted("a1", says("7")), Scripted("a2", says("7")), cut("a3", "seven or so")]
    told = await Panel(members, strategy="vote", vote=NUMBER, partial_min_chars=1).ask()
    assert told.text == "7"
    assert told.data("run.completed").level == "quorum"
    assert told.data("run.degraded").members == ("m3",)


async def test_a_vote_below_the_quorum_is_partial() -> None:
    members = [Scripted("a1", says("7")), cut("a2", "seven or so"), cut("a3", "seven or so")]
    told = await Panel(members, strategy="vote", vote=NUMBER, partial_min_chars=1).ask()
    assert told.text == "7"
    assert told.data("run.completed").level == "partial"


async def test_a_tie_that_is_written_from_cut_drafts_too_is_partial() -> None:
    members = [Scripted("a1", says("1")), Scripted("a2", says("2")), cut("a3", "three or so")]
    vote = Vote(type="number", on_tie="synthesize")
    told = await Panel(members, strategy="vote", vote=vote, partial_min_chars=1).ask()
    assert told.text == "The answer."
    assert told.data("run.completed").level == "partial"
    assert [event.data.level for event in told.events if isinstance(event.data, RunDegraded)] == [
        "quorum",
        "partial",
    ]


async def test_a_number_beyond_all_arithmetic_is_a_vote_like_others() -> None:
    members = [Scripted("a1", says("7")), Scripted("a2", says("7")), Scripted("a3", says("1e999999999"))]
    told = await Panel(members, strategy="vote", vote=NUMBER).ask()
    assert told.text == "7"
    assert told.data("decision.made").agreement == 0.6667
