"""Calls of tools, put together from pieces and held to what is offered."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.coordinator.tool_calls import MAX_ARGUMENTS, MAX_CALLS, ToolCall, ToolCalls, Tools, meaning
from server.deltas import TextDelta, ToolCallDelta
from server.errors import UpstreamInvalid
from tests.coordinator.panel import request

SCHEMA = {"type": "object", "required": ["city"], "properties": {"city": {"type": "string"}}}
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}
NOW = {"type": "function", "function": {"name": "now"}}


def tools(*offered: Any, **fields: Any) -> Tools:
    return Tools(request(tools=[WEATHER, NOW, *offered], **fields))


def call(arguments: str = '{"city": "Paris"}', name: str = "weather", id: str | None = "c1") -> ToolCall:
    return ToolCall(id, name, arguments)


def test_pieces_of_several_calls_are_put_together_in_order() -> None:
    calls = ToolCalls()
    calls.take(
        [ToolCallDelta(1, "b", "now", ""), TextDelta("hm"), ToolCallDelta(0, "a", "weather", '{"city"')]
    )
    calls.take([ToolCallDelta(0, arguments=': "Paris"}'), ToolCallDelta(0, "z", "other", "", index=1)])
    assert calls.made == (call(id="a"), ToolCall("b", "now", ""))


@pytest.mark.parametrize(
    "batch",
    [
        [ToolCallDelta(0, arguments="x" * (MAX_ARGUMENTS + 1))],
        [ToolCallDelta(place, name="now") for place in range(MAX_CALLS + 1)],
    ],
    ids=["too long arguments", "too many calls"],
)
def test_calls_without_end_are_refused(batch: list[ToolCallDelta]) -> None:
    with pytest.raises(UpstreamInvalid):
        ToolCalls().take(batch)


@pytest.mark.parametrize("arguments", ['{"city": "Paris"}', ' {"city":"Paris","more":[1]} '])
def test_a_call_that_fits_its_schema_is_allowed(arguments: str) -> None:
    assert tools().allow([call(arguments), call("", "now"), call('{"any": 1}', "now")])


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ("{}", "weather"),
        ("", "weather"),
        ('{"city": 1}', "weather"),
        ('{"city": "Par', "weather"),
        ("[]", "now"),
        ("null", "now"),
        ('"{}"', "now"),
        ("[" * 5000, "now"),
        ('{"a": ' + "[" * 600 + "]" * 600 + "}", "now"),
        ("\ud800", "now"),
        ("{}", "none"),
        ("{}", ""),
        ("{}", "NOW"),
    ],
)
def test_a_call_of_nothing_that_is_offered_is_refused_with_all_beside_it(arguments: str, name: str) -> None:
    assert not tools().allow([call(), call(arguments, name)])


def test_a_tool_that_is_no_function_and_a_schema_that_is_none_are_passed_over() -> None:
    odd = {"type": "function", "function": {"name": "odd", "parameters": "any"}}
    offered = tools({"type": "web_search"}, odd)
    assert offered.allow([call("{}", "odd")])
    assert not offered.allow([call("{}", "web_search")])


@pytest.mark.parametrize(
    ("choice", "needed"),
    [
        ("required", True),
        ({"type": "function", "function": {"name": "now"}}, True),
        ("auto", False),
        ("none", False),
        (None, False),
    ],
)
def test_a_client_may_need_a_call(choice: Any, needed: bool) -> None:
    assert tools(tool_choice=choice).needed is needed


def test_calls_mean_the_same_whatever_their_order_ids_and_spelling() -> None:
    one = (call('{"a":1,"b":2.0}', "now", "x"), call(id="y"))
    other = (call(id=None), call('{ "b": 2, "a": 1 }', "now", "z"))
    assert meaning(one) == meaning(other)
    assert meaning(one) != meaning(one[:1])
    assert meaning((call("", "now"),)) == meaning((call("{}", "now"),))


@given(st.text(), st.text(), st.recursive(st.none() | st.integers() | st.text(), st.lists, max_leaves=5))
def test_any_call_gets_a_verdict(name: str, arguments: str, parameters: Any) -> None:
    odd = {"type": "function", "function": {"name": "odd", "parameters": parameters}}
    assert tools(odd).allow([ToolCall(None, name, arguments)]) in (True, False)
    assert msgspec.json.encode(name)
