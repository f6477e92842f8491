"""What a simulated Gemini says, from its script alone."""

from __future__ import annotations

import json
from typing import Any

import pytest

from server.simulators.asked import Asked
from server.simulators.errors import Fault
from server.simulators.gemini_said import (
    ArrayForm,
    GeminiScript,
    Wire,
    error_json,
    scripted_fault,
    told_in_all,
)
from server.simulators.said import say
from server.simulators.script import ToolCall

ASKED = Asked("m", True, True, 1, False, 3, "hello", frozenset())


def wire(**fields: Any) -> Wire:
    script = GeminiScript(**fields)
    return Wire(script, told_in_all(say(script, ASKED, 1)), 1)


def reasons(**fields: Any) -> list[str | None]:
    return [event.data["candidates"][0].get("finishReason") for event in wire(text="a b", **fields).events()]


def test_the_finish_stands_where_the_script_has_it() -> None:
    assert reasons() == [None, None, "STOP"]
    assert reasons(finish_form="last") == [None, "STOP"]
    assert reasons(finish_form="missing") == [None, None]
    assert reasons(finish="content_filter")[-1] == "SAFETY"
    assert reasons(finish_reason="OTHER")[-1] == "OTHER"


def test_only_what_is_said_counts_as_a_chunk_and_calls_come_in_one() -> None:
    events = list(wire(text="a b", reasoning=("hm",), tools=(ToolCall(), ToolCall())).events())
    assert [event.counts for event in events] == [True, True, True, True, False]
    assert len(events[3].data["candidates"][0]["content"]["parts"]) == 2


def test_arguments_are_sent_as_they_are_written() -> None:
    whole = wire(tools=(ToolCall(arguments='{"n": 1.0}'),), signature="").whole()
    assert b'"args":{"n": 1.0}' in whole
    assert b"thoughtSignature" not in whole


def test_log_probabilities_go_with_the_words_that_they_are_of() -> None:
    told = wire(text="a b", reasoning=("hm",), tools=(ToolCall(),), logprobs=True)
    found = [event.data["candidates"][0].get("logprobsResult") for event in told.events()]
    words = [[token["token"] for token in one["chosenCandidates"]] if one else None for one in found]
    assert words == [None, ["a"], [" b"], None, None]
    whole = json.loads(told.whole())["candidates"][0]["logprobsResult"]["chosenCandidates"]
    assert [token["token"] for token in whole] == ["a", " b"]


def test_an_array_is_one_value_at_a_time() -> None:
    form = ArrayForm(GeminiScript())
    assert json.loads(form.json({"a": 1}) + form.json({"b": 2}) + b"]") == [{"a": 1}, {"b": 2}]


@pytest.mark.parametrize(
    ("fault", "status", "details"),
    [
        (Fault(429, "slow"), "RESOURCE_EXHAUSTED", []),
        (Fault(418, "tea"), "UNKNOWN", []),
        (Fault(400, "odd", param="contents"), "INVALID_ARGUMENT", ["BadRequest"]),
        (Fault(400, "key", code="API_KEY_INVALID"), "INVALID_ARGUMENT", ["ErrorInfo"]),
        (Fault(400, "here", type="FAILED_PRECONDITION"), "FAILED_PRECONDITION", []),
    ],
)
def test_an_error_is_a_status_with_details(fault: Fault, status: str, details: list[str]) -> None:
    error = json.loads(error_json(GeminiScript(), fault))["error"]
    assert (error["code"], error["message"], error["status"]) == (fault.status, fault.message, status)
    assert [one["@type"].rpartition(".")[2] for one in error.get("details", ())] == details


def test_a_fault_has_the_vendors_words_unless_the_script_has_its_own() -> None:
    assert scripted_fault(GeminiScript(), 503).message.startswith("The model is overloaded")
    assert (
        scripted_fault(GeminiScript(status=400, error_type="FAILED_PRECONDITION"), 500).type
        == "FAILED_PRECONDITION"
    )
    assert scripted_fault(GeminiScript(error_message="no"), 500) == Fault(500, "no", type="INTERNAL")


def test_further_parts_stand_behind_the_text_and_fields_where_the_candidate_ends() -> None:
    part, told = {"executableCode": {"language": "PYTHON", "code": "1"}}, {"groundingMetadata": {"a": 1}}
    made = wire(text="a", parts=(part,), metadata=told)
    (candidate,) = json.loads(made.whole())["candidates"]
    assert (candidate["content"]["parts"], candidate["groundingMetadata"]) == (
        [{"text": "a"}, part],
        {"a": 1},
    )
    events = [event.data["candidates"][0] for event in made.events()]
    assert events[1]["content"]["parts"] == [part]
    assert ["groundingMetadata" in event for event in events] == [False, False, True]
