"""What the models behind Gemini's API take, known by their names."""

from __future__ import annotations

import re
from typing import Literal

import msgspec

# gemini-2.5-flash-lite, gemini-3-pro-preview, gemini-4-argon; a date or a build is no minor version.
_NAME = re.compile(r"gemini-(?P<major>\d{1,2})(?:\.(?P<minor>\d{1,2}))?(?!\d)")
# gemini-flash-latest: whatever is newest
# Open models behind the same API; the first of them take no system instruction.
_UNINSTRUCTED = re.compile(r"gemma-[123](?!\d)")
_LATEST = re.compile(r"gemini-[a-z-]+-latest")


class GeminiModel(msgspec.Struct, frozen=True):
    """What one model takes.

    ``thinking``: how it is asked to think: by ``level``, by ``budget`` (tokens), or ``no``. ``least_level``
    is the lowest that it takes, ``can_rest`` whether thinking can be switched off. ``schema``: does it read
    JSON Schema, or only the subset of OpenAPI's that came before? ``signed``: it refuses a tool call in the
    current turn whose thought signature did not come back. ``instructed``: does it take a system instruction?
    """

    thinking: Literal["level", "budget", "no"] = "no"
    least_level: Literal["minimal", "low"] = "minimal"
    can_rest: bool = False
    schema: Literal["json", "openapi"] = "json"
    signed: bool = False
    instructed: bool = True


def model_of(name: str) -> GeminiModel:
    """What is known of a model by its name; of one that is no Gemini, nothing."""
    match = _NAME.search(name)
    version = (int(match["major"]), int(match["minor"] or 0)) if match else (0, 0)
    if version >= (3, 0) or _LATEST.search(name):
        return GeminiModel("level", "low" if "pro" in name else "minimal", signed=True)
    if version >= (2, 5):
        return GeminiModel("budget", can_rest="pro" not in name)
    if _UNINSTRUCTED.search(name):
        return GeminiModel(instructed=False)
    return GeminiModel(schema="openapi" if match else "json")
