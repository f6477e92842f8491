"""Strategies in several rounds: cascade, moa, critique, council."""

from __future__ import annotations

import re
from typing import Any

import pytest

from server.errors import AllMembersFailed
from server.settings import Member, Summary
from server.strategy_settings import Accept, Cascade, Council, Critique, Judge, Moa, Vote
from tests.coordinator.panel import Panel, Replies, Scripted, broken, never, says
from tests.coordinator.test_judging import shown


def again(first: str, later: str) -> Any:
    """Says one thing alone, and another with drafts before its eyes."""
    return lambda turn: later if "<draft-" in turn else first


# ---- cascade


def cascade(*members: Scripted, accept: Accept, **settings: Any) -> Panel:
    return Panel(members, strategy="cascade", cascade=Cascade(accept=accept), **settings)


async def test_the_first_draft_that_passes_goes_out_and_nobody_dearer_is_asked() -> None:
    dear = Scripted("b", says("never asked"))
    told = await cascade(Scripted("a", says("x = 4")), dear, accept=Accept(regex=r"= \d")).ask()
    assert told.text == "x = 4"
    assert dear.asked == []
    decision = told.data("decision.made")
    assert (decision.method, decision.winner) == ("accept", "m1")
    assert told.data("run.completed").level == "none"


async def test_the_next_member_sees_the_drafts_before_it() -> None:
    second = Scripted("b", says("x = 4"))
    told = await cascade(Scripted("a", says("who knows")), second, accept=Accept(regex=r"= \d")).ask()
    assert told.text == "x = 4"
    assert "who knows" in second.body["messages"][-1]["content"]
    assert [e.stage.id for e in told.events if e.type == "stage.started" and e.stage] == [
        "draft.1",
        "draft.2",
    ]


async def test_a_dead_member_is_passed_over_and_told() -> None:
    told = await cascade(
        Scripted("a", [broken()]), Scripted("b", says("= 1")), accept=Accept(regex="=")
    ).ask()
    assert told.text == "= 1"
    assert told.data("run.completed").level == "quorum"


async def test_where_nothing_passes_the_last_draft_goes_out_and_says_so() -> None:
    told = await cascade(
        Scripted("a", says("one")), Scripted("b", says("two")), accept=Accept(regex="=")
    ).ask()
    assert told.text == "two"
    end = told.data("run.completed")
    assert (end.level, end.answer_by) == ("best_draft", "m2")


async def test_a_hanging_member_ends_at_the_deadline_and_what_is_there_counts() -> None:
    told = await cascade(
        Scripted("a", says("one")), Scripted("b", [never()]), accept=Accept(regex="="), deadline_s=0.1
    ).ask()
    assert told.text == "one"


async def test_a_draft_may_have_to_fit_a_schema() -> None:
    schema = {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}}
    told = await cascade(
        Scripted("a", says('{"n": "4"}')),
        Scripted("b", says('```\n{"n": 4}\n```')),
        accept=Accept(json_schema=schema),
    ).ask()
    assert told.data("decision.made").winner == "m2"


async def test_two_drafts_may_have_to_agree() -> None:
    members = [Scripted(f"a{n}", says(text)) for n, text in enumerate(["4", "5", "4.0", "never"])]
    told = await cascade(*members, accept=Accept(agree=2), vote=Vote(type="number")).ask()
    assert told.text == "4.0"
    assert members[3].asked == []


@pytest.mark.parametrize(("word", "winner"), [("9", "m1"), ("3", "m2"), ("none", "m2")])
async def test_a_judge_may_score(word: str, winner: str) -> None:
    judge = Scripted("judge", says(f'{{"score": {word}}}'))
    told = await cascade(
        Scripted("a", says("one")),
        Scripted("b", says("two")),
        accept=Accept(score=8),
        others=[judge],
        judge=Judge(model="judge"),
    ).ask()
    assert told.data("run.completed").answer_by == winner


async def test_no_draft_at_all_is_an_error() -> None:
    told = await cascade(Scripted("a", [broken()]), Scripted("b", [broken()]), accept=Accept(regex="=")).ask()
    assert isinstance(told.error, AllMembersFailed)
    assert told.error.details is not None
    assert len(told.error.details["members"]) == 2


# ---- moa


async def test_from_the_second_round_on_each_member_sees_the_anonymous_drafts() -> None:
    members = [Replies(f"a{n}", again(f"first {n}", f"second {n}")) for n in range(3)]
    told = await Panel(members, strategy="moa", moa=Moa(rounds=3)).ask()
    assert told.text == "The answer."
    assert [len(one.asked) for one in members] == [3, 3, 3]
    turn = members[0].asked[1].messages[-1].text
    assert sorted(shown(turn)) == ["first 0", "first 1", "first 2"]
    assert "a1" not in turn
    stages = [e.stage.id for e in told.events if e.type == "stage.started" and e.stage]
    assert stages == ["draft.1", "draft.2", "draft.3", "summary.1"]
    assert told.data("run.completed").used == ("m1.r3", "m2.r3", "m3.r3")


async def test_a_second_round_without_a_draft_leaves_the_first() -> None:
    class Once(Replies):
        async def stream(self, chat: Any, call: Any) -> Any:
            if "<draft-" in chat.messages[-1].text:
                raise broken()
            async for batch in super().stream(chat, call):
                yield batch

    members = [Once(f"a{n}", lambda _, n=n: f"first {n}") for n in range(2)]  # type: ignore[misc]
    panel = Panel(members, strategy="moa")
    told = await panel.ask()
    assert told.text == "The answer."
    assert told.data("run.completed").level == "partial"
    assert sorted(shown(panel.writer.body["messages"][-1]["content"])) == ["first 0", "first 1"]


async def test_moa_with_one_survivor_gives_it_word_for_word() -> None:
    told = await Panel([Scripted("a", says("one")), Scripted("b", [broken()])], strategy="moa").ask()
    assert told.text == "one"
    assert told.data("run.completed").level == "lone"


# ---- critique


async def test_a_critic_lists_faults_and_the_summary_revises() -> None:
    critic = Scripted("critic-model", says("A forgets the second half."))
    panel = Panel(
        [Scripted("a", says("a draft"))],
        others=[critic],
        strategy="critique",
        critique=Critique(critic="critic-model"),
    )
    told = await panel.ask()
    assert told.text == "The answer."
    assert told.data("run.completed").level == "none"
    content = panel.writer.body["messages"][-1]["content"]
    assert "a draft" in content
    assert "A forgets the second half." in content
    assert "a draft" in critic.body["messages"][-1]["content"]


async def test_two_rounds_revise_in_between() -> None:
    critic = Scripted("critic-model", says("Too long."))
    panel = Panel(
        [Scripted("a", says("a draft"))],
        others=[critic],
        strategy="critique",
        critique=Critique(critic="critic-model", rounds=2),
    )
    told = await panel.ask()
    assert told.text == "The answer."
    assert len(critic.asked) == 2
    assert "The answer." in critic.body["messages"][-1]["content"]
    stages = [e.stage.id for e in told.events if e.type == "stage.started" and e.stage]
    assert stages == ["draft.1", "critique.1", "draft.2", "critique.2", "summary.1"]


async def test_a_dead_critic_costs_only_the_critique() -> None:
    panel = Panel([Scripted("a", says("a draft"))], strategy="critique", judge=Judge(model="judge"))
    panel.upstreams["judge"] = Scripted("judge", [broken()])
    told = await panel.ask()
    assert told.text == "a draft"
    assert told.data("run.completed").level == "no_analysis"


# ---- council


def member(name: str, text: str) -> Replies:
    """Drafts its text, and ranks drafts by their length."""

    def reply(turn: str) -> str:
        texts = shown(turn)
        order = sorted(range(len(texts)), key=lambda at: -len(texts[at]))
        return '{"ranking": [' + ", ".join(f'"{"ABCDEF"[at]}"' for at in order) + "]}" if texts else text

    return Replies(name, reply)


async def test_members_rank_each_other_without_names_and_the_chair_writes() -> None:
    members = [member("a", "x"), member("b", "xxx"), member("c", "xx")]
    chair = Scripted("chair", says("From the chair."))
    told = await Panel(members, others=[chair], strategy="council", council=Council(chair="chair")).ask()
    assert told.text == "From the chair."
    decision = told.data("decision.made")
    assert (decision.method, decision.ranking) == ("rank", ("m2", "m3", "m1"))
    assert told.data("summary.started").model == "chair"
    turn = members[0].asked[1].messages[-1].text
    assert sorted(shown(turn)) == ["xx", "xxx"], "its own draft is not ranked"
    order = re.search(r"best first: (\w), (\w), (\w)\.", chair.body["messages"][-1]["content"])
    assert order is not None
    texts = shown(chair.body["messages"][-1]["content"])
    assert [texts["ABC".index(name)] for name in order.groups()] == ["xxx", "xx", "x"]


async def test_ranking_stops_when_the_lead_cannot_be_lost() -> None:
    members = [member("a", "x" * 9), member("b", "x"), member("c", "xx"), member("d", "xxx")]

    class Silent(Replies):
        async def stream(self, chat: Any, call: Any) -> Any:
            if "<draft-" in chat.messages[-1].text:
                await never().wait()
            async for batch in super().stream(chat, call):
                yield batch

    # The leader's own ranking, of the three others, can change nothing.
    members[0] = Silent("a", members[0].reply)
    told = await Panel(members, strategy="council").ask()
    assert told.text == "The answer."
    assert told.data("decision.made").winner == "m1"
    assert told.data("model.cancelled").reason == "lost_race"


async def test_rankings_of_no_use_cost_only_the_ranking() -> None:
    members = [Scripted(f"a{n}", says(f"draft {n}")) for n in range(3)]
    panel = Panel(members, strategy="council")
    told = await panel.ask()
    assert told.text == "The answer."
    assert told.data("run.completed").level == "no_analysis"


async def test_a_council_of_which_one_survives_gives_it_word_for_word() -> None:
    told = await Panel([Scripted("a", says("one")), Scripted("b", [broken()])], strategy="council").ask()
    assert told.text == "one"
    assert told.data("run.completed").level == "lone"


@pytest.mark.parametrize("strategy", ["moa", "critique", "council"])
async def test_a_dead_summary_falls_back_to_the_best_draft_where_that_is_configured(strategy: str) -> None:
    members = [Scripted(f"a{n}", says(f"draft {n}")) for n in range(3)]
    told = await Panel(
        members,
        Scripted("writer", [broken()]),
        strategy=strategy,
        summary=Summary(model="writer", fallback=("best_draft",)),
        judge=Judge(model="a0"),
        members=tuple(Member(model=one.name) for one in members),
    ).ask()
    assert told.text == "draft 0"
    assert told.data("run.completed").level == "best_draft"
