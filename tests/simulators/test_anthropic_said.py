"""What a simulated Anthropic says, from its script alone."""

from __future__ import annotations

import json
from typing import Any

import pytest

from server.simulators.anthropic_said import (
    AnthropicScript,
    NamedEvents,
    Wire,
    error_json,
    say_anthropic,
    scripted_fault,
)
from server.simulators.asked import Asked
from server.simulators.errors import Fault
from server.simulators.script import ToolCall

ASKED = Asked("m", True, True, 1, False, 3, "hello", frozenset())


def wire(**fields: Any) -> Wire:
    script = AnthropicScript(**fields)
    return Wire(script, say_anthropic(script, ASKED, 1), 1)


def kinds(**fields: Any) -> list[str]:
    return [event.data["type"] for event in wire(**fields).events()]


def test_a_message_holds_thoughts_then_text_then_calls() -> None:
    message = json.loads(wire(text="a b", reasoning=("hm ", "so"), tools=(ToolCall(),)).message())
    assert [block["type"] for block in message["content"]] == ["thinking", "text", "tool_use"]
    assert message["content"][0] == {"type": "thinking", "thinking": "hm so", "signature": "EqSim=="}
    assert message["content"][2]["id"] == "toolu_sim_1"
    assert (message["stop_reason"], message["usage"]["input_tokens"]) == ("tool_use", 3)


def test_a_stream_frames_each_block_and_ends_with_reason_and_stop() -> None:
    assert kinds(text="a") == [
        "message_start",
        "content_block_start",
        "ping",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert "ping" not in kinds(text="a", pings=False)
    assert kinds(text="a b", pings=False, ping_between=True).count("ping") == 2
    assert "message_delta" not in kinds(text="a", finish_form="missing")


def test_only_what_is_said_counts_as_a_chunk() -> None:
    script = {
        "text": "a b",
        "reasoning": ("hm",),
        "tools": (ToolCall(arguments='{"a": 1}'),),
        "tool_pieces": 2,
    }
    counted = [event.data["delta"]["type"] for event in wire(**script).events() if event.counts]
    assert counted == ["thinking_delta", "text_delta", "text_delta", *["input_json_delta"] * 3]


def test_arguments_come_in_so_many_pieces_after_an_empty_one() -> None:
    call = ToolCall(arguments='{"city": "巴黎"}', id="own")
    deltas = [
        event.data["delta"]["partial_json"]
        for event in wire(tools=(call,), tool_pieces=4).events()
        if event.data["type"] == "content_block_delta"
    ]
    assert (deltas[0], len(deltas), "".join(deltas)) == ("", 5, call.arguments)
    assert "content_block_delta" not in kinds(tools=(call,), tool_pieces=0)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, "end_turn"),
        ({"finish": "length"}, "max_tokens"),
        ({"finish": "content_filter"}, "refusal"),
        ({"tools": (ToolCall(),)}, "tool_use"),
        ({"stop_reason": "pause_turn"}, "pause_turn"),
    ],
)
def test_how_it_ends_is_said_in_the_vendors_words(fields: dict[str, Any], reason: str) -> None:
    assert json.loads(wire(text="a", **fields).message())["stop_reason"] == reason
    end = next(event for event in wire(text="a", **fields).events() if event.data["type"] == "message_delta")
    assert end.data["delta"]["stop_reason"] == reason


def test_newer_servers_count_everything_at_the_end() -> None:
    def usage(**fields: Any) -> dict[str, int]:
        events = list(wire(text="a b", cache_read=7, **fields).events())
        found: dict[str, int] = events[-2].data["usage"]
        return found

    assert usage() == {"output_tokens": 2}
    assert usage(usage_at_end="all")["cache_read_input_tokens"] == 7


def test_events_stand_under_their_own_names() -> None:
    event = NamedEvents(AnthropicScript()).json({"type": "ping"})
    assert event == b'event: ping\ndata: {"type":"ping"}\n\n'


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Fault(400, "x"), "invalid_request_error"),
        (Fault(529, "x"), "overloaded_error"),
        (Fault(418, "x"), "api_error"),
        (Fault(200, "x", type="rate_limit_error"), "rate_limit_error"),
    ],
)
def test_an_error_has_the_vendors_type(fault: Fault, kind: str) -> None:
    error = json.loads(error_json(fault, 7))
    assert (error["type"], error["error"], error["request_id"]) == (
        "error",
        {"type": kind, "message": "x"},
        "req_sim7",
    )


def test_a_fault_has_the_vendors_words_unless_the_script_has_its_own() -> None:
    assert scripted_fault(AnthropicScript(), 529) == Fault(529, "Overloaded", type="overloaded_error")
    told = scripted_fault(AnthropicScript(status=429, error_message="slow", error_type="odd_error"), 500)
    assert told == Fault(429, "slow", type="odd_error")


def test_blocks_of_the_services_own_tools_and_sources_come_as_it_sends_them() -> None:
    search = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "x"}}
    found = {"type": "web_search_tool_result", "tool_use_id": "s", "content": []}
    cited = {"type": "web_search_result_location", "url": "https://e.com", "cited_text": "b"}
    said: dict[str, Any] = {"text": "a b", "blocks": (search, found), "citations": (cited,), "pings": False}
    message = json.loads(wire(**said, container={"id": "c"}, stop_details={"type": "x"}).message())
    assert message["content"] == [
        search,
        found,
        {"type": "text", "text": "a"},
        {"type": "text", "text": " b", "citations": [cited]},
    ]
    assert (message["container"], message["stop_details"]) == ({"id": "c"}, {"type": "x"})
    events = [event.data for event in wire(**said, odd={"type": "odd"}).events()]
    starts = [event["content_block"] for event in events if event["type"] == "content_block_start"]
    assert starts[:2] == [search | {"input": {}}, found]
    assert starts[3] == {"type": "text", "text": "", "citations": []}
    given = [
        event["delta"].get("partial_json", "")
        for event in events
        if event.get("index") == 0 and "delta" in event
    ]
    assert json.loads("".join(given)) == {"query": "x"}
    deltas = [event["delta"] for event in events if event.get("index") == 3 and "delta" in event]
    assert deltas == [{"type": "citations_delta", "citation": cited}, {"type": "text_delta", "text": " b"}]
    assert events[-3] == {"type": "odd"}
