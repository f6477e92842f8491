"""JSON values and the schemas that they fit."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.coordinator.json_shape import fits

PERSON = {
    "type": "object",
    "required": ["name"],
    "properties": {"name": {"type": "string", "minLength": 1}, "age": {"type": "integer", "minimum": 0}},
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("value", "schema", "expected"),
    [
        ({"name": "Ada"}, PERSON, True),
        ({"name": ""}, PERSON, False),
        ({"name": "Ada", "age": -1}, PERSON, False),
        ({"name": "Ada", "x": 1}, PERSON, False),
        ({"age": 1}, PERSON, False),
        ([1, 2], {"type": "array", "items": {"type": "integer"}, "maxItems": 2}, True),
        ([1, "2"], {"type": "array", "items": {"type": "integer"}}, False),
        (True, {"type": "integer"}, False),
        (1.0, {"type": "integer"}, True),
        (1, {"const": True}, False),
        (None, {"type": ["string", "null"]}, True),
        ("a", {"enum": ["a", "b"]}, True),
        ("c", {"enum": ["a", "b"]}, False),
        ("abc", {"pattern": "^a"}, True),
        ("bc", {"pattern": "^a"}, False),
        (3, {"anyOf": [{"type": "string"}, {"minimum": 3}]}, True),
        (3, {"oneOf": [{"minimum": 1}, {"minimum": 3}]}, False),
        (3, {"not": {"minimum": 3}}, False),
        (
            {"a": [{"a": []}]},
            {"$ref": "#/$defs/n", "$defs": {"n": {"properties": {"a": {"items": {"$ref": "#/$defs/n"}}}}}},
            True,
        ),
        (1, {"$ref": "#/$defs/none"}, False),
        (1, {"$ref": "https://example.org/schema"}, False),
        (1, False, False),
        (1, {"unknown": 1, "type": "odd"}, True),
        ("2026-11-21", {"pattern": r"^\d{4}-\d{2}-\d{2}$"}, True),
        ("21.11.2026", {"pattern": r"^\d{4}-\d{2}-\d{2}$"}, False),
        ("(", {"pattern": r"^[*+?(){}]$"}, True),
        ("a", {"pattern": "("}, True),
    ],
)
def test_the_keywords_of_structured_outputs_are_checked(value: Any, schema: Any, expected: bool) -> None:
    assert fits(value, schema) is expected


def test_a_schema_that_leads_back_to_itself_fits_nothing_and_ends() -> None:
    assert not fits(1, {"$ref": "#"})


@pytest.mark.parametrize(
    "wrong",
    [
        {"enum": 5},
        {"required": 7},
        {"required": [[]]},
        {"properties": 1},
        {"type": [[]]},
        {"allOf": 3},
        {"anyOf": None},
        {"oneOf": "ab"},
        {"minimum": "1"},
        {"pattern": 4},
    ],
    ids=str,
)
def test_a_keyword_that_is_written_wrongly_says_nothing(wrong: dict[str, Any]) -> None:
    assert fits({"a": 1}, wrong)
    assert not fits({"a": 1}, wrong | {"const": 2})


@pytest.mark.parametrize("key", ["anyOf", "oneOf"])
def test_a_schema_that_branches_without_end_is_given_up(key: str) -> None:
    assert not fits({"a": 1}, {key: [{"$ref": "#"}, {"$ref": "#"}]})
    assert not fits({"a": 1}, {"not": {key: [{"$ref": "#"}, {"not": {"$ref": "#"}}]}})


@pytest.mark.parametrize("pattern", ["^(a+)+$", "^(?:a|aa)*$", "a*a*a*b", "(a?){40}a{40}", "(a|a){30}"])
def test_a_pattern_that_may_never_end_is_not_tried(pattern: str) -> None:
    assert fits("a" * 40 + "!", {"pattern": pattern})


@pytest.mark.parametrize(
    ("value", "schema"),
    [
        (["a" * 1000] * 10_000, {"items": {"pattern": "b*c"}}),
        ([1] * 10_000, {"items": {"enum": list(range(2, 10_000))}}),
        ([{}] * 10_000, {"items": {"required": ["a"] * 10_000}}),
    ],
    ids=["patterns", "choices", "required names"],
)
def test_what_costs_much_at_each_place_is_given_up(value: Any, schema: dict[str, Any]) -> None:
    assert not fits(value, schema)


def test_a_long_answer_in_good_order_is_looked_at_whole() -> None:
    people = [{"name": "Ada", "age": number} for number in range(5000)]
    assert fits(people, {"type": "array", "items": PERSON})
    assert not fits([*people, {"name": ""}], {"type": "array", "items": PERSON})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["a", "#", "object", "string"]),
    lambda one: (
        st.lists(one, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "type", "enum", "anyOf", "$ref", "not", "items"]), one)
    ),
    max_leaves=12,
)


@given(JSON, JSON)
def test_any_value_and_any_schema_get_a_verdict(value: Any, schema: Any) -> None:
    assert fits(value, schema) in (True, False)


@given(
    st.recursive(
        st.none() | st.integers() | st.text(), lambda one: st.lists(one) | st.dictionaries(st.text(), one)
    )
)
def test_the_empty_schema_fits_everything(value: Any) -> None:
    assert fits(value, {})
    assert fits(value, {"const": value})
