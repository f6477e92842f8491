"""A channel's rules for the fields of a request: what is dropped, clamped, put in by default, or always."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from server.chat import ChatRequest
from server.settings import ParamRules, Range

# Two names of one limit: who sends either has said how long the answer may be.
_LIMITS = ("max_tokens", "max_completion_tokens")


class Params:
    """The rules of one channel, prepared once."""

    def __init__(self, rules: ParamRules) -> None:
        self._drop = rules.drop
        self._clamp = rules.clamp
        self._default = {name: msgspec.json.encode(value) for name, value in rules.default.items()}
        self._set: Mapping[str, bytes | None] = {
            name: msgspec.json.encode(value) for name, value in rules.set.items()
        }

    def changes(self, chat: ChatRequest) -> dict[str, bytes | None]:
        """What becomes of the request's fields: new JSON, or None for one that is taken out.

        In this order: drop, clamp, default, set. A field that needs no change keeps its bytes.
        """
        changed: dict[str, bytes | None] = {name: None for name in self._drop if name in chat.json}
        for name, bounds in self._clamp.items():
            if (value := clamped(chat.json.raw(name), bounds)) is not None:
                changed[name] = value
        changed |= {
            name: value
            for name, value in self._default.items()
            if not any(chat.has(one) for one in (_LIMITS if name in _LIMITS else (name,)))
        }
        changed |= self._set
        return changed


def clamped(raw: bytes | None, bounds: Range) -> bytes | None:
    """The bound that a number is beyond, as JSON; None if it is not, or is no number."""
    value = None if raw is None else msgspec.json.decode(raw)
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    if bounds.min is not None and value < bounds.min:
        return _number(bounds.min)
    if bounds.max is not None and value > bounds.max:
        return _number(bounds.max)
    return None


def _number(value: float) -> bytes:
    """JSON as upstreams want it: 4096, not 4096.0, for they may insist on a whole number."""
    return msgspec.json.encode(int(value) if value == int(value) else value)
