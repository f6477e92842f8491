"""What the data of events is made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, TypeAlias

import msgspec
from msgspec import UNSET, UnsetType

from server.deltas import Usage

OptStr: TypeAlias = str | UnsetType
OptInt: TypeAlias = int | UnsetType
OptNumber: TypeAlias = float | UnsetType
Names: TypeAlias = tuple[str, ...]


class Part(msgspec.Struct, frozen=True, gc=False):
    """Base of all that events are made of: immutable; no cycles, so the collector need not look."""


class StageRef(Part, frozen=True, gc=False):
    """The stage that an event belongs to. ``id`` is unique in the run: ``draft.1``, ``summary.1``."""

    id: str
    name: str
    round: int = 1


class MemberRef(Part, frozen=True, gc=False):
    """The model call that an event belongs to."""

    id: str
    model: str
    sample: int = 1
    attempt: int = 1


def number(value: float) -> int | float:
    """``value`` as JSON's readers expect it: 5, not 5.0."""
    return int(value) if value == int(value) else value


class TokenUsage(Part, frozen=True, gc=False):
    """OpenAI's usage object; ``estimated`` is true where nobody counted, and absent otherwise."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    estimated: bool | UnsetType = UNSET


def token_usage(usage: Usage | None) -> TokenUsage | None:
    """``usage`` as events tell it."""
    if usage is None:
        return None
    estimated = True if usage.estimated else UNSET
    return TokenUsage(usage.prompt_tokens, usage.completion_tokens, usage.total_tokens, estimated)


class PlannedMember(Part, frozen=True, gc=False):
    """A member as ``run.created`` announces it."""

    id: str
    model: str
    weight: int | float = 1


class Timings(Part, frozen=True, gc=False):
    """Milliseconds from the acceptance of the request; what did not come about is absent."""

    quorum_ms: OptInt = UNSET
    drafts_ms: OptInt = UNSET
    first_text_ms: OptInt = UNSET
    total_ms: OptInt = UNSET


class ErrorInfo(Part, frozen=True, gc=False):
    """The error that the client got."""

    message: str
    type: str
    param: str | None
    code: str | None


class MemberFailure(Part, frozen=True, gc=False):
    """Why one member gave nothing."""

    id: str
    code: str
    http_status: int | None
    retryable: bool


class Data(Part, frozen=True, gc=False):
    """Base of each event type's data.

    ``gated`` names the fields that are told only to who included something: field → what must be included.
    """

    type: ClassVar[str]
    status: ClassVar[str | None] = None  # the status that the run has from this event on
    volatile: ClassVar[bool] = False
    terminal: ClassVar[bool] = False
    gated: ClassVar[Mapping[str, str]] = {}
