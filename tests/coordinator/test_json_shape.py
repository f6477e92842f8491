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
    ],
)
def test_the_keywords_of_structured_outputs_are_checked(value: Any, schema: Any, expected: bool) -> None:
    assert fits(value, schema) is expected


def test_a_schema_that_leads_back_to_itself_fits_nothing_and_ends() -> None:
    assert not fits(1, {"$ref": "#"})


@given(
    st.recursive(
        st.none() | st.integers() | st.text(), lambda one: st.lists(one) | st.dictionaries(st.text(), one)
    )
)
def test_the_empty_schema_fits_everything(value: Any) -> None:
    assert fits(value, {})
    assert fits(value, {"const": value})
