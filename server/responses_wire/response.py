"""The response object, at whatever moment of its life."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw

from server.deltas import Usage
from server.errors import ServerError

_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}


class Head(msgspec.Struct, frozen=True):
    """What a response is from its beginning. ``created`` is in Unix seconds; ``echo`` says what was asked."""

    id: str
    model: str
    created: int
    echo: dict[str, Any]


class Whole(msgspec.Struct, frozen=True):
    """A response that has ended: its body, and what it said as items to go on from."""

    body: bytes
    output: list[bytes]


def status_of(reason: str) -> str:
    """The status by a finish reason."""
    return "incomplete" if reason in _INCOMPLETE else "completed"


def begun(head: Head, status: str = "in_progress") -> dict[str, Any]:
    """A response that has said nothing yet."""
    return _fields(head, status, [], None)


def ended(
    head: Head, reason: str, output: list[dict[str, Any]], usage: Usage, antiphon: bytes | None
) -> dict[str, Any]:
    """A response that has ended in good order, for this finish reason."""
    fields = _fields(head, status_of(reason), output, usage)
    if reason in _INCOMPLETE:
        fields["incomplete_details"] = {"reason": _INCOMPLETE[reason]}
    if antiphon:
        fields["antiphon"] = Raw(antiphon)
    return fields


def failed(
    head: Head, error: ServerError, output: list[dict[str, Any]], antiphon: bytes | None
) -> dict[str, Any]:
    """A response that failed, with what it had said by then."""
    status = "cancelled" if error.code == "run_cancelled" else "failed"
    told = {"code": error.code, "message": error.message}
    fields = _fields(head, status, output, None) | {"error": told}
    return fields | {"antiphon": Raw(antiphon)} if antiphon else fields


def _fields(head: Head, status: str, output: list[dict[str, Any]], usage: Usage | None) -> dict[str, Any]:
    return {
        "id": head.id,
        "object": "response",
        "created_at": head.created,
        "status": status,
        "error": None,
        "incomplete_details": None,
        "model": head.model,
        "output": output,
        "usage": None if usage is None else usage_fields(usage),
        **head.echo,
    }


def usage_fields(usage: Usage) -> dict[str, Any]:
    """The figures by the names that they have here."""
    raw = {} if usage.raw is None else msgspec.json.decode(usage.raw)
    fields: dict[str, Any] = {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {
            "cached_tokens": _detail(raw, "prompt_tokens_details", "cached_tokens"),
            "cache_write_tokens": _detail(raw, "prompt_tokens_details", "cache_write_tokens"),
        },
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {
            "reasoning_tokens": _detail(raw, "completion_tokens_details", "reasoning_tokens")
        },
        "total_tokens": usage.total_tokens,
    }
    return fields | {"estimated": True} if usage.estimated else fields


def _detail(raw: dict[str, Any], group: str, name: str) -> int:
    details = raw.get(group)
    value = details.get(name) if isinstance(details, dict) else None
    return value if type(value) is int and value > 0 else 0
