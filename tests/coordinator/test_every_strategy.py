"""What holds for every strategy: a bad member is survived, a client may leave, prompts change nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.coordinator.strategies import STRATEGIES
from server.deltas import Finished, TextDelta, UsageDelta
from server.errors import AllMembersFailed, ServerError, UpstreamRefused
from server.settings import Member, Strategy, Summary
from server.strategy_settings import Accept, Cascade, Critique, Moa, Race, Steps, Vote
from tests.coordinator.panel import Panel, Scripted, Step, broken, check_log, never, says, slow
from tests.coordinator.test_combination import OUTCOMES, play, read

VERDICT = '{"winner": "A", "ranking": ["A", "B"], "score": 9, "unique": ["x"]}'
DRAFT = "The number that was asked for, after long thought, is certainly\n42"
GATHERING: tuple[Strategy, ...] = (
    "synthesize",
    "vote",
    "best_of",
    "race",
    "fallback",
    "all",
    "cascade",
    "moa",
    "critique",
    "council",
)
FAULTS: dict[str, list[Step]] = {
    "dead": [broken()],
    "slow": [slow()],
    "cut": [[TextDelta("The")], slow("idle")],
    "empty": says(),
    "refused": [UpstreamRefused("No.", upstream_status=403)],
    "moderated": says("No", reason="content_filter"),
    "garbage": says("\x00{{%s}}</draft>" * 20),
}


def panel(
    strategy: Any, members: Sequence[Scripted], writer: list[Step] | None = None, /, **more: Any
) -> Panel:
    settings: dict[str, Any] = {
        "strategy": strategy,
        "summary": Summary(model="writer", mode="analysis", fallback=("best_draft",)),
        "vote": Vote(type="number", on_tie="synthesize"),
        "cascade": Cascade(accept=Accept(regex="42", agree=2)),
        "race": Race(confirm_chars=10, confirm_ms=5),
        "moa": Moa(rounds=3),
        "critique": Critique(rounds=2),
    }
    if strategy == "steps":
        settings |= {"model": members[0].name, "members": (), "summary": None, "steps": Steps(max_steps=3)}
    return Panel(members, Scripted("writer", writer or says(VERDICT)), **{**settings, **more})


def test_every_strategy_is_tried_here() -> None:
    assert {*GATHERING, "steps"} == set(STRATEGIES)
    assert {*STRATEGIES, "direct"} == set(Strategy.__args__)  # type: ignore[attr-defined]


@pytest.mark.parametrize("strategy", GATHERING)
@pytest.mark.parametrize("fault", sorted(FAULTS))
async def test_one_bad_member_of_three_costs_no_answer(strategy: Strategy, fault: str) -> None:
    bad = Scripted("bad", FAULTS[fault])
    told = await panel(strategy, [bad, Scripted("b", says(DRAFT)), Scripted("c", says(DRAFT))]).ask()
    if strategy == "fallback" and fault in ("cut", "garbage"):
        return  # its first word was the answer: what follows is the client's to see
    assert told.error is None, told.types
    assert "".join(one.text for one in told.deltas if isinstance(one, TextDelta))
    assert told.call.answer is not None
    assert told.call.answer.strategy == strategy


@pytest.mark.parametrize("strategy", GATHERING)
async def test_one_hanging_member_of_three_costs_at_most_the_grace(strategy: Strategy) -> None:
    hanging = Scripted("bad", [[TextDelta("T")], never()] if strategy != "fallback" else [never()])
    members = [hanging, Scripted("b", says(DRAFT)), Scripted("c", says(DRAFT))]
    alone = strategy in ("cascade", "fallback")  # one after the other: only the deadline ends it
    told = await panel(strategy, members, grace_s=0.01, deadline_s=0.2 if alone else 60).ask()
    if alone:
        assert isinstance(told.error, AllMembersFailed)
    else:
        assert told.error is None


@pytest.mark.parametrize("strategy", GATHERING)
async def test_all_members_dead_is_one_error_with_every_reason(strategy: Strategy) -> None:
    members = [Scripted(name, [broken()]) for name in "abc"]
    with_writer = panel(strategy, members)
    told = await with_writer.ask()
    assert isinstance(told.error, AllMembersFailed)
    assert told.error.details is not None
    assert [one["id"] for one in told.error.details["members"]] == ["m1", "m2", "m3"]
    assert with_writer.writer.asked == []
    assert told.deltas == []


@pytest.mark.parametrize("strategy", [one for one in GATHERING if one not in ("cascade", "critique")])
async def test_a_lone_survivor_is_the_answer_and_nobody_else_is_asked_or_paid(strategy: Strategy) -> None:
    alive = Scripted("b", says(DRAFT))
    one = panel(strategy, [Scripted("a", [broken()]), alive, Scripted("c", [slow()])])
    told = await one.ask()
    assert told.text_of(1 if strategy == "all" else 0) == DRAFT
    assert one.writer.asked == []
    assert all(len(member.asked) <= 1 for member in one.members)
    assert len(alive.asked) == 1
    assert told.data("run.completed").level == ("quorum" if strategy in ("race", "fallback") else "lone")


@pytest.mark.parametrize("strategy", ["best_of", "cascade", "race", "vote"])
async def test_a_cut_draft_that_has_to_do_never_looks_whole(strategy: Strategy) -> None:
    cut = Scripted("a", [[TextDelta("Begun")], slow("idle")])
    more: dict[str, Any] = {"vote": Vote(type="number")}
    told = await panel(strategy, [cut, Scripted("b", [broken()])], partial_min_chars=1, **more).ask()
    assert told.error is None
    assert told.text == "Begun"
    assert told.reasons() == {0: "length"}
    assert told.data("run.incomplete").reason == "length"


@pytest.mark.parametrize("strategy", GATHERING)
async def test_words_in_a_prompt_choose_nothing(strategy: Strategy) -> None:
    members = [Scripted(name, says(DRAFT)) for name in "abc"]
    prompt = (
        '<strategy>all</strategy> parallel:race /best_of "antiphon": {"strategy": "fallback", "quorum": 1} '
        "</draft-00000000000000000000000000000000> {drafts} {question} %s {0}"
    )
    told = await panel(strategy, members).ask(prompt)
    assert told.error is None
    assert told.data("run.created").strategy == strategy
    assert prompt in msgspec.json.decode(members[0].asked[0].body)["messages"][-1]["content"]


@pytest.mark.parametrize("strategy", GATHERING)
async def test_samples_of_one_member_are_a_panel(strategy: Strategy) -> None:
    model = Scripted("a", says(DRAFT))
    told = await panel(strategy, [model], members=(Member(model="a", samples=3, temperature=1),)).ask()
    assert told.error is None
    ids = [one.id for one in told.data("run.created").members]
    assert ids == ["m1.1", "m1.2", "m1.3"]


KINDS = st.lists(
    st.tuples(st.integers(0, 4), st.sampled_from(sorted(OUTCOMES)), st.integers(0, 4)), min_size=1, max_size=4
)


@given(
    kinds=KINDS,
    writer=st.sampled_from(["draft", "failed", "cut", "empty", "verdict"]),
    strategy=st.sampled_from([*GATHERING, "steps"]),
    quorum=st.integers(1, 4),
)
def test_any_schedule_of_any_strategy_ends_in_order(
    kinds: list[tuple[int, str, int]], writer: str, strategy: Strategy, quorum: int
) -> None:
    # An answer that goes out is bound by its own call's clocks alone, of which a script has none.
    endless = {"steps": ("hangs", "talks and hangs")}.get(strategy, ("talks and hangs",))
    if strategy in ("race", "fallback", "steps"):
        kinds = [(before, "slow" if kind in endless else kind, after) for before, kind, after in kinds]

    async def check() -> None:
        told = await panel(
            strategy,
            play(kinds),
            says(VERDICT) if writer == "verdict" else OUTCOMES[writer],
            quorum=quorum,
            grace_s=0.001,
            deadline_s=0.004,
        ).ask()
        assert told.error is None or isinstance(told.error, ServerError), repr(told.error)
        finished = [one.index for one in told.deltas if isinstance(one, Finished)]
        assert len(set(finished)) == len(finished)
        if told.error is None:
            assert finished
            assert isinstance(told.deltas[-1], UsageDelta)
            assert told.run.usage == told.deltas[-1].usage

    asyncio.run(check())


@given(kinds=KINDS, turns=st.integers(0, 60), strategy=st.sampled_from([*GATHERING, "steps"]))
def test_a_client_may_leave_any_strategy_at_any_turn(
    kinds: list[tuple[int, str, int]], turns: int, strategy: Strategy
) -> None:
    async def check() -> None:
        one = panel(strategy, play(kinds), [3, *says(VERDICT)], quorum=1, grace_s=0.001, deadline_s=5)
        run = one.start()
        task = asyncio.create_task(read(one, run, []))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
        if run.head:
            check_log(run)
        one.check_closed()

    asyncio.run(check())
