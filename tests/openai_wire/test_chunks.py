"""Edits that lose nothing: what is not touched keeps its bytes."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from server.openai_wire.chunks import (
    MAX_INDEX,
    MAX_TOKENS,
    decode_chunk,
    decode_head,
    edit_object,
    fields_of,
    figure,
    objects,
    raw_of,
    value_of,
    with_choice,
)

ODD = b'{"a":  123456789012345678901234567890 ,"b":1.0,"c":1.10e+2,"choices":[ {"x" : 1} ],"d":"\\u00e4"}'


def test_values_that_are_left_alone_keep_their_bytes() -> None:
    edited = edit_object(ODD, lambda fields: fields.update(model=raw_of("m")))
    for kept in (b"123456789012345678901234567890", b"1.0", b"1.10e+2", b'{"x" : 1}', b'"\\u00e4"'):
        assert kept in edited
    assert json.loads(edited)["model"] == "m"


def test_one_choice_takes_the_place_of_all() -> None:
    edited = with_choice(ODD, {"index": Raw(b"7")})
    assert json.loads(edited)["choices"] == [{"index": 7}]
    assert b"123456789012345678901234567890" in edited


@given(st.dictionaries(st.text(max_size=5), st.integers() | st.text() | st.none(), max_size=5))
def test_an_edit_that_changes_nothing_changes_no_value(value: dict[str, Any]) -> None:
    assert json.loads(edit_object(json.dumps(value).encode(), lambda _: None)) == value


@pytest.mark.parametrize(
    ("value", "tokens"),
    [(0, 0), (7, 7), (7.0, 7), (7.9, 7), (MAX_TOKENS, MAX_TOKENS)],
)
def test_a_number_of_tokens_is_read(value: object, tokens: int) -> None:
    assert figure(value) == tokens


@pytest.mark.parametrize(
    "value", [None, True, False, "7", -1, -0.5, MAX_TOKENS + 1, float("nan"), float("inf"), [], {}]
)
def test_what_is_no_number_of_tokens_is_none(value: object) -> None:
    assert figure(value) is None


@pytest.mark.parametrize("index", [-1, MAX_INDEX + 1, 1.5, '"1"'])
def test_an_index_that_would_cost_memory_is_not_taken(index: object) -> None:
    with pytest.raises(msgspec.ValidationError):
        decode_chunk(f'{{"choices": [{{"index": {index}}}]}}'.encode())


@pytest.mark.parametrize(
    ("field", "value"), [("id", ""), ("id", 7), ("created", 0), ("created", "now"), ("created", True)]
)
def test_an_odd_field_of_the_head_costs_no_other(field: str, value: object) -> None:
    whole = {"id": "c", "created": 5, "object": "chat.completion", "model": "m"}
    head = decode_head(json.dumps(whole | {field: value}).encode())
    assert not head.is_whole("chat.completion")
    assert (head.own_id(), head.own_created()) == (
        None if field == "id" else "c",
        None if field == "created" else 5,
    )
    assert decode_head(json.dumps(whole).encode()).is_whole("chat.completion")


def test_objects_and_fields_are_bytes_by_name() -> None:
    (first,) = objects(b'[{"a": [1, 2 ]}]')
    assert bytes(first["a"]) == b"[1, 2 ]"
    assert bytes(fields_of(b'{"b":{ }}')["b"]) == b"{ }"


@pytest.mark.parametrize("data", [b"", b"{", b"nul", b"\xff", b"[" * 100_000, b'{"a":\xff}'])
def test_what_is_no_json_has_no_value(data: bytes) -> None:
    assert value_of(data) is None
