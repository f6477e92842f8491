"""Google's ``Schema``, the subset of OpenAPI's that its models first took, and what is no such thing."""

from __future__ import annotations

_KEYWORDS = frozenset(
    (
        *("type", "format", "title", "description", "nullable", "enum", "default", "example", "anyOf"),
        *("items", "minItems", "maxItems", "properties", "required", "minProperties", "maxProperties"),
        *("propertyOrdering", "minimum", "maximum", "minLength", "maxLength", "pattern"),
    )
)
_TYPES = ("STRING", "NUMBER", "INTEGER", "BOOLEAN", "ARRAY", "OBJECT", "NULL")


def check_schema(schema: object, where: str) -> str | None:
    """What Google says of a schema that stands at ``where``; None if it takes it."""
    if not isinstance(schema, dict):
        return f"Invalid value at '{where}'"
    for keyword in schema:
        if keyword not in _KEYWORDS:
            return (
                f"Invalid JSON payload received. Unknown name \"{keyword}\" at '{where}': Cannot find field."
            )
    kind = schema.get("type")
    if kind is not None and str(kind).upper() not in _TYPES:
        return (
            f"Invalid value at '{where}.type' (type.googleapis.com/google.ai.generativelanguage.v1beta.Type)"
        )
    enum = schema.get("enum", [])
    if enum and (str(kind).upper() != "STRING" or any(not isinstance(one, str) or not one for one in enum)):
        return f"* GenerateContentRequest.{where}.enum: only allowed for STRING type\n"
    if str(kind).upper() == "OBJECT" and not schema.get("properties"):
        return f"* GenerateContentRequest.{where}.properties: should be non-empty for OBJECT type\n"
    if str(kind).upper() == "ARRAY" and "items" not in schema:
        return f"* GenerateContentRequest.{where}.items: missing field.\n"
    inner = [(one, f"{where}.properties[{name}]") for name, one in schema.get("properties", {}).items()]
    inner += [(one, f"{where}.any_of[{at}]") for at, one in enumerate(schema.get("anyOf", []))]
    inner += [(schema["items"], f"{where}.items")] if "items" in schema else []
    return next((fault for one, at in inner if (fault := check_schema(one, at)) is not None), None)
