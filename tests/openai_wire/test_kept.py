"""What clients of other dialects want of a chunk is found, and what must come back can be sealed."""

from __future__ import annotations

import json

import pytest

from server.openai_wire import kept_in, sealed, unsealed

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
        b'{"choices":[{"delta":null,"extra_content":1}]}',
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
