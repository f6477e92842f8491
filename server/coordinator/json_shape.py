"""Does a JSON value fit a JSON Schema? The keywords that structured outputs use; others say nothing.

Nothing is fetched: a ``$ref`` leads to a place within the same schema, or nowhere (and then fits nothing).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

MAX_DEPTH = 100
_TYPES: Mapping[str, Callable[[Any], bool]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "integer": lambda value: (
        (isinstance(value, int) and not isinstance(value, bool))
        or (isinstance(value, float) and value.is_integer())
    ),
}
_BOUNDS: Mapping[str, tuple[type | tuple[type, ...], Callable[[Any, Any], bool]]] = {
    "minLength": (str, lambda value, bound: len(value) >= bound),
    "maxLength": (str, lambda value, bound: len(value) <= bound),
    "minItems": (list, lambda value, bound: len(value) >= bound),
    "maxItems": (list, lambda value, bound: len(value) <= bound),
    "minimum": ((int, float), lambda value, bound: value >= bound),
    "maximum": ((int, float), lambda value, bound: value <= bound),
    "exclusiveMinimum": ((int, float), lambda value, bound: value > bound),
    "exclusiveMaximum": ((int, float), lambda value, bound: value < bound),
}


def fits(value: Any, schema: Any, root: Any = None, depth: int = 0) -> bool:
    """Does ``value`` fit? ``root`` is the whole schema, None if ``schema`` is it."""
    if not isinstance(schema, dict):
        return schema is not False
    if depth > MAX_DEPTH:
        return False
    root = schema if root is None else root

    def inner(one: Any, part: Any) -> bool:
        return fits(one, part, root, depth + 1)

    if "$ref" in schema:
        found = _resolve(root, schema["$ref"])
        if found is None or not inner(value, found):
            return False
    return (
        _is_type(value, schema.get("type"))
        and ("enum" not in schema or any(_same(value, one) for one in schema["enum"]))
        and ("const" not in schema or _same(value, schema["const"]))
        and _within(value, schema)
        and (not isinstance(value, dict) or _object_fits(value, schema, inner))
        and (not isinstance(value, list) or all(inner(one, schema.get("items")) for one in value))
        and all(inner(value, part) for part in schema.get("allOf", ()))
        and ("anyOf" not in schema or any(inner(value, part) for part in schema["anyOf"]))
        and ("oneOf" not in schema or sum(inner(value, part) for part in schema["oneOf"]) == 1)
        and ("not" not in schema or not inner(value, schema["not"]))
    )


def _is_type(value: Any, wanted: Any) -> bool:
    names = [wanted] if isinstance(wanted, str) else wanted if isinstance(wanted, list) else []
    known = [_TYPES[name] for name in names if name in _TYPES]
    return not known or any(check(value) for check in known)


def _within(value: Any, schema: Mapping[str, Any]) -> bool:
    for key, (kind, check) in _BOUNDS.items():
        bound = schema.get(key)
        number = isinstance(bound, int | float) and not isinstance(value, bool)
        if number and isinstance(value, kind) and not check(value, bound):
            return False
    pattern = schema.get("pattern")
    if isinstance(pattern, str) and isinstance(value, str):
        try:
            return re.search(pattern, value) is not None
        except re.error:
            return True  # another dialect's pattern says nothing here
    return True


def _object_fits(value: dict[str, Any], schema: Mapping[str, Any], inner: Callable[[Any, Any], bool]) -> bool:
    properties = schema.get("properties") or {}
    if any(name not in value for name in schema.get("required") or ()):
        return False
    others = schema.get("additionalProperties", True)
    return all(inner(one, properties.get(name, others)) for name, one in value.items())


def _same(value: Any, other: Any) -> bool:
    return value == other and isinstance(value, bool) == isinstance(other, bool)


def _resolve(root: Any, ref: Any) -> Any:
    if not isinstance(ref, str) or not ref.startswith("#"):
        return None
    found = root
    for step in ref[1:].split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if not isinstance(found, dict) or name not in found:
            return None
        found = found[name]
    return found
