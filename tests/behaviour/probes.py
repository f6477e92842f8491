"""Parameters of each client dialect, each with what an upstream of each kind must be sent for it.

A probe is one request. A kind that stands in ``seen`` must be sent the value at that place; any other must
have the request refused by the parameter's name, or the client warned of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

KINDS = ("openai", "azure", "anthropic", "gemini", "ollama", "spark")
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
URI = f"data:image/png;base64,{PIXEL}"
PDF = "JVBERi0="
HI = {"role": "user", "content": "hi"}
CHAT_PLACE = "parameter.chat"
CONFIG = "generationConfig"
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}


@dataclass(frozen=True)
class Probe:
    """``words``: one of them names the parameter where it is refused or adapted.

    ``seen`` is by kind: place in the body (a dotted path), and what stands there. ``as_it_came``: kinds of
    OpenAI's dialect are sent ``fields`` themselves. ``headers`` go with the request.
    """

    name: str
    fields: Mapping[str, Any]
    words: tuple[str, ...]
    seen: Mapping[str, tuple[str, Any]] = field(default_factory=dict)
    as_it_came: bool = False
    headers: tuple[str, ...] = ()


def at(body: Any, path: str) -> Any:
    """What stands at a dotted path; None if nothing does. JSON within a string is read."""
    for key in path.split("."):
        if isinstance(body, str):
            body = json.loads(body)
        if isinstance(body, list):
            body = body[int(key)] if -len(body) <= int(key) < len(body) else None
        else:
            body = body.get(key) if isinstance(body, dict) else None
    return body


def openai(place: str, value: Any) -> dict[str, tuple[str, Any]]:
    """Both kinds of OpenAI's dialect are sent it there."""
    return {"openai": (place, value), "azure": (place, value)}
