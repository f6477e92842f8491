"""How a combination answers, rung by rung: what the client gets and what the run tells."""

from __future__ import annotations

import pytest
from msgspec import UNSET

from server.coordinator import Combination, answer
from server.deltas import ReasoningDelta, RefusalDelta, TextDelta, Usage, UsageDelta
from server.errors import AllMembersFailed, InvalidRequest
from server.settings import Combination as CombinationSettings
from server.settings import Member, Summary
from server.upstreams.base import Call
from tests.coordinator.panel import (
    Owner,
    Panel,
    Scripted,
    broken,
    check_log,
    never,
    reasoning,
    refusal,
    request,
    says,
    slow,
)

LONG = "word " * 60


async def test_all_members_draft_and_the_summary_writes_the_one_answer() -> None:
    panel = Panel([Scripted(f"a{n}", says(f"draft {n}", usage=Usage(10, n, 10 + n))) for n in (1, 2, 3)])
    panel.writer.steps = says("The ", "answer.", usage=Usage(100, 5, 105))
    told = await panel.ask()
    assert told.error is None
    assert told.text == "The answer."
    assert told.reasons() == {0: "stop"}
    assert told.types[0:3] == ["run.created", "run.in_progress", "stage.started"]
    assert told.types[-7:] == [
        "stage.finished",
        "stage.started",
        "summary.started",
        "summary.first_token",
        "summary.finished",
        "stage.finished",
        "run.completed",
    ]
    end = told.data("run.completed")
    assert (end.answer_by, end.level, end.used) == ("summary", "none", ("m1", "m2", "m3"))
    assert (end.usage.prompt_tokens, end.usage.completion_tokens) == (130, 11)
    assert end.timings.quorum_ms is not UNSET
    usage = [one.usage for one in told.deltas if isinstance(one, UsageDelta)]
    assert usage == [Usage(130, 11, 141)]
    assert told.run.usage == usage[0]
    assert told.call.answer is not None
    assert [one.id for one in told.call.answer.members] == ["m1", "m2", "m3", "summary"]
    content = panel.writer.body["messages"][-1]["content"]
    assert all(f"draft {n}" in content for n in (1, 2, 3))
    assert content.rstrip().endswith("Why?")


async def test_a_failed_member_is_survived_within_the_quorum() -> None:
    panel = Panel([Scripted("a", says("one")), Scripted("b", [broken()]), Scripted("c", says("three"))])
    told = await panel.ask()
    assert told.text == "The answer."
    assert told.data("run.degraded").level == "quorum"
    assert told.data("run.degraded").members == ("m2",)
    assert told.data("model.failed").code == "upstream_error"
    assert told.data("model.failed").http_status == 500
    assert told.data("run.completed").used == ("m1", "m3")


async def test_fewer_drafts_than_the_quorum_are_a_partial_panel() -> None:
    failing = [Scripted(f"b{n}", [broken()]) for n in (1, 2)]
    panel = Panel([Scripted("a", says("one")), Scripted("c", says("two")), *failing])
    told = await panel.ask()
    assert told.text == "The answer."
    assert told.data("run.completed").level == "partial"


async def test_a_lone_survivor_passes_word_for_word_without_a_summary() -> None:
    panel = Panel(
        [
            Scripted("a", [broken()]),
            Scripted("b", says("only ", "me", reason="length")),
            Scripted("c", [slow()]),
        ]
    )
    told = await panel.ask()
    assert told.text == "only me"
    assert told.reasons() == {0: "length"}
    assert panel.writer.asked == []
    assert told.data("decision.made").winner == "m2"
    assert told.data("run.incomplete").answer_by == "m2"
    assert told.data("run.incomplete").level == "lone"
    assert told.run.lanes["m2"].answer
    assert not told.run.lanes["m1"].answer


async def test_a_straggler_is_cancelled_after_the_grace_and_its_text_is_a_marked_draft() -> None:
    straggler = Scripted("c", [[TextDelta(LONG)], never()])
    panel = Panel([Scripted("a", says("one")), Scripted("b", says("two")), straggler], grace_s=0.01)
    told = await panel.ask()
    assert told.text == "The answer."
    types = told.types
    assert (
        types.index("stage.quorum_reached") < types.index("model.cancelled") < types.index("stage.finished")
    )
    cut = told.data("model.cancelled")
    assert (cut.reason, cut.partial, cut.chars) == ("quorum", True, len(LONG))
    assert cut.usage.estimated is True
    stage = next(event.data for event in told.events if event.type == "stage.finished")
    assert (stage.ended_by, stage.drafts, stage.partial, stage.cancelled) == ("quorum", 2, 1, 1)  # type: ignore[attr-defined]
    assert told.data("summary.started").truncated == ("m3",)
    assert told.data("run.completed").level == "partial"
    assert told.data("run.completed").used == ("m1", "m2", "m3")
    assert 'state="truncated"' in panel.writer.body["messages"][-1]["content"]


async def test_the_deadline_ends_the_stage_and_what_is_there_is_answered_from() -> None:
    panel = Panel(
        [Scripted("a", says("one")), Scripted("b", [never()]), Scripted("c", [never()])], deadline_s=0.05
    )
    told = await panel.ask()
    assert told.text == "one"
    assert told.data("stage.deadline_reached").drafts == 1
    assert told.data("run.completed").level == "lone"
    assert [event.data.reason for event in told.events if event.type == "model.cancelled"] == [  # type: ignore[attr-defined]
        "deadline",
        "deadline",
    ]


async def test_nobody_waits_for_the_grace_when_all_have_an_outcome() -> None:
    panel = Panel(
        [Scripted("a", says("one")), Scripted("b", says("two")), Scripted("c", [broken()])], grace_s=900
    )
    told = await panel.ask()
    assert told.text == "The answer."


async def test_no_draft_at_all_is_one_error_with_every_reason_and_no_summary_call() -> None:
    panel = Panel([Scripted("a", [broken()]), Scripted("b", [slow()]), Scripted("c", says())])
    told = await panel.ask()
    assert isinstance(told.error, AllMembersFailed)
    assert (told.error.status, told.error.code) == (502, "all_members_failed")
    assert told.error.details is not None
    assert {one["id"]: one["code"] for one in told.error.details["members"]} == {
        "m1": "upstream_error",
        "m2": "upstream_timeout_first_token",
        "m3": "upstream_empty",
    }
    assert told.deltas == []
    assert panel.writer.asked == []
    failed = told.data("run.failed")
    assert [one.code for one in failed.members] == [
        "upstream_error",
        "upstream_timeout_first_token",
        "upstream_empty",
    ]


async def test_all_too_slow_is_504() -> None:
    panel = Panel([Scripted("a", [slow()]), Scripted("b", [never()])], deadline_s=0.02)
    told = await panel.ask()
    assert isinstance(told.error, AllMembersFailed)
    assert told.error.status == 504


async def test_fewer_drafts_than_min_success_is_an_error() -> None:
    panel = Panel(
        [Scripted("a", says("one")), Scripted("b", [broken()]), Scripted("c", [broken()])], min_success=2
    )
    told = await panel.ask()
    assert isinstance(told.error, AllMembersFailed)
    assert told.error.code == "too_few_drafts"
    assert told.deltas == []


async def test_all_gives_every_draft_as_a_choice_at_its_members_place() -> None:
    panel = Panel(
        [
            Scripted("a", says("one ", "uno", usage=Usage(1, 2, 3))),
            Scripted("b", [broken()]),
            Scripted("c", [[TextDelta("cut off")], slow("idle")]),
            Scripted("d", says("four", usage=Usage(1, 2, 3))),
        ],
        strategy="all",
    )
    told = await panel.ask()
    assert told.error is None
    assert [told.text_of(n) for n in range(4)] == ["one uno", "", "cut off", "four"]
    assert told.reasons() == {0: "stop", 2: "error", 3: "stop"}
    assert panel.writer.asked == []
    assert told.data("run.completed").answer_by == "m1"
    assert told.call.answer is not None
    assert [(one.id, one.state) for one in told.call.answer.members] == [
        ("m1", "finished"),
        ("m2", "failed"),
        ("m3", "failed"),
        ("m4", "finished"),
    ]


async def test_choices_carry_reasoning_and_refusals_too() -> None:
    panel = Panel(
        [Scripted("a", [reasoning("hm"), *says("one")]), Scripted("b", [refusal("No."), *says()])],
        strategy="all",
    )
    told = await panel.ask()
    assert ReasoningDelta("hm", 0) in told.deltas
    assert RefusalDelta("No.", 1) in told.deltas


async def test_all_members_failed_is_an_error_with_strategy_all_too() -> None:
    told = await Panel([Scripted("a", [broken()]), Scripted("b", [broken()])], strategy="all").ask()
    assert isinstance(told.error, AllMembersFailed)


async def test_a_straggler_among_choices_ends_with_error() -> None:
    panel = Panel(
        [Scripted("a", says("one")), Scripted("b", [[TextDelta("tw")], never()])],
        strategy="all",
        quorum=1,
        grace_s=0.01,
    )
    told = await panel.ask()
    assert told.reasons() == {0: "stop", 1: "error"}
    assert told.data("run.completed").level in ("lone", "quorum")


async def test_samples_are_calls_of_their_own() -> None:
    model = Scripted("a", says("same"))
    panel = Panel([model], members=(Member(model="a", samples=3, temperature=0.9),))
    told = await panel.ask()
    assert len(model.asked) == 3
    assert [one.id for one in told.data("run.created").members] == ["m1.1", "m1.2", "m1.3"]
    assert model.body["temperature"] == 0.9


async def test_a_combination_within_a_combination_has_a_run_of_its_own() -> None:
    one = Usage(1, 1, 2)
    inside = [Scripted("x", says("ix", usage=one)), Scripted("y", says("iy", usage=one))]
    inner_writer = Scripted("inner-writer", says("inner", usage=Usage(2, 2, 4)))
    panel = Panel(
        [Scripted("a", says("one", usage=one))],
        others=[*inside, inner_writer],
        members=(Member(model="a"), Member(model="nested")),
    )
    settings = CombinationSettings(
        name="nested",
        members=(Member(model="x"), Member(model="y")),
        summary=Summary(model="inner-writer"),
    )
    panel.upstreams["nested"] = Combination(settings, panel.find, panel.tasks)
    told = await panel.ask()
    assert told.error is None
    assert told.data("model.finished", "m2").usage.prompt_tokens == 4
    (child,) = [run for run in panel.runs.page(Owner(admin=True))[0] if run is not told.run]
    check_log(child)
    assert child.events_after(0)[0].data.parent == told.run.id  # type: ignore[attr-defined]
    assert child.status == "completed"
    assert inside[0].calls[0].depth == 2
    assert "inner" in panel.writer.body["messages"][-1]["content"]


async def test_deeper_nesting_than_two_is_refused() -> None:
    panel = Panel([Scripted("a", says("one"))])
    run = panel.start()
    with pytest.raises(InvalidRequest, match="2 deep") as caught:
        answer(run, panel.combination, request(), Call(depth=2))
    assert caught.value.code == "recursion_limit"
    check_log(run)
