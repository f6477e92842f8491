"""What a JSON text may be beyond its syntax."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.openai_wire.json_text import MAX_DEPTH, Nesting, is_too_deep, one_line

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=20,
)


def nested(depth: int, opening: str = "[", closing: str = "]") -> bytes:
    return (opening * depth + "1" + closing * depth).encode()


def test_the_limit_itself_is_allowed_and_one_more_is_not() -> None:
    assert not is_too_deep(nested(MAX_DEPTH))
    assert is_too_deep(nested(MAX_DEPTH + 1))
    assert is_too_deep(nested(MAX_DEPTH + 1, '{"a":', "}"))
    # With brackets more than the limit, so that each has to be looked at.
    assert not is_too_deep(b"[[]," + nested(MAX_DEPTH - 1) + b"]")
    assert is_too_deep(b"[[]," + nested(MAX_DEPTH) + b"]")


def test_many_brackets_side_by_side_are_not_deep() -> None:
    assert not is_too_deep(json.dumps([[1]] * 5000).encode())


@pytest.mark.parametrize("text", ["[" * 5000, '"[{' * 3000, "\\[" * 3000, "\\\\" + "[" * 3000])
def test_brackets_within_a_string_do_not_count(text: str) -> None:
    assert not is_too_deep(json.dumps({"content": text}).encode())


def test_brackets_behind_a_string_with_quotes_in_it_do() -> None:
    tricky = json.dumps('a\\"b" \\').encode()
    assert is_too_deep(b"[" + tricky + b"," + nested(MAX_DEPTH) + b"]")


def test_a_string_without_an_end_costs_no_more_than_its_length() -> None:
    assert not is_too_deep(b'"' + b'\\"[' * 500_000)


@given(values, st.sampled_from([None, 1, 3]))
def test_one_line_has_no_line_end_and_the_same_value(value: object, indent: int | None) -> None:
    data = json.dumps(value, indent=indent).encode()
    for ends in (data, data.replace(b"\n", b"\r\n"), data.replace(b"\n", b"\r")):
        line = one_line(ends)
        assert b"\n" not in line
        assert b"\r" not in line
        assert json.loads(line) == value


def test_what_is_one_line_already_is_the_same_object() -> None:
    data = b'{"a": "\xe2\x80\xa8 \\n"}'
    assert one_line(data) is data


@given(st.binary(max_size=400))
def test_any_bytes_are_judged_without_a_fault(data: bytes) -> None:
    assert is_too_deep(data) is False


@pytest.mark.parametrize(
    ("text", "is_open"),
    [
        ("", False),
        ("{}", False),
        ('{"a": [1, {"b": "]}\\"{"}]}', False),
        ('{"a": "\\\\"}', False),
        ("7", False),
        ('{"a": 1', True),
        ('{"a": "x}', True),
        ('["a\\"]', True),
    ],
)
def test_a_text_that_comes_in_pieces_is_open_until_all_has_ended(text: str, is_open: bool) -> None:
    for size in (1, 2, 3, 100):
        nesting = Nesting()
        for at in range(0, len(text), size):
            nesting.add(text[at : at + size])
            nesting.add("")
        assert nesting.open is is_open
