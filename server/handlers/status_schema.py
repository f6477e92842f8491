"""The status channel as an AsyncAPI document: every message of the websocket, both ways. No I/O."""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

import msgspec
from msgspec import UNSET, Meta, UnsetType

from server import __version__
from server.events.schema import REF, events_schema
from server.handlers.status_messages import (
    SUBPROTOCOL,
    Complete,
    Control,
    Init,
    Ping,
    Pong,
    Refresh,
    Subscribe,
)

Kinds: TypeAlias = tuple[type[msgspec.Struct], ...]
Run: TypeAlias = Annotated[dict[str, Any], Meta(description="How a run stands, or a list of such.")]


class ConnectionAck(msgspec.Struct, frozen=True, tag="connection_ack"):
    connection_id: str
    epoch: str
    ping_interval_ms: int
    limits: dict[str, int]


class Subscribed(msgspec.Struct, frozen=True, tag="subscribed"):
    """``head`` is a number of a run, a place (text) of a topic."""

    id: str
    head: int | str
    recovered: bool
    was_recovering: bool
    snapshot: Run | UnsetType = UNSET


class Next(msgspec.Struct, frozen=True, tag="next"):
    id: str
    event: dict[str, Any]
    offset: str | UnsetType = UNSET


class Bookmark(msgspec.Struct, frozen=True, tag="bookmark"):
    id: str
    offset: str


class Result(msgspec.Struct, frozen=True, tag="result"):
    """``effect`` is false if there was nothing to do."""

    id: str
    verb: str
    run_id: str
    effect: bool
    status: str


class Error(msgspec.Struct, frozen=True, tag="error"):
    id: str
    code: str
    message: str
    retryable: bool


class Completed(msgspec.Struct, frozen=True, tag="complete"):
    """``reason``: run_ended, not_found; expired or revoked of a key, and 4401 or 4403 follows."""

    id: str
    reason: str


class Lagged(msgspec.Struct, frozen=True, tag="lagged"):
    """``dropped``: reports of progress if ``volatile_only``; else stored events, and 1013 follows."""

    id: str
    dropped: int
    volatile_only: bool


class GoAway(msgspec.Struct, frozen=True, tag="goaway"):
    reason: str
    reconnect_after_ms: int


FROM_CLIENT: Kinds = (Init, Subscribe, Control, Complete, Ping, Pong, Refresh)
FROM_SERVER: Kinds = (
    ConnectionAck,
    Subscribed,
    Next,
    Bookmark,
    Result,
    Error,
    Completed,
    Lagged,
    GoAway,
    Ping,
    Pong,
)
_SCHEMAS = "#/components/schemas/{name}"


def asyncapi() -> dict[str, Any]:
    """The document, for AsyncAPI 3, as the server sees it: what clients say comes in, the rest goes out."""
    kinds: list[type[msgspec.Struct]] = list(dict.fromkeys((*FROM_CLIENT, *FROM_SERVER)))
    _, schemas = msgspec.json.schema_components(kinds, ref_template=_SCHEMAS)
    events = events_schema()
    schemas["Next"]["properties"]["event"] = {"$ref": _SCHEMAS.format(name="Event")}
    schemas |= _moved(events["$defs"])
    schemas["Event"] = {"description": events["description"], "anyOf": _moved(events["anyOf"])}
    messages = {kind.__name__: _message(kind) for kind in kinds}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Antiphon: the status channel",
            "version": __version__,
            "description": "What happens in runs, live, late or again. docs/events.md tells the rules.",
        },
        "defaultContentType": "application/json",
        "servers": {"local": {"host": "127.0.0.1:18888", "protocol": "ws"}},
        "channels": {
            "status": {
                "address": "/v1/events",
                "description": f"Subprotocol {SUBPROTOCOL}; one JSON object in each text message.",
                "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
            }
        },
        "operations": {
            "hear": _operation("receive", FROM_CLIENT),
            "tell": _operation("send", FROM_SERVER),
        },
        "components": {"messages": messages, "schemas": schemas},
    }


def _message(kind: type[msgspec.Struct]) -> dict[str, Any]:
    name = str(kind.__struct_config__.tag)
    return {"name": name, "payload": {"$ref": _SCHEMAS.format(name=kind.__name__)}}


def _operation(action: str, kinds: Kinds) -> dict[str, Any]:
    messages = [{"$ref": f"#/channels/status/messages/{kind.__name__}"} for kind in kinds]
    return {"action": action, "channel": {"$ref": "#/channels/status"}, "messages": messages}


def _moved(schema: Any) -> Any:
    """A part of the events' schema, with its references where it stands here."""
    if isinstance(schema, dict):
        return {key: _moved(value) for key, value in schema.items()}
    if isinstance(schema, list):
        return [_moved(value) for value in schema]
    before, after = (template.partition("{name}")[0] for template in (REF, _SCHEMAS))
    return (
        after + schema.removeprefix(before)
        if isinstance(schema, str) and schema.startswith(before)
        else schema
    )
