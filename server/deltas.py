"""What a model says, piece by piece: the one form in the middle.

Every upstream yields deltas, every encoder reads them; a new upstream touches no handler, a new client
dialect touches no upstream. A delta that came from an upstream which already speaks the client's dialect
keeps the JSON it came in (``original``); an encoder of that dialect relays those bytes, so nothing that we
have no word for is lost. Where one chunk brought several deltas, the first bears its bytes and the others
bear an ``Original`` without data.

Deltas travel in batches: all that one read brought, oldest first, so that a writer can join them into one
write without ever waiting for more. They are frozen and shared without a copy, and hold no cycles (hence
``gc=False``: thousands a second must not feed the collector).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Literal, TypeAlias

import msgspec

FinishReason: TypeAlias = str
"""``stop``, ``length``, ``tool_calls``, ``content_filter`` or ``function_call``; others are passed on."""


class Original(msgspec.Struct, frozen=True, gc=False):
    """The JSON that a delta came in.

    ``form`` is ``openai.chunk`` (one streamed chunk) or ``openai.completion`` (a whole plain answer).
    ``data`` is one line of JSON, or b"" when an earlier delta of the same chunk bears it. ``named`` is the
    model's name in a completion that needs nothing but that to be changed; None if nobody has looked.
    """

    form: Literal["openai.chunk", "openai.completion"]
    data: bytes
    named: str | None = None


class Usage(msgspec.Struct, frozen=True, gc=False):
    """Tokens of one call, or of several added up.

    ``raw`` is the upstream's own JSON object with every detail; None where the figures are ours.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    estimated: bool = False
    raw: bytes | None = None

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.total_tokens + other.total_tokens,
            self.estimated or other.estimated,
        )


class Opening(msgspec.Struct, frozen=True, gc=False):
    """A choice begins: its role, and no content yet. Not a first delta: a failure may still be a status."""

    index: int = 0
    original: Original | None = None


class TextDelta(msgspec.Struct, frozen=True, gc=False):
    """Text of choice ``index``."""

    text: str
    index: int = 0
    original: Original | None = None


class ReasoningDelta(msgspec.Struct, frozen=True, gc=False):
    """What the model thinks before or between its text; ``field`` is the name it came under."""

    text: str
    index: int = 0
    field: Literal["reasoning_content", "reasoning"] = "reasoning_content"
    original: Original | None = None


class RefusalDelta(msgspec.Struct, frozen=True, gc=False):
    """Text of a refusal."""

    text: str
    index: int = 0
    original: Original | None = None


class ToolCallDelta(msgspec.Struct, frozen=True, gc=False):
    """A piece of tool call ``position`` of choice ``index``.

    ``id`` and ``name`` come once, with the first piece; ``arguments`` is the next piece of the JSON text.
    """

    position: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""
    index: int = 0
    original: Original | None = None


class Finished(msgspec.Struct, frozen=True, gc=False):
    """Choice ``index`` is complete. Usage may still follow."""

    reason: FinishReason
    index: int = 0
    original: Original | None = None


class UsageDelta(msgspec.Struct, frozen=True, gc=False):
    """What the call used, as the upstream counted it. The last one counts.

    ``cost`` is the price units of an answer that was made of calls of several prices; None: by the price of
    who answered, or nobody knows. ``spent`` is what of it was used now, where some calls were not made,
    since their answers were kept; None: all of it.
    """

    usage: Usage
    original: Original | None = None
    cost: int | None = None
    spent: Usage | None = None


class Extra(msgspec.Struct, frozen=True, gc=False):
    """A chunk with nothing in it that has a name here (logprobs, a vendor's field): relayed only.

    ``bare``: its ``choices`` are empty, so only a client that asked for such chunks may see it.
    """

    original: Original | None = None
    bare: bool = False


Delta: TypeAlias = (
    Opening | TextDelta | ReasoningDelta | RefusalDelta | ToolCallDelta | Finished | UsageDelta | Extra
)
Batch: TypeAlias = Sequence[Delta]
Deltas: TypeAlias = AsyncGenerator[Batch, None]
"""Batches as they come. Whoever iterates closes it (``contextlib.aclosing``), which closes the upstream."""

CONTENT = frozenset({TextDelta, ReasoningDelta, RefusalDelta, ToolCallDelta, Finished})
"""The types that count as a *first delta*: from there on nothing is retried and the 200 leaves."""


def has_content(batch: Batch) -> bool:
    """Does the batch hold a first delta?"""
    return any(type(delta) in CONTENT for delta in batch)
