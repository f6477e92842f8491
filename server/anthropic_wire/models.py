"""What the models behind the Messages API take, known by their names."""

from __future__ import annotations

import re
from typing import Literal

import msgspec

DEFAULT_MAX_TOKENS = 8192
# claude-opus-4-7, claude-sonnet-4-20250514, claude-3-7-sonnet-latest; a date is no minor version.
_NAME = re.compile(
    r"claude-(?:(?P<family>opus|sonnet|haiku)-(?P<major>\d{1,2})(?:[-.](?P<minor>\d{1,2}))?(?!\d)"
    r"|(?P<old_major>\d)(?:[-.](?P<old_minor>\d))?(?:-(?:opus|sonnet|haiku))?)"
)


class AnthropicModel(msgspec.Struct, frozen=True):
    """What one model takes.

    ``thinking``: how it is asked to think: ``adaptive`` (with an effort), ``budget`` (of tokens), or ``no``.
    ``sampling`` false: it refuses temperature, top_p and top_k. ``max_tokens`` is the limit of an answer
    whose request names none, for the field is required there.
    """

    thinking: Literal["adaptive", "budget", "no"] = "no"
    sampling: bool = True
    max_tokens: int = DEFAULT_MAX_TOKENS


def model_of(name: str) -> AnthropicModel:
    """What is known of a model by its name; of one that is not the vendor's, nothing."""
    match = _NAME.search(name)
    if match is None:
        return AnthropicModel()
    version = (
        int(match["major"] or match["old_major"]),
        int(match["minor"] or match["old_minor"] or 0),
    )
    if version < (3, 7):
        return AnthropicModel(max_tokens=4096)
    thinking: Literal["adaptive", "budget"] = "budget" if version <= (4, 5) else "adaptive"
    return AnthropicModel(thinking, sampling=not (match["family"] == "opus" and version >= (4, 7)))
