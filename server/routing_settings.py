"""How the channels of a model are chosen, tried and left alone, as frozen data. Units stand in the names."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta

Above0: TypeAlias = Annotated[float, Meta(gt=0)]
From0: TypeAlias = Annotated[float, Meta(ge=0)]
Whole0: TypeAlias = Annotated[int, Meta(ge=0)]
Whole1: TypeAlias = Annotated[int, Meta(ge=1)]
Share: TypeAlias = Annotated[float, Meta(ge=0, le=1)]

Policy: TypeAlias = Literal["weight", "least_latency", "least_busy"]


class _Frozen(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of these settings: immutable; a key that is not a field is refused."""


class Breaker(_Frozen, frozen=True):
    """When a channel that fails is left alone. With both ``failures`` and ``rate`` 0 it never is."""

    failures: Whole0 = 5  # in a row
    rate: Share = 0.5  # of the calls within the window
    min_calls: Whole1 = 20
    window_s: Above0 = 60
    open_s: Above0 = 10  # doubled by each probe that fails
    max_open_s: Above0 = 300


class ModelRouting(_Frozen, frozen=True):
    """How one model's channels are chosen and tried; None inherits from ``Routing``."""

    policy: Policy | None = None
    attempts: Whole1 | None = None
    hedge_after_s: From0 | None = None


class Routing(_Frozen, frozen=True):
    """How the channels of a model are chosen and tried."""

    policy: Policy = "weight"
    attempts: Whole1 = 3  # calls for one request, in all
    backoff_s: From0 = 0.25  # before the same channel is asked again; doubled each time
    max_backoff_s: From0 = 8
    retry_ratio: From0 = 0.2  # further attempts that each request adds to the budget
    retry_reserve: Whole0 = 20  # attempts that the budget holds at most
    hedge_after_s: From0 = 0  # 0: never
    tell_channels: bool = False
    models: dict[str, ModelRouting] = {}

    def of(self, model: str) -> Routing:
        """As it is for one model."""
        own = self.models.get(model)
        if own is None:
            return self
        mine = {name: value for name, value in msgspec.structs.asdict(own).items() if value is not None}
        return msgspec.structs.replace(self, **mine)
