"""The calls of tools that a member makes: put together from deltas, and held to what the client offers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from server.chat import ChatRequest
from server.coordinator.json_shape import fits
from server.coordinator.loose_json import canonical
from server.deltas import Batch, ToolCallDelta
from server.errors import UpstreamInvalid
from server.openai_wire.json_text import is_too_deep

MAX_CALLS = 128
"""Of one answer, as many as tools may be offered."""
MAX_ARGUMENTS = 1024 * 1024
"""Characters of all arguments of one answer."""


class ToolCall(msgspec.Struct, frozen=True):
    """One call, as the member made it. ``arguments`` is JSON text, "" for none."""

    id: str | None
    name: str
    arguments: str


class ToolCalls:
    """The calls of choice 0 of one answer, while they come."""

    def __init__(self) -> None:
        self._begun: dict[int, tuple[str | None, str]] = {}
        self._arguments: dict[int, list[str]] = {}
        self._size = 0

    def take(self, batch: Batch) -> None:
        """Take in a batch. Raises ``UpstreamInvalid`` when there is far too much of it."""
        for delta in batch:
            if type(delta) is not ToolCallDelta or delta.index:
                continue
            place = delta.position
            id, name = self._begun.get(place, (None, ""))
            self._begun[place] = (id or delta.id, name or delta.name or "")
            self._arguments.setdefault(place, []).append(delta.arguments)
            self._size += len(delta.arguments)
            if self._size > MAX_ARGUMENTS or len(self._begun) > MAX_CALLS:
                raise UpstreamInvalid("The model called far too many tools, or with too long arguments.")

    @property
    def made(self) -> tuple[ToolCall, ...]:
        """The calls by now, in the member's order."""
        return tuple(
            ToolCall(id, name, "".join(self._arguments[place]))
            for place, (id, name) in sorted(self._begun.items())
        )


class Tools:
    """The functions that a request offers. ``needed``: the client wants a call, and no words."""

    def __init__(self, chat: ChatRequest) -> None:
        self._schemas: dict[str, Any] = {}
        for raw in chat.fields.tools or ():
            match msgspec.json.decode(raw):
                case {"function": {"name": str(name), **function}}:
                    self._schemas[name] = function.get("parameters")
        choice = chat.fields.tool_choice
        self.needed = choice == "required" or (isinstance(choice, Mapping) and "function" in choice)

    def allow(self, calls: Sequence[ToolCall]) -> bool:
        """Is each of a known function, with arguments that fit its schema?"""
        return all(self._allows(call) for call in calls)

    def _allows(self, call: ToolCall) -> bool:
        arguments = arguments_of(call)
        if call.name not in self._schemas or arguments is None:
            return False
        schema = self._schemas[call.name]
        return not isinstance(schema, dict) or fits(arguments, schema)


def arguments_of(call: ToolCall) -> dict[str, Any] | None:
    """The arguments as they are meant; None if they are no JSON object."""
    text = call.arguments.strip() or "{}"
    try:
        data = text.encode()
        value = None if is_too_deep(data) else msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def meaning(calls: Sequence[ToolCall]) -> tuple[str, ...]:
    """What sets of calls that ask for the same have in common, whatever their order and ids."""
    return tuple(sorted(f"{call.name} {canonical(arguments_of(call))}" for call in calls))
