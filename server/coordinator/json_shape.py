"""Does a JSON value fit a JSON Schema? As far as structured outputs use schemas.

Keywords that say nothing here, and those that are written wrongly, are passed over: the upstream that was
asked for the schema judges it. References lead to a place within the same schema, or nowhere (and then fit
nothing). The schema is a client's and the value a model's, so no pair of them may keep the server busy.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

MAX_DEPTH = 100
MAX_CHECKS = 50_000
"""Of subschemas against values; a pair that wants more fits nothing. It is about a tenth of a second."""

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
# A pattern is tried only if it can turn back in one place at most: one with two repetitions of open length,
# or with a group that is repeated, may take longer than the universe lasts.
_ESCAPED = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]", re.DOTALL)
_REPEATED = re.compile(r"[*+?]|\{\d*,\d*\}")
_GROUP_REPEATED = re.compile(r"\)(?:[*+?]|\{)")
_LOOK = re.compile(r"\(\?(?:[:=!]|<[=!])?")
MAX_PATTERNED = 1_000
"""Characters of a text that a pattern is tried on. So long a text may take as long as some hundred checks."""


def fits(value: Any, schema: Any, root: Any = None) -> bool:
    """Does ``value`` fit? ``root`` is the whole schema, None if ``schema`` is it."""
    return _Check(schema if root is None else root).fits(value, schema, 0)


class _Check:
    """One check, with what it may still do."""

    def __init__(self, root: Any) -> None:
        self._root = root
        self._left = MAX_CHECKS

    def fits(self, value: Any, schema: Any, depth: int) -> bool:
        if not isinstance(schema, dict):
            return schema is not False
        self._left -= _effort(value, schema)
        if depth > MAX_DEPTH or self._left < 0:
            return False

        def inner(one: Any, part: Any) -> bool:
            return self.fits(one, part, depth + 1)

        if "$ref" in schema:
            found = _resolve(self._root, schema["$ref"])
            if found is None or not inner(value, found):
                return False
        choices = schema.get("enum")
        return (
            _is_type(value, schema.get("type"))
            and (not isinstance(choices, list) or any(_same(value, one) for one in choices))
            and ("const" not in schema or _same(value, schema["const"]))
            and _within(value, schema)
            and (not isinstance(value, dict) or _object_fits(value, schema, inner))
            and (not isinstance(value, list) or all(inner(one, schema.get("items")) for one in value))
            and self._combined(value, schema, inner)
        )

    def _combined(self, value: Any, schema: Mapping[str, Any], inner: Callable[[Any, Any], bool]) -> bool:
        """``allOf``, ``anyOf``, ``oneOf`` and ``not``; what was not checked to its end fits nothing."""
        every, some, one = (schema.get(key) for key in ("allOf", "anyOf", "oneOf"))
        fit = (
            (not isinstance(every, list) or all(inner(value, part) for part in every))
            and (not isinstance(some, list) or any(inner(value, part) for part in some))
            and (not isinstance(one, list) or sum(inner(value, part) for part in one) == 1)
            and ("not" not in schema or not inner(value, schema["not"]))
        )
        return fit and self._left >= 0


def _effort(value: Any, schema: Mapping[str, Any]) -> int:
    """How many checks it is worth, beside those of the schemas within."""
    effort = 1
    for key in ("enum", "required"):
        listed = schema.get(key)
        if isinstance(listed, list):
            effort += len(listed) // 16
    if "pattern" in schema and isinstance(value, str):
        effort += min(len(value), MAX_PATTERNED) ** 2 // 3000
    return effort


def _is_type(value: Any, wanted: Any) -> bool:
    names = [wanted] if isinstance(wanted, str) else wanted if isinstance(wanted, list) else []
    known = [_TYPES[name] for name in names if isinstance(name, str) and name in _TYPES]
    return not known or any(check(value) for check in known)


def _within(value: Any, schema: Mapping[str, Any]) -> bool:
    for key, (kind, check) in _BOUNDS.items():
        bound = schema.get(key)
        number = isinstance(bound, int | float) and not isinstance(value, bool)
        if number and isinstance(value, kind) and not check(value, bound):
            return False
    pattern = schema.get("pattern")
    if isinstance(pattern, str) and isinstance(value, str):
        return _matches(pattern, value)
    return True


def _matches(pattern: str, value: str) -> bool:
    """Does it match? So does what is not tried: another dialect's pattern, or one that may take too long."""
    bare = _LOOK.sub("(", _ESCAPED.sub("x", pattern))
    if len(value) > MAX_PATTERNED or _GROUP_REPEATED.search(bare) or len(_REPEATED.findall(bare)) > 1:
        return True
    try:
        return re.search(pattern, value) is not None
    except (re.error, OverflowError, RecursionError):
        return True


def _object_fits(value: dict[str, Any], schema: Mapping[str, Any], inner: Callable[[Any, Any], bool]) -> bool:
    properties, required = schema.get("properties"), schema.get("required")
    if isinstance(required, list) and any(isinstance(name, str) and name not in value for name in required):
        return False
    if not isinstance(properties, dict):
        properties = {}
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
