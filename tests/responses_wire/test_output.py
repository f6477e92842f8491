"""Deltas as items: streamed and whole alike, whatever the split."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.deltas import (
    Delta,
    Extra,
    Finished,
    Original,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
)
from server.errors import UpstreamInvalid
from server.openai_wire import unsealed
from server.responses_wire import Head, ResponseCollector, ResponseEncoder, Whole
from tests.foreign_streams import beside, call_pieces, of_words_and_calls
from tests.responses_wire.spoken import joined

HEAD = Head("resp_1", "m", 5, {"store": True})


def streamed(deltas: list[Delta], *, summaries: bool = False, batches: int = 1) -> dict[str, Any]:
    kept: list[Whole] = []
    encoder = ResponseEncoder(HEAD, summaries=summaries, keep=kept.append)
    sent = b"".join(encoder.encode(deltas[at : at + batches]) for at in range(0, len(deltas), batches))
    made = joined(sent + encoder.finish(None))
    assert json.loads(kept[0].body) == made
    assert [json.loads(item) for item in kept[0].output] == made["output"]
    return made


def both(deltas: list[Delta], *, summaries: bool = False) -> dict[str, Any]:
    """The response, which is the same in both forms."""
    kept: list[Whole] = []
    collector = ResponseCollector(HEAD, summaries=summaries, keep=kept.append)
    collector.add(deltas)
    made: dict[str, Any] = json.loads(collector.encode())
    assert json.loads(kept[0].body) == made == streamed(deltas, summaries=summaries)
    return made


@given(st.lists(st.text(max_size=6)), call_pieces(), st.integers(1, 5))
def test_words_and_calls_survive_any_split(
    words: list[str], calls: tuple[list[Delta], list[dict[str, Any]]], batches: int
) -> None:
    deltas = of_words_and_calls(words, calls[0])
    made = both(deltas)
    assert streamed(deltas, batches=batches) == made
    texts = [item["content"][0]["text"] for item in made["output"] if item["type"] == "message"]
    assert "".join(texts) == "".join(words)
    called = [item for item in made["output"] if item["type"] == "function_call"]
    assert [json.loads(item["arguments"]) for item in called] == calls[1]
    assert [item["call_id"] for item in called] == [f"call_{at}" for at in range(len(called))]
    assert made["usage"]["total_tokens"] == 5


def test_arguments_are_told_as_they_were_written() -> None:
    made = both([ToolCallDelta(0, "a", "f"), ToolCallDelta(0, arguments="{not json"), Finished("tool_calls")])
    assert made["output"][0]["arguments"] == "{not json"
    assert both([ToolCallDelta(0, "a", "f"), Finished("tool_calls")])["output"][0]["arguments"] == ""


def test_pieces_of_a_call_that_was_whole_are_an_error() -> None:
    deltas: list[Delta] = [ToolCallDelta(0, "a", "f", "{}"), ToolCallDelta(1, "b", "g", "{}")]
    with pytest.raises(UpstreamInvalid):
        streamed([*deltas, ToolCallDelta(0, arguments="x")])


def kept(*blocks: dict[str, Any]) -> Delta:
    chunk = {"choices": [{"index": 0, "delta": {"thinking_blocks": list(blocks)}}]}
    return Extra(Original("openai.chunk", json.dumps(chunk).encode()))


def test_thoughts_are_an_item_each_time_they_begin() -> None:
    signature = {"index": 0, "type": "thinking", "thinking": "hm", "signature": "Eq"}
    deltas: list[Delta] = [ReasoningDelta("h"), ReasoningDelta("m"), kept(signature), TextDelta("a")]
    deltas += [ReasoningDelta("so"), TextDelta("b"), Finished("stop")]
    full = both(deltas)["output"]
    assert [item["type"] for item in full] == ["reasoning", "message", "reasoning", "message"]
    assert full[0]["content"] == [{"type": "reasoning_text", "text": "hm"}]
    assert full[0]["encrypted_content"].startswith("antiphon:")
    assert "encrypted_content" not in full[2]
    brief = both(deltas, summaries=True)["output"]
    assert brief[0]["summary"] == [{"type": "summary_text", "text": "hm"}]
    alone = both([kept({"type": "redacted_thinking", "data": "x"}), TextDelta("a"), Finished("stop")])
    assert alone["output"][0]["content"] == []


def test_sources_are_annotations_of_their_text_also_of_one_that_is_to_come() -> None:
    inner = {"url": "https://e.com", "title": "E"}
    source = {"type": "url_citation", "url_citation": inner | {"start_index": 1}}
    chunk = {"choices": [{"index": 0, "delta": {"annotations": [source]}}]}
    cited = Extra(Original("openai.chunk", json.dumps(chunk).encode()))
    expected = {"type": "url_citation", "end_index": 0, "start_index": 1, **inner}
    during: list[Delta] = [TextDelta("a"), cited, cited, TextDelta("b")]
    before: list[Delta] = [cited, ReasoningDelta("hm"), cited, TextDelta("ab")]
    for deltas in (during, before):
        (part,) = both([*deltas, Finished("stop")])["output"][-1]["content"]
        assert (part["text"], part["annotations"]) == ("ab", [expected]), "once each"


def test_places_of_sources_are_counted_within_their_part_and_files_have_names() -> None:
    link = {"url": "https://e.com", "title": "E", "start_index": 4, "end_index": 6}
    file = {"file_id": "document_0", "filename": "Law", "index": 0, "cited_text": "§"}
    deltas: list[Delta] = [
        TextDelta("one "),
        ReasoningDelta("hm"),
        TextDelta("two"),
        beside(
            annotations=[
                {"type": "url_citation", "url_citation": link},
                {"type": "file_citation", "file_citation": file},
            ]
        ),
        Finished("stop"),
    ]
    (part,) = both(deltas)["output"][-1]["content"]
    assert part["annotations"] == [
        {"type": "url_citation", **link, "start_index": 0, "end_index": 2},
        {"type": "file_citation", **file},
    ]


def test_sources_of_a_text_that_never_comes_are_told_to_be_missing() -> None:
    source = {"type": "url_citation", "url_citation": {"url": "https://e.com"}}
    made = both([beside(annotations=[source]), ToolCallDelta(0, "c", "f", "{}"), Finished("tool_calls")])
    assert made["antiphon"] == {"warnings": ["annotations was left out"]}


@pytest.mark.parametrize("form", ["openai.chunk", "openai.completion"])
def test_a_picture_is_an_item_of_its_own_or_a_link_in_the_text(form: Any) -> None:
    images = [
        {"type": "image_url", "image_url": {"url": "data:image/webp;base64,AAAA"}},
        {"image_url": "https://e.com/a.png"},
    ]
    made = both([beside(form, images=images), Finished("stop")])
    picture, text = made["output"]
    assert picture == {
        "id": "ig_1_0",
        "type": "image_generation_call",
        "status": "completed",
        "result": "AAAA",
        "output_format": "webp",
    }
    assert text["content"][0]["text"] == "![image](https://e.com/a.png)"
    assert "antiphon" not in made


def test_what_is_said_aloud_is_read_out_and_what_nobody_knows_is_named() -> None:
    said = [beside(audio={"transcript": "He"}), beside(audio={"transcript": "llo", "data": "AAAA"})]
    made = both([*said, beside(smell="tea", annotations=[]), Finished("stop")])
    assert made["output"][0]["content"][0]["text"] == "Hello"
    assert made["antiphon"] == {"warnings": ["audio was left out", "smell was left out"]}


def test_a_call_of_the_legacy_form_is_a_call() -> None:
    call = beside(function_call={"name": "f", "arguments": ""})
    made = both([call, beside(function_call={"arguments": "{}"}), Finished("function_call")])
    (item,) = made["output"]
    assert (item["type"], item["name"], item["arguments"]) == ("function_call", "f", "{}")


def test_what_only_the_service_can_read_is_sealed_and_told_of() -> None:
    block = {"type": "web_search_tool_result", "tool_use_id": "s", "content": []}
    extra = {"google": {"thought_signature": "Ej"}}
    made = both(
        [
            beside(thinking_blocks=[{"index": 0, **block}]),
            TextDelta("a"),
            beside(extra_content=extra),
            Finished("stop"),
        ]
    )
    first, _, last = made["output"]
    assert unsealed(first["encrypted_content"]) == [block]
    assert unsealed(last["encrypted_content"]) == [{"extra_content": extra}]
    assert made["antiphon"] == {"warnings": ["web_search_tool_result is in encrypted_content alone"]}


def test_a_refusal_is_a_part_of_its_own() -> None:
    made = both([TextDelta("Well. "), RefusalDelta("No"), RefusalDelta("."), Finished("stop")])
    (item,) = made["output"]
    assert [part["type"] for part in item["content"]] == ["output_text", "refusal"]
    assert item["content"][1]["refusal"] == "No."


@pytest.mark.parametrize(
    ("reason", "status", "why"),
    [
        ("stop", "completed", None),
        ("tool_calls", "completed", None),
        ("odd", "completed", None),
        ("length", "incomplete", {"reason": "max_output_tokens"}),
        ("content_filter", "incomplete", {"reason": "content_filter"}),
    ],
)
def test_each_reason_has_its_status(reason: str, status: str, why: object) -> None:
    made = both([TextDelta("a"), Finished(reason)])
    assert (made["status"], made["incomplete_details"], made["output"][0]["status"]) == (status, why, status)


def test_further_choices_which_nobody_has_asked_for_are_told_to_be_missing() -> None:
    deltas: list[Delta] = [TextDelta("a"), TextDelta("b", 1), Finished("stop"), Finished("stop", 1)]
    made = both(deltas)
    assert made["output"][0]["content"][0]["text"] == "a"
    assert made["antiphon"] == {"warnings": ["choices but the first were left out"]}


THOUGHT = {"type": "reasoning.text", "index": 0, "format": "anthropic-claude-v1"}
DETAILS = [THOUGHT | {"text": "I think.", "signature": "Eo"}]


@pytest.mark.parametrize("told", [True, False])
def test_openrouters_thoughts_are_items_and_what_is_signed_is_sealed_behind_them(told: bool) -> None:
    pieces = [THOUGHT | {"text": "I "}, THOUGHT | {"text": "think."}, THOUGHT | {"signature": "Eo"}]
    deltas: list[Delta] = []
    for piece in pieces:
        deltas.append(beside(reasoning_details=[piece]))
        if told and piece.get("text"):
            deltas[-1] = beside(reasoning_details=[piece], reasoning=piece["text"])
            deltas.append(ReasoningDelta(str(piece["text"]), 0, "reasoning"))
    made = both([*deltas, TextDelta("Yes."), Finished("stop")])
    thinking, message = made["output"]
    assert thinking["content"][0]["text"] == "I think."
    assert unsealed(thinking["encrypted_content"]) == [{"reasoning_details": DETAILS}]
    assert message["content"][0]["text"] == "Yes."
