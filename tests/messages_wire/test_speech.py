"""Deltas as blocks: streamed and whole alike, whatever the split."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.anthropic_wire import MessagesReader
from server.deltas import (
    Delta,
    Extra,
    Finished,
    Opening,
    Original,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
    Usage,
    UsageDelta,
)
from server.errors import UpstreamInvalid
from server.messages_wire import MessagesEncoder
from server.messages_wire.beside import UNSIGNED
from server.openai_wire import unsealed
from tests.foreign_streams import beside, call_pieces, of_words_and_calls
from tests.messages_wire.spoken import both, streamed, whole


@given(st.lists(st.text(max_size=6)), call_pieces(), st.integers(1, 5))
def test_words_and_calls_survive_any_split(
    words: list[str], calls: tuple[list[Delta], list[dict[str, Any]]], batches: int
) -> None:
    deltas = of_words_and_calls(words, calls[0])
    made = both(deltas)
    assert streamed(deltas, batches=batches) == made
    assert "".join(block["text"] for block in made["content"] if block["type"] == "text") == "".join(words)
    assert [block["input"] for block in made["content"] if block["type"] == "tool_use"] == calls[1]
    assert made["stop_reason"] == "tool_use"
    assert (made["usage"]["input_tokens"], made["usage"]["output_tokens"]) == (3, 2)


def test_calls_that_come_one_after_the_other_have_blocks_one_after_the_other() -> None:
    encoder = MessagesEncoder(model="m", id="msg_1", request_id="r", thoughts=True)
    sent = encoder.encode(
        [ToolCallDelta(0, "a", "f"), ToolCallDelta(0, arguments="{}"), ToolCallDelta(1, "b", "g", '{"x":1}')]
    )
    first_end = sent.index(b'"content_block_stop","index":0')
    assert first_end < sent.index(b'"content_block_start","index":1')


def kept(*blocks: dict[str, Any]) -> Delta:
    chunk = {"choices": [{"index": 0, "delta": {"thinking_blocks": list(blocks)}}]}
    return Extra(Original("openai.chunk", json.dumps(chunk).encode()))


def test_signed_thoughts_are_blocks_even_where_nobody_asked() -> None:
    signed = {"index": 0, "type": "thinking", "thinking": "hm", "signature": "Eq"}
    deltas: list[Delta] = [ReasoningDelta("hm"), kept(signed), TextDelta("a"), Finished("stop")]
    expected = {"type": "thinking", "thinking": "hm", "signature": "Eq"}
    assert both(deltas)["content"] == [expected, {"type": "text", "text": "a"}]
    assert both(deltas, thoughts=False)["content"][0] == expected
    hidden = {"index": 0, "type": "redacted_thinking", "data": "xx"}
    assert both([kept(hidden), TextDelta("a"), Finished("stop")])["content"][0] == {
        "type": "redacted_thinking",
        "data": "xx",
    }


def test_what_stands_beside_a_call_comes_before_it_sealed() -> None:
    extra = {"google": {"thought_signature": "Ej"}}
    chunk = {"choices": [{"delta": {"tool_calls": [{"index": 0, "extra_content": extra}]}}]}
    original = Original("openai.chunk", json.dumps(chunk).encode())
    made = both([ToolCallDelta(0, "a", "f", "{}", original=original), Finished("tool_calls")])["content"]
    assert [block["type"] for block in made] == ["redacted_thinking", "tool_use"]
    assert unsealed(made[0]["data"]) == [{"call": "a", "extra_content": extra}]


def test_thoughts_that_a_whole_completion_brings_are_not_told_twice() -> None:
    said = {
        "content": "a",
        "reasoning_content": "hm",
        "thinking_blocks": [{"type": "thinking", "thinking": "hm", "signature": "Eq"}],
    }
    data = json.dumps({"choices": [{"message": said}]}).encode()
    first = Opening(original=Original("openai.completion", data))
    made = both([first, ReasoningDelta("hm"), TextDelta("a"), Finished("stop")])["content"]
    assert [block.get("thinking") or block.get("text") for block in made] == ["hm", "a"]


def test_unsigned_thoughts_are_blocks_where_they_are_wanted_only() -> None:
    deltas: list[Delta] = [
        ReasoningDelta("hm"),
        TextDelta("a"),
        ReasoningDelta("so"),
        TextDelta("b"),
        Finished("stop"),
    ]
    told = both(deltas)["content"]
    assert [block["type"] for block in told] == ["thinking", "text", "thinking", "text"]
    assert told[0]["signature"] == UNSIGNED, "clients leave out what has none"
    told = both(deltas, thoughts=False)
    assert told["content"] == [{"type": "text", "text": "ab"}]
    assert told["antiphon"] == {"warnings": ["thinking was left out"]}


def test_what_is_said_aloud_is_read_out_and_the_sound_is_told_to_be_missing() -> None:
    made = both(
        [
            beside(audio={"id": "a"}),
            beside(audio={"transcript": "He"}),
            beside(audio={"transcript": "llo"}),
            beside(audio={"data": "AAAA"}),
            Finished("stop"),
        ]
    )
    assert made["content"] == [{"type": "text", "text": "Hello"}]
    assert made["antiphon"] == {"warnings": ["audio was left out"]}


def test_a_call_of_the_legacy_form_is_a_call() -> None:
    deltas: list[Delta] = [
        beside(function_call={"name": "f", "arguments": ""}),
        beside(function_call={"arguments": '{"a":'}),
        beside(function_call={"arguments": "1}"}),
        Finished("function_call"),
    ]
    made = both(deltas)
    (call,) = made["content"]
    assert (call["type"], call["name"], call["input"], made["stop_reason"]) == (
        "tool_use",
        "f",
        {"a": 1},
        "tool_use",
    )
    assert call["id"].startswith("call_")


def test_what_anthropic_puts_beside_a_call_stands_in_its_block() -> None:
    beside = {"caller": {"type": "code_execution_20250825", "tool_id": "s"}, "type": "odd"}
    extra = {"google": {"thought_signature": "Ej"}}
    chunk = {"choices": [{"delta": {"tool_calls": [{"index": 0, "extra_content": {"anthropic": beside}}]}}]}
    for more, count in (({}, 1), (extra, 2)):
        chunk["choices"][0]["delta"]["tool_calls"][0]["extra_content"] = {"anthropic": dict(beside), **more}
        original = Original("openai.chunk", json.dumps(chunk).encode())
        made = both([ToolCallDelta(0, "a", "f", "{}", original=original), Finished("tool_calls")])["content"]
        assert len(made) == count
        call = {"type": "tool_use", "id": "a", "name": "f", "input": {}, "caller": beside["caller"]}
        assert made[-1] == call


def test_what_a_vendor_puts_beside_its_text_comes_sealed_and_what_nobody_knows_is_named() -> None:
    extra = {"google": {"thought_signature": "Ej"}}
    made = both([TextDelta("a"), beside(extra_content=extra, smell="tea"), Finished("stop")])
    assert [block["type"] for block in made["content"]] == ["text", "redacted_thinking"]
    assert unsealed(made["content"][1]["data"]) == [{"extra_content": extra}]
    assert made["antiphon"] == {"warnings": ["smell was left out"]}


def test_what_the_service_says_of_the_end_comes_in_its_own_words() -> None:
    ending = {
        "native_finish_reason": "refusal",
        "stop_details": {"type": "refusal"},
        "container": {"id": "c"},
    }
    chunk = {"choices": [{"index": 0, "delta": {}, **ending, "context_management": {"applied_edits": []}}]}
    original = Original("openai.chunk", json.dumps(chunk).encode())
    made = both([TextDelta("a"), Finished("content_filter", original=original)])
    assert made["stop_reason"] == "refusal"
    assert (made["stop_details"], made["container"]) == ({"type": "refusal"}, {"id": "c"})
    assert made["context_management"] == {"applied_edits": []}


@pytest.mark.parametrize(
    ("deltas", "reason"),
    [
        ([TextDelta("a"), Finished("stop")], "end_turn"),
        ([TextDelta("a"), Finished("length")], "max_tokens"),
        ([Finished("content_filter")], "refusal"),
        ([RefusalDelta("no"), Finished("stop")], "refusal"),
        ([ToolCallDelta(0, "a", "f"), Finished("stop")], "tool_use"),
        ([TextDelta("a"), Finished("odd")], "end_turn"),
        (
            [TextDelta("a"), Finished("stop", original=Original("openai.chunk", b'{"choices":[]}'))],
            "end_turn",
        ),
    ],
)
def test_each_reason_has_its_word(deltas: list[Delta], reason: str) -> None:
    assert both(deltas)["stop_reason"] == reason


@pytest.mark.parametrize(
    ("native", "ours", "told"),
    [
        ("pause_turn", "stop", ("pause_turn", None)),
        ("stop_sequence", "stop", ("stop_sequence", "END")),
        ("model_context_window_exceeded", "length", ("model_context_window_exceeded", None)),
        ("stop", "stop", ("end_turn", None)),
        ("RECITATION", "content_filter", ("refusal", None)),
    ],
)
def test_a_native_reason_stays_what_it_was_if_it_is_this_dialects(
    native: str, ours: str, told: tuple[str, str | None]
) -> None:
    choice = {"delta": {}, "finish_reason": ours, "native_finish_reason": native}
    if native == "stop_sequence":
        choice["stop_sequence"] = "END"
    data = json.dumps({"choices": [choice]}).encode()
    made = both([TextDelta("a"), Finished(ours, original=Original("openai.chunk", data))])
    assert (made["stop_reason"], made["stop_sequence"]) == told


@pytest.mark.parametrize("arguments", ["{not json", "[1]", "1", "null", '{"a":'])
def test_arguments_that_are_no_object_are_an_error_unless_the_limit_cut_them(arguments: str) -> None:
    call: list[Delta] = [ToolCallDelta(0, "a", "f"), ToolCallDelta(0, arguments=arguments)]
    for form in (streamed, whole):
        with pytest.raises(UpstreamInvalid):
            form([*call, Finished("tool_calls")])
    cut = whole([*call, Finished("length")])
    assert (cut["content"][0]["input"], cut["stop_reason"]) == ({}, "max_tokens")


def test_a_call_without_arguments_has_an_empty_input() -> None:
    assert both([ToolCallDelta(0, "a", "f"), Finished("tool_calls")])["content"][0]["input"] == {}


def test_pieces_of_a_call_that_was_whole_are_an_error() -> None:
    deltas: list[Delta] = [
        ToolCallDelta(0, "a", "f", "{}"),
        ToolCallDelta(1, "b", "g", "{}"),
        ToolCallDelta(0, arguments="x"),
        Finished("tool_calls"),
    ]
    with pytest.raises(UpstreamInvalid):
        whole(deltas)


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (Usage(9, 2, 11), (9, 0, 2)),
        (Usage(9, 2, 11, raw=b'{"prompt_tokens_details":{"cached_tokens":4}}'), (5, 4, 2)),
        (Usage(9, 2, 11, raw=b'{"prompt_tokens_details":{"cached_tokens":99}}'), (0, 9, 2)),
        (Usage(9, 2, 11, raw=b'{"prompt_tokens_details":null}'), (9, 0, 2)),
    ],
)
def test_what_a_cache_gave_is_not_among_the_input(usage: Usage, expected: tuple[int, int, int]) -> None:
    told = both([TextDelta("a"), Finished("stop"), UsageDelta(usage)])["usage"]
    assert (told["input_tokens"], told["cache_read_input_tokens"], told["output_tokens"]) == expected


def test_the_services_own_figures_come_through_with_every_detail() -> None:
    native = {
        "input_tokens": 3,
        "cache_creation_input_tokens": 7,
        "output_tokens": 2,
        "service_tier": "batch",
    }
    raw = json.dumps({"native_usage": native}).encode()
    assert both([TextDelta("a"), Finished("stop"), UsageDelta(Usage(10, 2, 12, raw=raw))])["usage"] == native


def test_figures_that_are_guessed_say_so() -> None:
    assert both([TextDelta("a"), Finished("stop")])["usage"]["estimated"] is True


@given(st.lists(st.text(min_size=1, max_size=5), max_size=4), call_pieces(), st.integers(1, 40))
def test_what_we_write_is_read_back_by_our_own_reader(
    words: list[str], calls: tuple[list[Delta], list[dict[str, Any]]], size: int
) -> None:
    encoder = MessagesEncoder(model="m", id="msg_1", request_id="req_1", thoughts=True)
    deltas: list[Delta] = [*map(TextDelta, words), *calls[0], Finished("tool_calls")]
    sent = encoder.encode(deltas) + encoder.finish(Usage(1, 1, 2))
    reader = MessagesReader()
    read: list[Delta] = []
    for at in range(0, len(sent), size):
        read += reader.feed(sent[at : at + size])
    read += reader.eof()
    assert "".join(delta.text for delta in read if isinstance(delta, TextDelta)) == "".join(words)
    for position, value in enumerate(calls[1]):
        pieces = [d.arguments for d in read if isinstance(d, ToolCallDelta) and d.position == position]
        assert json.loads("".join(pieces)) == value


def test_further_choices_which_nobody_has_asked_for_are_told_to_be_missing() -> None:
    deltas: list[Delta] = [TextDelta("a"), TextDelta("b", 1), Finished("stop"), Finished("stop", 1)]
    made = both(deltas)
    assert made["content"] == [{"type": "text", "text": "a"}]
    assert made["antiphon"] == {"warnings": ["choices but the first were left out"]}


THOUGHT = {"type": "reasoning.text", "index": 0, "format": "anthropic-claude-v1"}
DETAILS = [THOUGHT | {"text": "I think.", "signature": "Eo"}]


@pytest.mark.parametrize("told", [True, False])
def test_openrouters_thoughts_are_blocks_of_thinking_and_what_is_signed_is_sealed_behind_them(
    told: bool,
) -> None:
    pieces = [THOUGHT | {"text": "I "}, THOUGHT | {"text": "think."}, THOUGHT | {"signature": "Eo"}]
    deltas: list[Delta] = []
    for piece in pieces:
        deltas.append(beside(reasoning_details=[piece]))
        if told and piece.get("text"):
            deltas[-1] = beside(reasoning_details=[piece], reasoning=piece["text"])
            deltas.append(ReasoningDelta(str(piece["text"]), 0, "reasoning"))
    made = both([*deltas, TextDelta("Yes."), Finished("stop")])
    thinking, kept, text = made["content"]
    assert (thinking["type"], thinking["thinking"], text["text"]) == ("thinking", "I think.", "Yes.")
    assert unsealed(kept["data"]) == [{"reasoning_details": DETAILS}]
    assert "antiphon" not in made


def test_what_a_cache_gave_or_took_is_not_among_the_input() -> None:
    details = {"cached_tokens": 4, "cache_write_tokens": 3}
    usage = Usage(9, 2, 11, raw=json.dumps({"prompt_tokens_details": details}).encode())
    told = both([TextDelta("a"), Finished("stop"), UsageDelta(usage)])["usage"]
    assert (told["input_tokens"], told["cache_read_input_tokens"]) == (2, 4)
    assert told["cache_creation_input_tokens"] == 3
