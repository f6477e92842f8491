"""The strategies' own keys within a combination, as frozen data. Units stand in the names."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta

Share: TypeAlias = Annotated[float, Meta(ge=0, le=1)]
Count: TypeAlias = Annotated[int, Meta(ge=1)]
Rounds: TypeAlias = Annotated[int, Meta(ge=1, le=3)]
From0: TypeAlias = Annotated[float, Meta(ge=0)]

ValueType: TypeAlias = Literal["number", "choice", "date", "string", "json"]

StatusMode: TypeAlias = Literal["off", "comment", "chunk", "reasoning", "openwebui", "content"]
"""How a combination's stream tells what becomes of the members, before the answer begins."""


class _Frozen(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of these settings: immutable; a key that is not a field is refused."""


class Judge(_Frozen, frozen=True):
    """Who judges drafts. ``model`` None: the summary's."""

    model: str | None = None
    prompt: str | None = None
    temperature: From0 = 0


class Vote(_Frozen, frozen=True):
    """What is counted. ``extract``: ``last_line``, a JSON path (``$.a.b``), or a regular expression."""

    type: ValueType | None = None
    extract: str = "last_line"
    weights: Literal["configured", "equal"] = "configured"
    on_tie: Literal["synthesize", "strongest"] = "strongest"
    min_agreement: Share = 0.5


class BestOf(_Frozen, frozen=True):
    """How the judge picks. ``swap``: each pair is asked twice, with its places changed."""

    method: Literal["pairwise", "list", "scorer"] = "pairwise"
    swap: bool = True


class Race(_Frozen, frozen=True):
    """When a member has won, and when the next one starts: 0 all at once, else milliseconds or ``p95``."""

    confirm_chars: Count = 20
    confirm_ms: From0 = 300
    hedge_after: Literal["p95"] | From0 = 0


class Fallback(_Frozen, frozen=True):
    """Which failures move on to the next member."""

    move_on_after: tuple[Literal["upstream", "content_filter", "context_length"], ...] = (
        "upstream",
        "content_filter",
        "context_length",
    )


class Accept(_Frozen, frozen=True):
    """A cascade's test; all that is set must hold. ``score`` is the judge's, 0 to 10."""

    regex: str | None = None
    json_schema: dict[str, Any] | None = None
    agree: Annotated[int, Meta(ge=2)] | None = None
    score: Annotated[float, Meta(ge=0, le=10)] | None = None


class Cascade(_Frozen, frozen=True):
    """When a draft is good enough."""

    accept: Accept = Accept()


class Moa(_Frozen, frozen=True):
    """How often the members draft."""

    rounds: Annotated[int, Meta(ge=2, le=3)] = 2


class Critique(_Frozen, frozen=True):
    """Who lists faults; None: the judge."""

    critic: str | None = None
    rounds: Rounds = 1


class Council(_Frozen, frozen=True):
    """Who writes the answer; None: the summary's model."""

    chair: str | None = None


class Steps(_Frozen, frozen=True):
    """How one model thinks step by step. Tokens are those of one call, or of all steps together."""

    max_steps: Count = 8
    step_tokens: Count | None = None
    final_tokens: Count | None = None
    budget_tokens: Count | None = None
    format: Literal["reasoning", "markdown", "details"] = "reasoning"
    plain: Literal["openai", "o1-api"] = "openai"
    show_time: bool = False
    prompt: str | None = None
    json_mode: Literal["auto", "always", "never"] = "auto"
