"""Strategies ``race`` and ``fallback``: one member's answer, live, and nothing glued to it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from server.deltas import Finished, Opening, TextDelta, ToolCallDelta
from server.errors import AllMembersFailed, ContentFiltered, UpstreamError, UpstreamRefused
from server.settings import Member
from server.strategy_settings import Fallback, Race
from tests.coordinator.panel import Panel, Scripted, broken, never, says, slow

LONG = "This is long enough to be sure of. "
EAGER = Race(confirm_chars=5)


def racing(*members: Scripted, **settings: Any) -> Panel:
    settings.setdefault("race", EAGER)
    return Panel(members, strategy="race", **settings)


def falling(*members: Scripted, **settings: Any) -> Panel:
    return Panel(members, strategy="fallback", **settings)


async def test_the_first_healthy_member_is_the_answer_and_the_rest_are_cancelled() -> None:
    loser = Scripted("b", [[TextDelta("b")], never()])
    told = await racing(Scripted("a", [20, *says(LONG, "More.")]), loser).ask()
    assert told.text == LONG + "More."
    assert told.reasons() == {0: "stop"}
    assert told.data("model.cancelled").reason == "lost_race"
    decision = told.data("decision.made")
    assert (decision.method, decision.winner) == ("race", "m1")
    end = told.data("run.completed")
    assert (end.answer_by, end.level, end.used) == ("m1", "none", ("m1",))
    stage = told.data("stage.finished")
    assert (stage.ended_by, stage.cancelled) == ("winner", 1)
    assert told.run.lanes["m1"].answer
    assert not told.run.lanes["m2"].answer


async def test_who_opens_first_but_says_nothing_does_not_win() -> None:
    opener = Scripted("a", [[Opening()], never()])
    told = await racing(opener, Scripted("b", [30, *says(LONG)])).ask()
    assert told.text == LONG


async def test_a_short_whole_answer_wins_though_it_is_shorter_than_the_proof() -> None:
    told = await racing(Scripted("a", says("4")), Scripted("b", [never()]), race=Race()).ask()
    assert told.text == "4"


async def test_a_few_words_that_stand_for_long_enough_win() -> None:
    gate = never()
    quiet = Scripted("a", [[TextDelta("Hm")], gate, [TextDelta("!")], [Finished("stop")]])
    panel = racing(quiet, Scripted("b", [never()]), race=Race(confirm_chars=1000, confirm_ms=1))
    run = panel.start()

    async def open_gate() -> None:
        async for event in run.after(0):
            if event.type == "decision.made":
                gate.set()

    panel.start = lambda model="panel": run  # type: ignore[method-assign]
    async with asyncio.TaskGroup() as group:
        group.create_task(open_gate())
        told = await panel.ask()
    assert told.text == "Hm!"


@pytest.mark.parametrize(
    "bad",
    [
        [[TextDelta('{"error": {"message": "no"}}')], [Finished("stop")]],
        [[TextDelta("Error: 401 from the upstream")], [Finished("stop")]],
        says(),
        says("no", reason="content_filter"),
        [broken()],
        [ContentFiltered("No.")],
    ],
    ids=["error-json", "error-text", "empty", "filtered", "dead", "refused"],
)
async def test_errors_refusals_and_empty_answers_never_win(bad: Any) -> None:
    told = await racing(Scripted("a", bad), Scripted("b", [50, *says(LONG)]), race=Race()).ask()
    assert told.text == LONG
    assert told.data("run.completed").level == "quorum"
    assert told.data("run.degraded").members == ("m1",)
    assert told.data("model.failed").code


async def test_a_winner_that_is_cut_is_the_clients_to_see_and_nothing_is_glued_on() -> None:
    told = await racing(Scripted("a", [[TextDelta(LONG)], broken()]), Scripted("b", [never()])).ask()
    assert isinstance(told.error, UpstreamError)
    assert told.text == LONG
    assert told.reasons() == {}
    assert "run.failed" in told.types


async def test_nobody_in_time_is_504() -> None:
    told = await racing(Scripted("a", [never()]), Scripted("b", [slow()]), deadline_s=0.03).ask()
    assert isinstance(told.error, AllMembersFailed)
    assert told.error.status == 504
    assert told.data("stage.deadline_reached").drafts == 0


async def test_all_failed_names_everybody() -> None:
    told = await racing(Scripted("a", [broken()]), Scripted("b", says())).ask()
    assert isinstance(told.error, AllMembersFailed)
    assert told.error.details is not None
    assert [one["code"] for one in told.error.details["members"]] == ["upstream_error", "upstream_empty"]


async def test_a_hedge_starts_the_next_member_only_when_the_first_is_silent() -> None:
    first = Scripted("a", says(LONG))
    second = Scripted("b", says("never asked"))
    told = await racing(first, second, race=Race(hedge_after=60_000)).ask()
    assert told.text == LONG
    assert second.asked == []
    assert told.data("model.skipped").reason == "not_needed"

    second = Scripted("b", says(LONG))
    told = await racing(Scripted("a", [never()]), second, race=Race(hedge_after=10)).ask()
    assert told.text == LONG
    hedged = told.data("model.hedged")
    assert (hedged.after_ms, hedged.next) == (10, "m2")


async def test_a_hedged_race_goes_on_at_once_when_the_first_fails() -> None:
    second = Scripted("b", says(LONG))
    told = await racing(Scripted("a", [broken()]), second, race=Race(hedge_after=600_000)).ask()
    assert told.text == LONG
    assert "model.hedged" not in told.types


async def test_p95_waits_two_seconds_while_little_is_known() -> None:
    panel = racing(Scripted("a", says(LONG)), Scripted("b", says(LONG)), race=Race(hedge_after="p95"))
    assert (await panel.ask()).text == LONG
    assert panel.members[1].asked == []


async def test_tools_pass_as_they_are_and_a_tool_call_wins() -> None:
    call = ToolCallDelta(0, "call_1", "look", "{}")
    panel = racing(Scripted("a", [[Opening(), call], [Finished("tool_calls")]]), Scripted("b", [never()]))
    tools = [{"type": "function", "function": {"name": "look"}}]
    told = await panel.ask(tools=tools, tool_choice="auto")
    assert call in told.deltas
    assert told.reasons() == {0: "tool_calls"}
    assert panel.members[0].body["tools"] == tools
    assert panel.members[0].body["tool_choice"] == "auto"


async def test_samples_race_too() -> None:
    panel = racing(Scripted("a", says(LONG)), members=(Member(model="a", samples=2, temperature=1),))
    told = await panel.ask()
    assert told.text == LONG
    assert told.data("run.completed").answer_by in ("m1.1", "m1.2")


async def test_fallback_asks_in_order_and_only_until_one_answers() -> None:
    third = Scripted("c", says("three"))
    told = await falling(Scripted("a", [broken()]), Scripted("b", says("tw", "o")), third).ask()
    assert told.text == "two"
    assert third.asked == []
    assert told.data("model.skipped", "m3").reason == "not_needed"
    end = told.data("run.completed")
    assert (end.answer_by, end.level) == ("m2", "quorum")


async def test_fallback_relays_the_first_word_at_once() -> None:
    told = await falling(Scripted("a", [[TextDelta("o")], broken()]), Scripted("b", says("two"))).ask()
    assert told.text == "o"
    assert isinstance(told.error, UpstreamError)


async def test_fallback_does_not_repeat_a_request_that_is_at_fault() -> None:
    refused = UpstreamRefused("Bad request.", upstream_status=400)
    second = Scripted("b", says("two"))
    told = await falling(Scripted("a", [refused]), second).ask()
    assert told.error is refused
    assert second.asked == []


@pytest.mark.parametrize("code", [None, "model_not_found"])
async def test_fallback_goes_on_where_a_model_is_gone(code: str | None) -> None:
    gone = UpstreamRefused("The model `a` does not exist.", status=404, upstream_status=404, code=code)
    told = await falling(Scripted("a", [gone]), Scripted("b", says("two"))).ask()
    assert told.text == "two"
    assert told.data("run.completed").level == "quorum"
    nobody = await falling(Scripted("a", [gone]), Scripted("b", [gone])).ask()
    assert isinstance(nobody.error, AllMembersFailed)
    assert nobody.error.status == 502, "the client named the combination, which there is"


@pytest.mark.parametrize(
    ("after", "goes_on"), [(("upstream", "content_filter"), True), (("upstream",), False)]
)
async def test_fallback_after_moderation_is_the_configurations_to_say(after: Any, goes_on: bool) -> None:
    told = await falling(
        Scripted("a", [ContentFiltered("No.", upstream_status=400)]),
        Scripted("b", says("two")),
        fallback=Fallback(move_on_after=after),
    ).ask()
    assert (told.text == "two") is goes_on
    assert isinstance(told.error, ContentFiltered) is not goes_on


async def test_fallback_takes_several_choices() -> None:
    steps: list[Any] = [[TextDelta("x", 0), TextDelta("y", 1)], [Finished("stop", 0), Finished("stop", 1)]]
    panel = falling(Scripted("a", steps))
    told = await panel.ask(n=2)
    assert (told.text_of(0), told.text_of(1)) == ("x", "y")
    assert panel.members[0].body["n"] == 2


async def test_a_prefilled_answer_may_race() -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert (await racing(Scripted("a", says(LONG))).ask(messages=turns)).text == LONG


async def test_a_fallback_that_runs_out_of_time_names_all_that_it_asked() -> None:
    last = Scripted("c", says("Too late."))
    told = await falling(Scripted("a", [broken()]), Scripted("b", [never()]), last, deadline_s=0.05).ask()
    assert isinstance(told.error, AllMembersFailed)
    assert told.error.details is not None
    assert [one["code"] for one in told.error.details["members"]] == ["upstream_error", "cancelled"]
    assert not last.asked
