"""Which schemas the older models take."""

from __future__ import annotations

from typing import Any

import pytest

from server.simulators.gemini_schemas import check_schema


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "OBJECT", "properties": {"a": {"type": "string", "enum": ["x"]}}, "required": ["a"]},
        {"type": "ARRAY", "items": {"anyOf": [{"type": "INTEGER"}, {"type": "STRING"}]}},
        {"type": "STRING", "nullable": True, "format": "enum", "enum": ["a", "b"]},
    ],
)
def test_its_own_schemas_are_taken(schema: dict[str, Any]) -> None:
    assert check_schema(schema, "p") is None


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ([], "Invalid value at 'p'"),
        ({"type": "OBJECT", "additionalProperties": False}, "Unknown name \"additionalProperties\" at 'p'"),
        ({"type": "text"}, "p.type"),
        ({"type": ["STRING"]}, "p.type"),
        ({"type": "INTEGER", "enum": [1]}, "only allowed for STRING"),
        ({"type": "STRING", "enum": [""]}, "only allowed for STRING"),
        ({"type": "OBJECT", "properties": {}}, "should be non-empty"),
        ({"type": "object"}, "should be non-empty"),
        ({"type": "ARRAY"}, "p.items: missing field"),
        ({"type": "ARRAY", "items": {"const": 1}}, "at 'p.items'"),
        ({"type": "OBJECT", "properties": {"a": {"$ref": "#"}}}, "at 'p.properties[a]'"),
        ({"anyOf": [{}, {"oneOf": []}]}, "at 'p.any_of[1]'"),
    ],
)
def test_others_are_refused_by_their_place(schema: Any, words: str) -> None:
    assert words in (check_schema(schema, "p") or "")
