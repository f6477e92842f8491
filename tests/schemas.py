"""Do events and messages fit the documents that are published of them?"""

from __future__ import annotations

from typing import Any

import msgspec

from server.coordinator.json_shape import fits
from server.events import Event, encode
from server.events.schema import events_schema
from server.handlers.status_schema import FROM_SERVER, asyncapi

EVENTS = events_schema()
ASYNC = asyncapi()
OPEN = frozenset({"answer", "drafts", "reasoning", "progress", "channels"})
_SENT = {str(kind.__struct_config__.tag): kind.__name__ for kind in FROM_SERVER}


def check_event(event: Event) -> None:
    """Whatever a watcher may see of it fits the schema of its type, and holds nothing else."""
    for opened in (frozenset[str](), OPEN):
        check_told(msgspec.json.decode(encode(event, opened)))


def check_told(told: dict[str, Any]) -> None:
    """An event as JSON fits the schema of its type, and holds nothing that is not in it."""
    schema = EVENTS["$defs"][told["type"]]
    assert fits(told, schema, EVENTS), told
    assert set(told) <= set(schema["properties"]), told
    assert set(told["data"]) <= set(_data(schema)["properties"]), told


def check_message(message: dict[str, Any]) -> None:
    """A message of the server's fits its schema, and so does the event in it."""
    schema = ASYNC["components"]["schemas"][_SENT[message["type"]]]
    assert fits(message, schema, ASYNC), message
    assert set(message) <= set(schema["properties"]), message
    if message["type"] == "next":
        check_told(message["event"])


def _data(schema: dict[str, Any]) -> dict[str, Any]:
    name = schema["properties"]["data"]["$ref"].rpartition("/")[2]
    found: dict[str, Any] = EVENTS["$defs"][name]
    return found
