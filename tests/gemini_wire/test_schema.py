"""JSON Schema for models that read OpenAPI's only."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.errors import InvalidRequest
from server.gemini_wire.schema import OpenApiSchemas


def converted(schema: Any) -> dict[str, Any]:
    return OpenApiSchemas().convert(schema, "p")


@pytest.mark.parametrize(
    ("schema", "made"),
    [
        ({"type": "string", "format": "date-time"}, {"type": "STRING", "format": "date-time"}),
        ({"type": "string", "format": "uri"}, {"type": "STRING"}),
        ({"type": ["integer", "null"]}, {"type": "INTEGER", "nullable": True}),
        ({"type": ["integer", "string"]}, {"anyOf": [{"type": "INTEGER"}, {"type": "STRING"}]}),
        ({"const": "a"}, {"type": "STRING", "format": "enum", "enum": ["a"]}),
        (
            {"type": "string", "enum": ["a", "b", None]},
            {"type": "STRING", "format": "enum", "enum": ["a", "b"], "nullable": True},
        ),
        ({"type": "integer", "enum": [1, 2]}, {"type": "INTEGER"}),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, {"type": "STRING", "nullable": True}),
        (
            {"oneOf": [{"type": "string"}, {"type": "integer"}]},
            {"anyOf": [{"type": "STRING"}, {"type": "INTEGER"}]},
        ),
        (
            {"allOf": [{"type": "string"}, {"minLength": 1}], "title": "x"},
            {"type": "STRING", "minLength": 1, "title": "x"},
        ),
        ({"type": "array", "items": {"type": "number"}}, {"type": "ARRAY", "items": {"type": "NUMBER"}}),
        (
            {"type": "object", "properties": {"a": {}, "b": True}, "required": ["a"]},
            {"type": "OBJECT", "properties": {"a": {}, "b": {}}, "required": ["a"]},
        ),
        (
            {"type": "object", "properties": {"any": {"type": "object", "title": "x"}}},
            {"type": "OBJECT", "properties": {"any": {"title": "x"}}},
        ),
        ({"type": "array"}, {"type": "ARRAY", "items": {}}),
        (
            {"$defs": {"a/b": {"type": "string"}}, "$ref": "#/$defs/a~1b", "description": "x"},
            {"type": "STRING", "description": "x"},
        ),
    ],
)
def test_what_can_be_said_is_said(schema: dict[str, Any], made: dict[str, Any]) -> None:
    assert converted(schema) == made


def test_keywords_that_are_lost_are_named() -> None:
    schemas = OpenApiSchemas()
    inner = {"type": "string", "contentEncoding": "base64", "enum": [1]}
    schemas.convert({"type": "object", "additionalProperties": False, "properties": {"a": inner}}, "p")
    assert schemas.left_out == {"additionalProperties", "contentEncoding", "enum"}


def test_a_property_may_be_named_as_a_keyword_is() -> None:
    made = converted(
        {"type": "object", "properties": {"$ref": {"type": "string"}, "const": {"type": "string"}}}
    )
    assert [*made["properties"]] == ["$ref", "const"]


@pytest.mark.parametrize(
    ("schema", "code"),
    [
        ({"properties": {"a": {"$ref": "#"}}}, "unsupported_parameter"),
        ({"$defs": {"a": {"items": {"$ref": "#/$defs/a"}}}, "$ref": "#/$defs/a"}, "unsupported_parameter"),
        ({"$ref": "#/$defs/none"}, "invalid_value"),
        ({"$ref": "https://example.com/schema"}, "invalid_value"),
        ({"items": [1]}, "invalid_type"),
        (7, "invalid_type"),
    ],
)
def test_what_cannot_be_said_is_refused(schema: Any, code: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        converted(schema)
    assert (raised.value.param, raised.value.code) == ("p", code)


def test_references_that_grow_without_end_are_refused() -> None:
    grown = {
        f"d{at}": {"properties": {one: {"$ref": f"#/$defs/d{at + 1}"} for one in "ab"}} for at in range(40)
    }
    with pytest.raises(InvalidRequest, match="too large"):
        converted({"$defs": {**grown, "d40": {}}, "$ref": "#/$defs/d0"})


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["string", "null", "#", "#/a", ""]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "type",
                    "properties",
                    "items",
                    "anyOf",
                    "oneOf",
                    "allOf",
                    "$ref",
                    "enum",
                    "const",
                    "format",
                    "a",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["type", "format", "items", "anyOf", "allOf", "$ref"]), _VALUES))
def test_odd_schemas_raise_nothing_but_our_refusal(schema: dict[str, Any]) -> None:
    with suppress(InvalidRequest):
        converted(schema)
