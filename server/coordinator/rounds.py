"""Strategies in several rounds: members or judges look at drafts before the answer is written or chosen.

``cascade`` asks one member after the other, ``moa`` all of them again, ``critique`` a critic, and ``council``
the members of each other.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import msgspec

from server.chat import ChatRequest
from server.coordinator.calling import send_settled
from server.coordinator.coordinator import Answer, Coordinator
from server.coordinator.json_shape import fits
from server.coordinator.judging import (
    DATA,
    NoVerdict,
    Question,
    consult,
    judge_model,
    question_turns,
    read_ranking,
    score,
    shown_drafts,
    verdict,
)
from server.coordinator.loose_json import NoJson, find_json
from server.coordinator.outcomes import Draft, Failure, Gathered, Outcome
from server.coordinator.plan import PlannedCall
from server.coordinator.prompts import label, show
from server.coordinator.requests import draft_request
from server.coordinator.summary import summarize
from server.coordinator.tool_calls import meaning
from server.coordinator.values import value_of
from server.events import DecisionMade
from server.settings import Member

FAULTS = (
    "Drafts of an answer to the user's request stand in the last turn between tags. "
    f"{DATA} Do not answer the request: list the faults of each draft, by its label, each in one short "
    "sentence: what is wrong, missing, unclear, too long, or not as asked for. If there is none, say so."
)
RANK = (
    "Several drafts of an answer to the user's request stand in the last turn between tags. "
    f"{DATA} Rank them: right first, then complete, then brief. Do not answer the request yourself. "
    'Reply with JSON only: {"ranking": ["B", "A"]}, all labels, best first.'
)
# With fewer drafts there is nothing to rank: nobody ranks its own.
LEAST_TO_RANK = 3


async def moa(run: Coordinator) -> Answer:
    """The members draft again with all drafts before their eyes, then the summary writes the answer."""
    gathered = await run.draft()
    for number in range(2, run.plan.settings.moa.rounds + 1):
        if run.is_settled(gathered) or gathered.ended_by == "answer_now":
            break
        calls = [_again(run, planned, gathered.drafts, number) for planned in run.plan.calls]
        again = await run.gather(calls, number=number, besides=len(gathered.drafts))
        if len(again.drafts) < max(1, run.plan.min_success):
            run.book.degrade("partial", again.reason, [one.call.id for one in again.failures])
            break
        gathered = run.accept(again, alone_is_whole=run.has_tools)
    if run.is_settled(gathered):
        return await send_settled(run, gathered)
    return await summarize(run, gathered)


async def critique(run: Coordinator) -> Answer:
    """A critic lists the faults of what was drafted, and the summary model revises it."""
    settings = run.plan.settings
    gathered = await run.gather([(one, run.request(one)) for one in run.plan.calls])
    gathered = run.accept(gathered, alone_is_whole=True)
    if gathered.called is not None:
        return await send_settled(run, gathered)
    model = settings.critique.critic or judge_model(run)
    assert run.plan.summary is not None
    notes: str | None = None
    for number in range(1, settings.critique.rounds + 1):
        id = "critic" if number == 1 else f"critic.{number}"
        drafts = tuple(gathered.drafts)
        question = Question(id, model, settings.judge.prompt or FAULTS, drafts, shuffled=True)
        said = (await consult(run, "critique", [question], number))[id]
        if isinstance(said, Failure):
            run.book.degrade("no_analysis", said.code)
            break
        notes = said.text
        if number < settings.critique.rounds:
            reviser = PlannedCall("revision", 0, 1, Member(model=run.plan.summary.model, id="revision"))
            call = _again(run, reviser, gathered.drafts, number + 1, notes, calls=False)
            revised = await run.gather([call], number=number + 1, besides=1)
            if not revised.complete:
                break
            gathered, notes = revised, None
    if notes is None and len(gathered.drafts) == 1:
        return await run.send_draft(gathered.drafts[0])
    return await summarize(run, gathered, notes=notes)


async def council(run: Coordinator) -> Answer:
    """The members rank each other's drafts without names, and the chair writes with the ranking at hand."""
    gathered = await run.draft()
    if run.is_settled(gathered):
        return await send_settled(run, gathered)
    notes = None
    drafts = gathered.drafts
    if len(drafts) >= LEAST_TO_RANK:
        questions = [
            Question(
                f"{draft.call.id}.rank",
                draft.call.model,
                RANK,
                tuple(other for other in drafts if other is not draft),
                shuffled=True,
            )
            for draft in gathered.complete  # who broke off before may do so again
        ]
        said = await consult(
            run,
            "rank",
            questions,
            enough=lambda heard: _settled(run, questions, heard),
            grace_s=run.plan.grace_s,
        )
        points = borda(run, questions, said)
        if any(points.values()):
            ranking = sorted(drafts, key=lambda one: (-points[one.call.id], -one.call.member.weight))
            run.book.run.tell(
                DecisionMade(
                    method="rank",
                    winner=ranking[0].call.id,
                    ranking=tuple(one.call.id for one in ranking),
                    tallies=points,
                ),
                stage=gathered.stage,
            )
            shown = show(drafts, order=run.plan.settings.order, seed=run.seed, draft_tokens=None)
            labels = {one.draft.call.id: label(place) for place, one in enumerate(shown)}
            order = ", ".join(labels[one.call.id] for one in ranking)
            notes = f"The authors of the drafts ranked each other's, best first: {order}."
        else:
            failed = [one.code for one in said.values() if isinstance(one, Failure)]
            run.book.degrade("no_analysis", failed[0] if failed else "invalid_draft")
    return await summarize(run, gathered, notes=notes, model=run.plan.settings.council.chair)


async def cascade(run: Coordinator) -> Answer:
    """The members in order, cheapest first, until a draft passes the test; each sees the drafts before it."""
    book, outcomes = run.book, list[Outcome]()
    drafts: list[Draft] = []
    gathered: Gathered | None = None
    for number, planned in enumerate(run.plan.calls, 1):
        if gathered is not None and (run.left_s <= 0 or gathered.ended_by == "answer_now"):
            break
        texts = [one for one in drafts if one.text]  # calls of tools are nothing to improve on
        call = (planned, run.request(planned)) if not texts else _again(run, planned, texts, 1)
        gathered = await run.gather([call], number=number, besides=len(drafts))
        outcomes += gathered.outcomes
        if not gathered.complete:
            continue
        draft = gathered.complete[0]
        drafts.append(draft)
        if await _passes(run, draft, drafts, number):
            failed = [one.call.id for one in outcomes if isinstance(one, Failure)]
            if failed:
                book.degrade("quorum", "failed", failed)
            decision = DecisionMade(method="accept", winner=draft.call.id)
            book.run.tell(decision, stage=gathered.stage)
            return await run.send_draft(draft)
    assert gathered is not None  # the plan has calls
    whole = Gathered(run.plan, gathered.stage, tuple(outcomes), gathered.ended_by)
    whole = run.accept(whole)
    last = whole.called or (whole.complete or whole.drafts)[-1]
    book.degrade("best_draft", "not_accepted", [last.call.id])
    return await run.send_draft(last)


async def _passes(run: Coordinator, draft: Draft, drafts: Sequence[Draft], number: int) -> bool:
    """Does the draft pass every test that is set? Tests of texts are none for calls, which were checked."""
    settings = run.plan.settings
    accept = settings.cascade.accept
    if draft.calls:
        alike = sum(meaning(one.calls) == meaning(draft.calls) for one in drafts)
        return accept.agree is None or alike >= accept.agree
    if accept.regex is not None and re.search(accept.regex, draft.text) is None:
        return False
    if accept.json_schema is not None:
        try:
            value = find_json(draft.text)
        except NoJson:
            return False
        if not fits(value, accept.json_schema):
            return False
    if accept.agree is not None:
        own = value_of(draft.text, settings.vote)
        same = sum(value_of(one.text, settings.vote) == own for one in drafts)
        if own is None or same < accept.agree:
            return False
    if accept.score is not None:
        try:
            points = await score(run, [draft], number)
        except NoVerdict as error:
            run.book.degrade("no_analysis", error.code)
            return False
        return points[draft.call.id] >= accept.score
    return True


def borda(run: Coordinator, questions: Sequence[Question], said: Mapping[str, Outcome]) -> dict[str, float]:
    """Points of each draft: in a ranking of k drafts the first gets k, the last one; unnamed ones none."""
    points = {draft.call.id: 0.0 for question in questions for draft in question.drafts}
    for question in questions:
        outcome = said.get(question.id)
        if outcome is None:
            continue
        shown = [one.draft for one in shown_drafts(run, question)]
        for place, draft in enumerate(read_ranking(verdict(outcome, "ranking", []), shown)):
            points[draft.call.id] += len(shown) - place
    return points


def _settled(run: Coordinator, questions: Sequence[Question], said: Mapping[str, Outcome]) -> bool:
    """Can the leader not be overtaken by what is still to come?"""
    left = len(questions) - len(said)
    points = sorted(borda(run, questions, said).values(), reverse=True)
    most = len(points) - 1
    return points[0] - points[1] > left * most


def _again(
    run: Coordinator,
    planned: PlannedCall,
    drafts: Sequence[Draft],
    number: int,
    notes: str | None = None,
    *,
    calls: bool = True,
) -> tuple[PlannedCall, ChatRequest]:
    """A member's call with the drafts before its eyes; beyond round 1 under an id of that round.

    ``calls``: it may call tools, if members get them.
    """
    call = planned if number == 1 else msgspec.structs.replace(planned, id=f"{planned.id}.r{number}")
    question = Question(call.id, call.model, None, tuple(drafts), shuffled=True)
    chat = run.chat.with_messages(question_turns(run, question, notes))
    may_call = calls and run.calls(call.model)
    return call, draft_request(chat, run.plan, call, blind=False, calls=may_call)
