"""The figures of a response."""

from __future__ import annotations

import pytest

from server.deltas import Usage
from server.responses_wire.response import usage_fields


def test_what_was_written_to_a_cache_is_told() -> None:
    raw = b'{"prompt_tokens_details":{"cached_tokens":4,"cache_write_tokens":3}}'
    told = usage_fields(Usage(9, 2, 11, raw=raw))["input_tokens_details"]
    assert told == {"cached_tokens": 4, "cache_write_tokens": 3}


@pytest.mark.parametrize(
    ("raw", "cached", "thought"),
    [
        (None, 0, 0),
        (b'{"prompt_tokens_details":{"cached_tokens":4},"completion_tokens_details":null}', 4, 0),
        (b'{"completion_tokens_details":{"reasoning_tokens":7},"prompt_tokens_details":[]}', 0, 7),
        (b'{"prompt_tokens_details":{"cached_tokens":"x"}}', 0, 0),
    ],
)
def test_details_are_there_even_where_nobody_told_them(raw: bytes | None, cached: int, thought: int) -> None:
    told = usage_fields(Usage(9, 2, 11, raw=raw))
    assert (told["input_tokens"], told["output_tokens"], told["total_tokens"]) == (9, 2, 11)
    assert told["input_tokens_details"]["cached_tokens"] == cached
    assert told["output_tokens_details"]["reasoning_tokens"] == thought
    assert "estimated" not in told
