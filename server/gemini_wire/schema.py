"""JSON Schema → the subset of OpenAPI's schemas that models before Gemini 2.5 read.

Source: the ``Schema`` object of the vendor's API reference. Keywords that it has not only make a schema
wider when they go, so they are left out and named; what cannot be said at all is refused.
"""

from __future__ import annotations

from typing import Any

from server.foreign import unsupported, wrong

_KEPT = (
    "title",
    "description",
    "pattern",
    "minimum",
    "maximum",
    "minItems",
    "maxItems",
    "minLength",
    "maxLength",
    "minProperties",
    "maxProperties",
    "required",
    "nullable",
    "propertyOrdering",
    "default",
    "example",
)
# References that are put in where they stand may grow without end.
MOST_SCHEMAS = 10_000
_FORMATS = frozenset({"float", "double", "int32", "int64", "enum", "date-time"})
# They say nothing about a value, or are taken care of by name.
_SILENT = frozenset({"$schema", "$id", "$defs", "definitions", "$comment", "type", "format", "const", "enum"})
_TAKEN = frozenset({*_KEPT, *_SILENT, "$ref", "properties", "items", "anyOf", "oneOf", "allOf"})


class OpenApiSchemas:
    """Converts the schemas of one request. ``left_out`` names the keywords that were lost."""

    def __init__(self) -> None:
        self.left_out: set[str] = set()

    def convert(self, schema: object, param: str) -> dict[str, Any]:
        """The schema at ``param``, as those models read it.

        Raises ``InvalidRequest`` if it is no object, refers to what is not there, or to itself.
        """
        return _Schema(schema, param, self.left_out).converted(schema, ())


class _Schema:
    """One schema with its definitions."""

    def __init__(self, root: object, param: str, left_out: set[str]) -> None:
        self._root, self._param, self._left_out = root, param, left_out
        self._count = 0

    def converted(self, schema: object, within: tuple[str, ...]) -> dict[str, Any]:
        if schema is True or schema == {}:
            return {}
        self._count += 1
        if self._count > MOST_SCHEMAS:
            raise unsupported(self._param, "is too large for this model")
        if not isinstance(schema, dict):
            raise wrong(self._param, "must hold JSON schemas only: objects", "invalid_type")
        if "$ref" in schema:
            return self._referred(schema, within)
        made = {key: schema[key] for key in _KEPT if key in schema}
        self._left_out.update(key for key in schema if key not in _TAKEN)
        self._put_type(schema, made)
        if isinstance(properties := schema.get("properties"), dict):
            made["properties"] = {name: self.converted(one, within) for name, one in properties.items()}
        if "items" in schema:
            made["items"] = self.converted(schema["items"], within)
        for key in ("anyOf", "oneOf"):
            if isinstance(schema.get(key), list):
                self._put_choices(schema[key], made, within)
        if isinstance(parts := schema.get("allOf"), list):
            for one in parts:
                made = self.converted(one, within) | made
        self._complete(made)
        return made

    def _referred(self, schema: dict[str, Any], within: tuple[str, ...]) -> dict[str, Any]:
        place = schema["$ref"]
        if place in within:
            raise unsupported(self._param, "refers to itself, which this model cannot read")
        found: Any = self._root
        for step in str(place).removeprefix("#").split("/")[1:]:
            found = found.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(found, dict) else None
        if not str(place).startswith("#") or found is None:
            raise wrong(self._param, "holds a $ref to what is not in it", "invalid_value")
        beside = {key: value for key, value in schema.items() if key != "$ref"}
        return self.converted(found, (*within, place)) | self.converted(beside, within)

    def _put_type(self, schema: dict[str, Any], made: dict[str, Any]) -> None:
        given = schema.get("type")
        names = [one for one in (given if isinstance(given, list) else [given]) if one is not None]
        enum = [schema["const"]] if "const" in schema else schema.get("enum")
        if "null" in names or (isinstance(enum, list) and None in enum):
            made["nullable"] = True
        names = [name for name in names if name != "null"]
        if len(names) == 1:
            made["type"] = str(names[0]).upper()
        elif names:
            made["anyOf"] = [{"type": str(name).upper()} for name in names]
        if isinstance(enum, list):
            words = [one for one in enum if one is not None]
            if words and all(isinstance(one, str) for one in words):
                made |= {"type": "STRING", "format": "enum", "enum": words}
            else:
                self._left_out.add("enum")
        elif isinstance(form := schema.get("format"), str) and form in _FORMATS:
            made["format"] = form

    def _complete(self, made: dict[str, Any]) -> None:
        """An object without properties is refused there, and so is an array that does not say of what."""
        if made.get("type") == "OBJECT" and not made.get("properties"):
            made.pop("properties", None)
            del made["type"]
            self._left_out.add("type")
        elif made.get("type") == "ARRAY":
            made.setdefault("items", {})

    def _put_choices(self, choices: list[Any], made: dict[str, Any], within: tuple[str, ...]) -> None:
        kept = [one for one in choices if not (isinstance(one, dict) and one.get("type") == "null")]
        if len(kept) < len(choices):
            made["nullable"] = True
        found = [self.converted(one, within) for one in kept]
        if len(found) == 1:
            for key, value in found[0].items():
                made.setdefault(key, value)
        elif found:
            made["anyOf"] = found
