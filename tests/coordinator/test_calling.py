"""Members that call tools: the calls that most want are the answer, else their drafts are set aside."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.coordinator import Combination
from server.deltas import Delta, Finished, Opening, TextDelta, ToolCallDelta
from server.errors import AllMembersFailed, InvalidRequest, ServerError
from server.settings import Combination as CombinationSettings
from server.settings import Member, Strategy, Summary
from server.strategy_settings import Accept, Cascade, Steps
from tests.coordinator.panel import Panel, Scripted, Step, Told, broken, never, says
from tests.coordinator.test_every_strategy import GATHERING, VERDICT, panel
from tests.coordinator.test_summary import TOOL_TURNS
from tests.coordinator.test_tool_calls import NOW, WEATHER

TOOLS = [WEATHER, NOW]
PARIS, ROME = '{"city": "Paris"}', '{"city": "Rome"}'
WEIGHING: list[Strategy] = [one for one in GATHERING if one not in ("race", "fallback", "all", "cascade")]


def calls(arguments: str = PARIS, *, name: str = "weather", id: str = "c1", text: str = "") -> list[Step]:
    """A member that calls one tool, its arguments in two pieces."""
    half = len(arguments) // 2
    said: list[Delta] = [TextDelta(text)] if text else []
    return [
        [Opening()],
        [*said, ToolCallDelta(0, id, name, arguments[:half])],
        [ToolCallDelta(0, arguments=arguments[half:])],
        [Finished("tool_calls")],
    ]


def called(told: Told, choice: int = 0) -> list[tuple[str | None, str | None, str]]:
    found = [one for one in told.deltas if isinstance(one, ToolCallDelta) and one.index == choice]
    return [(one.id, one.name, one.arguments) for one in found]


async def ask(one: Panel, **fields: Any) -> Told:
    return await one.ask(tools=TOOLS, **fields)


@pytest.mark.parametrize("strategy", WEIGHING)
async def test_calls_that_most_agree_on_go_out_as_their_member_made_them(strategy: Strategy) -> None:
    members = [
        Scripted("a", calls(ROME, id="rome")),
        Scripted("b", calls('{"city":"Paris"}', id="first")),
        Scripted("c", calls(PARIS, id="second")),
    ]
    one = panel(strategy, members)
    told = await ask(one)
    assert told.error is None
    assert called(told) == [("first", "weather", '{"city":"Paris"}')]
    assert told.reasons() == {0: "tool_calls"}
    assert told.text == ""
    assert one.writer.asked == []
    decision = told.data("decision.made")
    assert (decision.method, decision.winner) == ("tools", "m2")
    assert decision.tallies == {"calls.1": 2, "calls.2": 1}
    assert told.data("run.completed").level == "none"
    assert told.data("run.completed").finish_reason == "tool_calls"
    assert told.call.answer is not None
    assert told.call.answer.agreement == pytest.approx(2 / 3, abs=1e-4)


async def test_members_get_the_tools_and_the_summary_does_not() -> None:
    one = panel("synthesize", [Scripted(name, says(name)) for name in "abc"])
    told = await ask(one, messages=TOOL_TURNS, tool_choice="auto", parallel_tool_calls=False)
    assert told.error is None
    body = one.members[0].body
    assert (body["tools"], body["tool_choice"], body["parallel_tool_calls"]) == (TOOLS, "auto", False)
    assert body["messages"] == TOOL_TURNS
    assert not {"tools", "tool_choice", "parallel_tool_calls"} & one.writer.body.keys()
    assert {turn["role"] for turn in one.writer.body["messages"]} == {"system", "user", "assistant"}


@pytest.mark.parametrize("strategy", WEIGHING)
async def test_where_most_answer_in_words_calls_are_set_aside(strategy: Strategy) -> None:
    members = [Scripted("a", says("one\n1")), Scripted("b", calls()), Scripted("c", says("one\n1"))]
    told = await ask(panel(strategy, members))
    assert told.error is None
    assert called(told) == []
    assert told.text
    assert told.data("run.completed").level in ("quorum", "no_analysis")
    first = next(event.data for event in told.events if event.type == "run.degraded")
    assert (first.level, first.reason, first.members) == ("quorum", "set_aside", ("m2",))  # type: ignore[attr-defined]


async def test_half_is_not_most() -> None:
    told = await ask(Panel([Scripted("a", calls()), Scripted("b", says("words"))], min_success=2))
    assert told.text == "words"
    assert told.data("run.completed").level == "lone"


async def test_weights_decide_who_are_most_and_whose_calls_they_are() -> None:
    members = [Scripted("a", says("words")), Scripted("b", calls(ROME)), Scripted("c", calls(PARIS))]
    told = await ask(Panel(members, weights=(3, 1, 1)))
    assert told.text == "words"
    told = await ask(Panel(members, weights=(1, 1, 2)))
    assert called(told)[0][2] == PARIS
    told = await ask(Panel(members, weights=(1, 1, 1)))
    assert called(told)[0][2] == ROME
    assert told.data("decision.made").tie_broken_by == "weight"
    assert told.data("decision.made").abstained == ("m1",)


@pytest.mark.parametrize(
    "wrong",
    [
        calls('{"city": 1}'),
        calls("{}"),
        calls('{"city": "Par'),
        calls(PARIS, name="unknown"),
        calls("[" * 4000, name="now"),
    ],
    ids=["a wrong type", "a missing field", "cut arguments", "no such tool", "absurd nesting"],
)
async def test_a_call_that_is_not_offered_so_is_no_draft(wrong: list[Step]) -> None:
    told = await ask(Panel([Scripted("a", wrong), Scripted("b", calls()), Scripted("c", calls())]))
    assert called(told) == [("c1", "weather", PARIS)]
    assert told.data("model.failed").code == "invalid_draft"
    assert told.data("run.completed").level == "quorum"
    told = await ask(Panel([Scripted("a", wrong), Scripted("b", wrong)]))
    assert isinstance(told.error, AllMembersFailed)
    assert told.deltas == []


async def test_text_beside_a_call_goes_out_with_it() -> None:
    told = await ask(Panel([Scripted("a", calls(text="Let me look."))]))
    assert told.text == "Let me look."
    assert called(told) == [("c1", "weather", PARIS)]
    assert told.data("run.completed").level == "lone"


async def test_words_are_no_draft_where_a_call_is_needed() -> None:
    members = [Scripted("a", says("words")), Scripted("b", says("words")), Scripted("c", calls())]
    told = await ask(Panel(members), tool_choice="required")
    assert called(told)
    assert told.data("model.failed", "m1").code == "invalid_draft"


async def test_a_call_that_broke_off_is_no_draft_however_much_was_said() -> None:
    half: list[Step] = [[TextDelta("word " * 60), ToolCallDelta(0, "c", "weather", '{"ci')], broken()]
    hangs: list[Step] = [[TextDelta("word " * 60), ToolCallDelta(0, "c", "weather", '{"ci')], never()]
    members = [Scripted("a", half), Scripted("b", says("words")), Scripted("c", hangs)]
    told = await ask(Panel(members, quorum=1, grace_s=0.01))
    assert told.text == "words"
    assert told.data("model.failed").partial is False
    assert told.data("model.cancelled").partial is False


async def test_moa_may_call_in_a_later_round() -> None:
    class Later(Scripted):
        async def stream(self, chat: Any, call: Any) -> Any:
            self.steps = calls() if self.asked else says("words")
            async for batch in super().stream(chat, call):
                yield batch

    one = panel("moa", [Later(name, []) for name in "abc"])
    told = await ask(one)
    assert called(told) == [("c1", "weather", PARIS)]
    assert told.data("run.completed").answer_by == "m1.r2"


async def test_all_gives_each_member_a_choice_of_its_own_calls() -> None:
    told = await ask(panel("all", [Scripted("a", calls()), Scripted("b", says("words"))]))
    assert "".join(arguments for _, _, arguments in called(told)) == PARIS
    assert told.text_of(1) == "words"
    assert told.reasons() == {0: "tool_calls", 1: "stop"}


async def test_a_cascade_takes_valid_calls_and_with_agree_wants_them_twice() -> None:
    members = [Scripted("a", calls(ROME)), Scripted("b", calls(PARIS)), Scripted("c", calls(PARIS, id="c2"))]
    told = await ask(panel("cascade", members, cascade=Cascade(accept=Accept(regex="4"))))
    assert called(told) == [("c1", "weather", ROME)]
    told = await ask(panel("cascade", members, cascade=Cascade(accept=Accept(agree=2))))
    assert called(told) == [("c2", "weather", PARIS)]
    told = await ask(panel("cascade", members[:2], cascade=Cascade(accept=Accept(agree=2))))
    assert called(told) == [("c1", "weather", ROME)]
    assert told.data("run.completed").level == "best_draft"


async def test_a_member_known_to_call_no_tools_advises_in_words() -> None:
    plain = Scripted("plain", says("Call weather for Paris."))
    plain.tools = False
    one = Panel([plain, Scripted("b", calls()), Scripted("c", calls())])
    told = await ask(one, messages=TOOL_TURNS)
    assert called(told)
    assert "tools" not in plain.body
    assert "Tools cannot be called here" in plain.body["messages"][0]["content"]
    for member in one.members:
        member.tools = False
    told = await ask(one)
    assert isinstance(told.error, InvalidRequest)
    assert told.error.param == "tools"
    assert len(plain.asked) == 1, "nobody was asked in vain"


async def test_steps_get_no_tools_and_their_answer_does() -> None:
    thought = '{"title": "t", "content": "c", "next_action": "final_answer"}'
    model = Scripted("a", says(thought))
    one = panel("steps", [model], steps=Steps(max_steps=1))
    told = await ask(one)
    assert told.error is None
    assert ["tools" in asked.json for asked in model.asked] == [False, True]


@pytest.mark.parametrize("strategy", WEIGHING)
async def test_a_request_without_tools_is_as_ever(strategy: Strategy) -> None:
    members = [Scripted(name, says("one\n1")) for name in "abc"]
    told = await panel(strategy, members, says(VERDICT)).ask()
    assert told.error is None
    assert "tools" not in members[0].body


@pytest.mark.parametrize(("tools", "call"), [("agree", True), ("refuse", False)])
async def test_a_combination_within_another_calls_or_advises_as_it_is_configured(
    tools: Any, call: bool
) -> None:
    inner = Scripted("x", calls(id="inner") if call else says("Call weather."))
    one = Panel(
        [Scripted("a", calls(id="outer"))],
        others=[inner],
        members=(Member(model="nested", weight=2), Member(model="a")),
        strategy="best_of",
    )
    nested = CombinationSettings(
        name="nested", members=(Member(model="x"),), summary=Summary(model="writer"), tools=tools
    )
    one.upstreams["nested"] = Combination(nested, one.find, one.tasks)
    told = await ask(one)
    assert told.error is None
    assert ("tools" in inner.body) is call
    if call:
        assert called(told) == [("inner", "weather", PARIS)]
    else:
        assert told.text == "Call weather."


async def test_calls_without_ids_get_some() -> None:
    two: list[Delta] = [ToolCallDelta(0, None, "now", ""), ToolCallDelta(1, None, "weather", PARIS)]
    script: list[Step] = [[Opening()], two, [Finished("tool_calls")]]
    told = await ask(Panel([Scripted("a", script), Scripted("b", script)]))
    ids = [id for id, _, _ in called(told)]
    assert len(set(ids)) == 2
    assert all(id and id.startswith("call_") for id in ids)


KINDS: dict[str, list[Step]] = {
    "calls": calls(),
    "other calls": calls(ROME, id="c2"),
    "calls with text": calls(text="Let me look."),
    "wrong calls": calls("{}"),
    "unknown": calls(name="nothing"),
    "cut calls": [[ToolCallDelta(0, "c", "weather", '{"ci')], broken()],
    "words": says("one\n1"),
    "empty": says(),
    "failed": [broken()],
}


@given(
    kinds=st.lists(st.tuples(st.integers(0, 3), st.sampled_from(sorted(KINDS))), min_size=1, max_size=5),
    strategy=st.sampled_from(GATHERING),
    needed=st.booleans(),
    quorum=st.integers(1, 5),
    min_success=st.integers(1, 2),
)
def test_whoever_calls_what_the_answer_is_valid_calls_of_a_member_or_words_or_an_error(
    kinds: list[tuple[int, str]], strategy: Strategy, needed: bool, quorum: int, min_success: int
) -> None:
    members = [Scripted(f"a{place}", [before, *KINDS[kind]]) for place, (before, kind) in enumerate(kinds)]

    async def check() -> None:
        one = panel(
            strategy, members, quorum=min(quorum, len(members)), min_success=min_success, grace_s=0.01
        )
        told = await ask(one, **({"tool_choice": "required"} if needed else {}))
        assert told.error is None or isinstance(told.error, ServerError), repr(told.error)
        if told.error is not None or strategy in ("race", "fallback", "all"):
            return  # what goes out while it comes is the client's to judge
        made = called(told)
        assert made or told.text
        assert all(arguments in (PARIS, ROME) for _, _, arguments in made)
        assert len(made) <= 1
        assert told.reasons() == {0: "tool_calls" if made else "stop"}
        if needed:
            assert made
        if made:
            assert told.data("run.completed").answer_by != "summary"

    asyncio.run(check())
