"""Who writes the answer, live, and what stands in when it fails."""

from __future__ import annotations

import pytest

from server.deltas import Extra, Finished, Opening, Original, TextDelta, ToolCallDelta
from server.errors import InvalidRequest, UpstreamEmpty, UpstreamError
from server.settings import Summary, Timeouts, TimeoutsPatch
from tests.coordinator.panel import (
    Panel,
    Scripted,
    broken,
    reasoning,
    says,
)

LONG = "word " * 60


async def test_a_failed_summary_is_an_error_unless_a_fallback_is_configured() -> None:
    writer = Scripted("writer", [broken()])
    told = await Panel([Scripted("a", says("one")), Scripted("b", says("two"))], writer).ask()
    assert isinstance(told.error, UpstreamError)
    assert told.deltas == []
    assert told.data("summary.failed").code == "upstream_error"
    assert told.types[-1] == "run.failed"


async def test_the_next_summary_model_takes_over_before_the_first_delta() -> None:
    writer, second = Scripted("writer", [broken()]), Scripted("second", says("Rescued."))
    panel = Panel(
        [Scripted("a", says("one")), Scripted("b", says("two"))],
        writer,
        others=[second],
        summary=Summary(model="writer", fallback=("second", "best_draft")),
    )
    told = await panel.ask()
    assert told.text == "Rescued."
    assert told.data("run.degraded").level == "summary_fallback"
    assert told.data("summary.fallback").model == "second"
    starts = [event.data for event in told.events if event.type == "summary.started"]
    assert [(one.model, one.attempt) for one in starts] == [("writer", 1), ("second", 2)]  # type: ignore[attr-defined]
    assert starts[0].seed == starts[1].seed  # type: ignore[attr-defined]


async def test_the_strongest_draft_stands_in_for_a_failed_summary() -> None:
    panel = Panel(
        [Scripted("a", says("one")), Scripted("b", says("two")), Scripted("c", says("three"))],
        Scripted("writer", says()),  # complete, and empty
        weights=[1, 3, 3],
        summary=Summary(model="writer", fallback=("best_draft",)),
    )
    told = await panel.ask()
    assert told.text == "two"
    assert told.data("summary.failed").code == UpstreamEmpty.code
    assert told.data("summary.fallback").member == "m2"
    assert told.data("run.completed").level == "best_draft"
    assert told.data("run.completed").answer_by == "m2"


async def test_a_summary_that_is_cut_after_its_first_text_is_an_error_and_nothing_is_glued_on() -> None:
    panel = Panel(
        [Scripted("a", says("one")), Scripted("b", says("two"))],
        Scripted("writer", [[TextDelta("Half an")], broken()]),
        summary=Summary(model="writer", fallback=("best_draft",)),
    )
    told = await panel.ask()
    assert isinstance(told.error, UpstreamError)
    assert told.text == "Half an"
    assert "summary.fallback" not in told.types
    assert told.reasons() == {}


async def test_the_reasoning_of_the_summary_is_relayed_and_that_of_members_is_not_shown() -> None:
    panel = Panel(
        [Scripted("a", [reasoning("secret thought"), *says("one")]), Scripted("b", says("two"))],
        Scripted("writer", [reasoning("hm"), *says("Done.")]),
    )
    told = await panel.ask()
    assert [getattr(one, "text", "") for one in told.deltas][:1] == ["hm"]
    assert told.text == "Done."
    assert "secret thought" not in panel.writer.body["messages"][-1]["content"]
    assert told.data("summary.first_token").kind == "reasoning"


async def test_chunks_of_the_summary_that_hold_no_choice_are_left_out() -> None:
    usage_chunk = Extra(Original("openai.chunk", b'{"id":"x","choices":[]}'))
    odd_chunk = Extra(Original("openai.chunk", b'{"id":"x","choices":[{"index":0,"logprobs":{}}]}'))
    panel = Panel(
        [Scripted("a", says("one")), Scripted("b", says("two"))],
        Scripted("writer", [*says("Done."), [odd_chunk], [usage_chunk]]),
    )
    told = await panel.ask()
    assert odd_chunk in told.deltas
    assert usage_chunk not in told.deltas


async def test_under_a_schema_the_best_valid_draft_goes_out_when_the_summary_does_not_fit() -> None:
    schema = {"type": "json_schema", "json_schema": {"name": "n", "schema": {}}}
    panel = Panel(
        [Scripted("a", says('{"x": 1}')), Scripted("b", says('{"x": 2}'))],
        Scripted("writer", says("{", "oops")),
    )
    told = await panel.ask(response_format=schema)
    assert told.text == '{"x": 1}'
    assert told.data("run.completed").level == "best_draft"
    panel.writer.steps = says("{", "}")
    told = await panel.ask(response_format=schema)
    assert told.text == "{}"
    assert told.data("run.completed").answer_by == "summary"


async def test_a_bug_in_the_summary_surfaces() -> None:
    panel = Panel(
        [Scripted("a", says("one")), Scripted("b", says("two"))], Scripted("writer", [ZeroDivisionError()])
    )
    told = await panel.ask()
    assert isinstance(told.error, ZeroDivisionError)
    assert told.data("run.failed").error.code == "internal_error"


async def test_where_two_drafts_find_no_room_the_strongest_goes_out_as_it_is() -> None:
    panel = Panel(
        [Scripted("a", says("x" * 4000)), Scripted("b", says("y" * 4000))],
        Scripted("writer", says("never asked"), context=300),
        weights=[1, 2],
    )
    told = await panel.ask()
    assert told.text == "y" * 4000
    assert panel.writer.asked == []
    assert (told.data("run.degraded").level, told.data("run.degraded").reason) == (
        "partial",
        "context_length",
    )


async def test_a_summary_model_that_does_not_exist_is_a_failed_summary() -> None:
    panel = Panel(
        [Scripted("a", says("one")), Scripted("b", says("two"))],
        summary=Summary(model="nobody", fallback=("best_draft",)),
    )
    told = await panel.ask()
    assert told.text == "one"
    assert told.data("summary.failed").code == "model_not_found"


TOOLS = [{"type": "function", "function": {"name": "look"}}]
TOOL_TURNS = [
    {"role": "user", "content": "Look."},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at": 1}'}},
            {"id": "c2", "type": "function", "function": {"name": "look", "arguments": "{}"}},
        ],
    },
    {"role": "tool", "tool_call_id": "c1", "content": "a cat"},
    {"role": "tool", "tool_call_id": "c2", "content": "a dog"},
]


async def test_with_tools_for_the_summary_members_advise_in_words_and_it_alone_calls() -> None:
    call = ToolCallDelta(0, "c3", "look", "{}")
    members = [Scripted("a", says("one")), Scripted("b", says("two"))]
    writer = Scripted("writer", [[Opening(), call], [Finished("tool_calls")]])
    told = await Panel(members, writer, tools="summary").ask(messages=TOOL_TURNS, tools=TOOLS)
    assert told.error is None
    assert call in told.deltas
    assert told.reasons() == {0: "tool_calls"}
    assert writer.body["tools"] == TOOLS
    assert [one["role"] for one in writer.body["messages"]][-3:] == ["tool", "tool", "user"]
    body = members[0].body
    assert "tools" not in body
    assert [one["role"] for one in body["messages"]] == ["system", "user", "assistant", "user"]
    assert body["messages"][2]["content"] == '[Call of a tool] look({"at": 1})\n[Call of a tool] look({})'
    assert body["messages"][3]["content"] == "[Result of a tool]\na cat\n\n[Result of a tool]\na dog"


async def test_with_tools_for_the_summary_a_lone_draft_goes_to_it_too() -> None:
    panel = Panel([Scripted("a", says("one")), Scripted("b", [broken()])], tools="summary")
    told = await panel.ask(tools=TOOLS)
    assert told.text == "The answer."
    assert told.data("run.completed").level == "partial"
    assert (await panel.ask()).text == "one"


@pytest.mark.parametrize("strategy", ["vote", "best_of", "all", "cascade"])
async def test_a_strategy_without_a_writer_refuses_tools(strategy: str) -> None:
    told = await Panel([Scripted("a", says("one"))], strategy=strategy, tools="summary").ask(tools=TOOLS)
    assert isinstance(told.error, InvalidRequest)
    assert told.error.param == "tools"


async def test_the_summary_has_the_clocks_that_it_sets_and_for_the_others_those_of_its_channel() -> None:
    writer = Scripted("writer", says("done"))
    drafts = [Scripted("a", says("one")), Scripted("b", says("two"))]
    clocks = TimeoutsPatch(idle_s=0)
    await Panel(drafts, writer, summary=Summary(model="writer", timeouts=clocks)).ask()
    (call,) = writer.calls
    assert call.timeouts is not None, "a clock that is switched off is set, too"
    said = TimeoutsPatch(first_token_s=7, idle_s=7)
    assert call.timeouts(said) == Timeouts(first_token_s=7, idle_s=0)


async def test_a_summary_that_sets_none_leaves_all_to_the_channel() -> None:
    writer = Scripted("writer", says("done"))
    await Panel([Scripted("a", says("one")), Scripted("b", says("two"))], writer).ask()
    assert writer.calls[0].timeouts is None


@pytest.mark.parametrize(
    ("stream", "text", "level"), [(False, '{"n": 1}', "best_draft"), (True, "Sure!", "none")]
)
async def test_json_without_a_schema_is_looked_at_where_nobody_waits_for_its_beginning(
    stream: bool, text: str, level: str
) -> None:
    drafts = [Scripted(name, says('{"n": 1}')) for name in "ab"]
    panel = Panel(drafts, Scripted("writer", says("Sure!")))
    told = await panel.ask(response_format={"type": "json_object"}, stream=stream)
    assert told.error is None
    assert told.text == text
    assert told.data("run.completed").level == level
