"""What of a member's stream is a draft, and what is a failure or a bug."""

from __future__ import annotations

from server.deltas import TextDelta
from tests.coordinator.panel import (
    Panel,
    Scripted,
    broken,
    never,
    refusal,
    says,
    slow,
)

LONG = "word " * 60


async def test_a_short_cut_draft_is_dropped() -> None:
    straggler = Scripted("c", [[TextDelta("too short")], never()])
    panel = Panel([Scripted("a", says("one")), Scripted("b", says("two")), straggler], grace_s=0.01)
    told = await panel.ask()
    assert told.data("model.cancelled").partial is False
    assert told.data("run.completed").level == "quorum"
    assert "too short" not in panel.writer.body["messages"][-1]["content"]


async def test_a_single_cut_draft_is_summarised_and_never_passed_on_as_an_answer() -> None:
    panel = Panel([Scripted("a", [[TextDelta(LONG)], slow("idle")]), Scripted("b", [broken()])])
    told = await panel.ask()
    assert told.text == "The answer."
    assert told.data("run.completed").level == "partial"
    assert told.data("model.failed", "m1").partial is True


async def test_a_lone_refusal_stays_a_refusal() -> None:
    panel = Panel([Scripted("a", [refusal("I will not."), *says()]), Scripted("b", [broken()])])
    told = await panel.ask()
    assert told.text == ""
    assert any(type(one).__name__ == "RefusalDelta" for one in told.deltas)


async def test_a_moderated_member_is_a_failure() -> None:
    panel = Panel([Scripted("a", says(reason="content_filter")), Scripted("b", says("two"))])
    told = await panel.ask()
    assert told.data("model.failed").code == "content_filter"
    assert told.text == "two"


async def test_a_draft_that_is_not_the_json_that_was_asked_for_is_none() -> None:
    panel = Panel([Scripted("a", says("sorry, no")), Scripted("b", says('{"x": 1}'))])
    told = await panel.ask(response_format={"type": "json_object"})
    assert told.data("model.failed").code == "invalid_draft"
    assert told.text == '{"x": 1}'


async def test_a_bug_in_a_member_surfaces_and_cancels_its_siblings() -> None:
    sibling = Scripted("b", [never()])
    panel = Panel([Scripted("a", [ZeroDivisionError("a mistake")]), sibling])
    told = await panel.ask()
    assert isinstance(told.error, ZeroDivisionError)
    assert told.data("model.failed").code == "internal_error"
    assert told.data("model.cancelled").reason == "failed"
    assert told.data("run.failed").error.code == "internal_error"
    assert sibling.open == 0
