"""JSON Schema of every event, made from the structs. No I/O."""

from __future__ import annotations

from typing import Any

import msgspec

from server.events.data import DATA_TYPES
from server.events.envelope import VERSION
from server.events.parts import Data, MemberRef, StageRef

DIALECT = "https://json-schema.org/draft/2020-12/schema"
REF = "#/$defs/{name}"


def events_schema() -> dict[str, Any]:
    """The schema of one event of any type; ``$defs`` holds one for each type, by its name."""
    kinds = list(DATA_TYPES.values())
    shapes, parts = msgspec.json.schema_components([StageRef, MemberRef, *kinds], ref_template=REF)
    stage, member, *data = shapes
    definitions = {name: _always_told(part) for name, part in sorted(parts.items())}
    for kind, shape in zip(kinds, data, strict=True):
        definitions[kind.type] = _event(kind, shape, stage, member)
    return {
        "$schema": DIALECT,
        "title": "Antiphon: events of a run",
        "description": "Within v 1 types and fields may be added: pass over what you do not know.",
        "anyOf": [{"$ref": REF.format(name=name)} for name in DATA_TYPES],
        "$defs": definitions,
    }


def _always_told(part: dict[str, Any]) -> dict[str, Any]:
    """What has a default for whoever makes it is still told each time; only what is UNSET is left out."""
    fields = part["properties"]
    told = [name for name in fields if name in part.get("required", ()) or "default" in fields[name]]
    plain = {
        name: {key: value for key, value in field.items() if key != "default"}
        for name, field in fields.items()
    }
    return part | {"properties": plain, "required": told}


def _event(
    kind: type[Data], data: dict[str, Any], stage: dict[str, Any], member: dict[str, Any]
) -> dict[str, Any]:
    """The envelope around one type's data."""
    fields: dict[str, Any] = {"v": {"const": VERSION}, "type": {"const": kind.type}}
    if kind.volatile:
        fields["volatile"] = {"const": True}
    fields |= {
        "sequence_number": {"type": "integer", "minimum": 1},
        "time": {"type": "string", "format": "date-time"},
        "elapsed_ms": {"type": "integer", "minimum": 0},
        "run_id": {"type": "string"},
    }
    about = kind.type.partition(".")[0]
    if about != "run":
        fields["stage"] = stage
    if about == "model":
        fields["member"] = member
    fields["data"] = data
    told: dict[str, Any] = {"type": "object"}
    if kind.gated:
        gates = ", ".join(f"{name} ({gate})" for name, gate in kind.gated.items())
        told["description"] = f"In data only where a watcher included it: {gates}."
    required = list(fields)
    fields["conversation_id"] = {"type": "string", "description": "Only if the request had one."}
    return told | {"properties": fields, "required": required}
