"""What clients of other dialects want of a chunk is found, and what must come back can be sealed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from server.foreign import MOST_WARNINGS
from server.openai_wire import Kept, LeftOut, kept_in, sealed, unsealed

BLOCK = {"type": "thinking", "thinking": "hm", "signature": "Eq"}
EXTRA = {"google": {"thought_signature": "Ej"}}


@pytest.mark.parametrize("where", ["delta", "message"])
def test_thoughts_and_what_stands_beside_calls_are_found(where: str) -> None:
    said = {
        "thinking_blocks": [{"index": 0, **BLOCK}],
        "tool_calls": [{"index": 1, "extra_content": EXTRA}, {"extra_content": EXTRA}, {"index": 2}],
    }
    kept = kept_in(json.dumps({"choices": [{where: said}]}).encode())
    assert kept is not None
    assert kept.blocks == [BLOCK]
    assert kept.extras == {1: EXTRA}
    assert kept.sources == []


def found(where: str = "delta", top: dict[str, Any] | None = None, **said: Any) -> Kept:
    kept = kept_in(json.dumps({"choices": [{where: said}], **(top or {})}).encode())
    assert kept is not None
    return kept


def test_what_has_no_place_in_other_dialects_is_named_and_what_says_nothing_is_not() -> None:
    silent = {"system_fingerprint": "fp", "x_groq": {"id": "1"}, "related_questions": [], "usage": {"x": 1}}
    kept = found(
        smell="tea", audio={"data": "AA"}, touch=None, native_metadata={"a": 1, "safetyRatings": [1]}
    )
    assert kept.left == ["smell", "audio", "a"]
    assert kept_in(json.dumps({"choices": [{"delta": {"content": "a"}}], **silent}).encode()) is None
    told = found(top={"related_questions": ["why?"]}, content="a")
    assert told.left == ["related_questions"]
    choice = {"delta": {"content": "a"}, "logprobs": {"content": []}, "finish_reason": None, "stop_reason": 7}
    kept_of_choice = kept_in(json.dumps({"choices": [choice]}).encode())
    assert kept_of_choice is not None
    assert kept_of_choice.left == ["logprobs"]


@pytest.mark.parametrize(
    "top",
    [
        {"citations": ["https://e.com"]},
        {
            "search_results": [{"url": "https://e.com", "title": "E", "date": None}],
            "citations": ["https://x"],
        },
        {"web_search": [{"link": "https://e.com", "title": "E", "refer": "ref_1"}]},
        {"search_info": {"search_results": [{"index": 1, "url": "https://e.com", "title": "E"}]}},
    ],
)
def test_what_vendors_have_found_beside_the_answer_are_sources(top: dict[str, Any]) -> None:
    (source,) = found(top=top, content="a").sources
    assert source["url_citation"]["url"] == "https://e.com"


def test_pictures_words_and_calls_of_the_legacy_form_are_found() -> None:
    kept = found(
        "message",
        images=[{"image_url": {"url": "data:,a"}}, {"image_url": "https://e.com"}, {"image_url": 7}, "odd"],
        audio={"id": "a", "data": "AA", "transcript": "Hi"},
        function_call={"name": "f", "arguments": "{}"},
        extra_content=EXTRA,
        native_citations=[{"type": "page_location"}],
        native_block=True,
    )
    assert (kept.images, kept.transcript, kept.left) == (["data:,a", "https://e.com"], "Hi", ["audio"])
    (call,) = kept.calls
    assert (call.position, call.name, call.arguments) == (-1, "f", "{}")
    assert (kept.extra, kept.citations, kept.begins) == (EXTRA, [{"type": "page_location"}], True)
    (piece,) = found(function_call={"arguments": "x"}).calls
    assert (piece.id, piece.name, piece.arguments) == (None, None, "x")


def test_warnings_are_told_once_each_in_plain_words_and_beside_what_there_is() -> None:
    left = LeftOut()
    assert left.beside(None) is None
    assert left.beside(b'{"a":1}') == b'{"a":1}'
    left.note(["audio", "audio", "nämlich\r\n"])
    left.note(["images"], "are elsewhere")
    words = ("audio was left out", "a field of an odd name was left out", "images are elsewhere")
    assert left.warnings == words
    assert json.loads(left.beside(b'{"a": 1.0}', images=[], more=[1]) or b"") == {
        "a": 1.0,
        "warnings": list(words),
        "more": [1],
    }
    left.note(f"field{at}" for at in range(1000))
    assert len(left.warnings) == MOST_WARNINGS + 1


def test_sources_are_found() -> None:
    source = {"type": "url_citation", "url_citation": {"url": "https://e.com", "title": "E"}}
    kept = kept_in(json.dumps({"choices": [{"delta": {"annotations": [source]}}]}).encode())
    assert kept is not None
    assert kept.sources == [source]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b'{"choices":[]}',
        b'{"choices":null,"thinking_blocks":1}',
        b'{"choices":[{"delta":{"content":"\\"thinking_blocks\\""}}]}',
        b'{"choices":[{"delta":{"thinking_blocks":"odd"}}]}',
        b'{"choices":[{"delta":{"tool_calls":[{"extra_content":null}]}}]}',
    ],
)
def test_where_nothing_is_to_be_kept_there_is_nothing(data: bytes) -> None:
    assert kept_in(data) is None


def test_what_is_sealed_comes_out_as_it_went_in_and_nothing_else_does() -> None:
    assert unsealed(sealed([BLOCK])) == [BLOCK]
    assert unsealed("gAAAA") is None
    for broken in ("antiphon:!", "antiphon:e30", "antiphon:"):
        with pytest.raises(ValueError, match="not as it was given"):
            unsealed(broken)


def test_what_chunks_of_vendors_bear_by_habit_is_nothing() -> None:
    said = {"role": "assistant", "content": "a", "reasoning": None, "function_call": None, "audio": None}
    choice = {"index": 0, "delta": said, "logprobs": None, "native_finish_reason": None, "stop_reason": None}
    top = {"id": "1", "provider": "p", "system_fingerprint": None, "usage": None, "prompt_token_ids": None}
    assert kept_in(json.dumps({**top, "choices": [choice]}).encode()) is None
    told = {**top, "choices": [choice | {"logprobs": {"content": [1]}}]}
    kept = kept_in(json.dumps(told).encode())
    assert kept is not None
    assert kept.left == ["logprobs"]
