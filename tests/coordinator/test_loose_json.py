"""JSON in the texts of models."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.coordinator.loose_json import NoJson, canonical, find_json, find_object

# What a decoder still takes, though nobody could go down into it.
DEEP = "[" * 600 + "]" * 600


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": 1}', {"a": 1}),
        ('Sure!\n```json\n{"a": 1}\n```\nDone.', {"a": 1}),
        ('I {think} that {"a": {"b": []}} fits.', {"a": {"b": []}}),
        ("[1, 2]", [1, 2]),
        ('"text"', "text"),
    ],
)
def test_json_is_found_bare_in_a_fence_or_after_prose(text: str, value: Any) -> None:
    assert find_json(text) == value


@pytest.mark.parametrize(
    "text", ["", "nothing", "{a: 1}", '{"a": ', "[" * 5000, "NaN", '{"a": NaN}', DEEP, f"So: {DEEP}"]
)
def test_a_text_without_json_says_so(text: str) -> None:
    with pytest.raises(NoJson):
        find_json(text)


def test_a_list_is_no_object() -> None:
    with pytest.raises(NoJson):
        find_object("[1]")


def test_equal_values_are_written_alike() -> None:
    assert canonical({"b": 1.0, "a": [True, None]}) == canonical({"a": [True, None], "b": 1})


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        find_json(text)
    except NoJson:
        pass
