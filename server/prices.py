"""What a call costs, from the prices of its model and the tokens that it used.

Amounts are whole numbers of *units*, a million millionth of the currency each: a price per million tokens
is a whole number of units a token down to its sixth decimal, and sums are exact.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

import msgspec

from server.deltas import Usage
from server.price_settings import Price

Units: TypeAlias = int
UNITS = 10**12
"""Units of one of the currency."""
_PER_TOKEN = UNITS // 10**6


class Rate(msgspec.Struct, frozen=True):
    """A price in units per token. ``bills_cancelled``: the vendor bills a call that was stopped in full."""

    input: Units
    cached: Units
    output: Units
    reasoning: Units
    bills_cancelled: bool = False

    @classmethod
    def of(cls, price: Price, *, bills_cancelled: bool = False) -> Rate:
        """The rate that ``price`` is."""
        cached = price.input if price.cached_input is None else price.cached_input
        reasoning = price.output if price.reasoning is None else price.reasoning
        return cls(
            _per_token(price.input),
            _per_token(cached),
            _per_token(price.output),
            _per_token(reasoning),
            bills_cancelled,
        )

    def most(self, prompt_tokens: int, answer_tokens: int) -> Units:
        """What a call of this size costs at most."""
        prompt = max(self.input, self.cached) * prompt_tokens
        return prompt + max(self.output, self.reasoning) * answer_tokens


class Prices:
    """What one model costs on each of its channels."""

    __slots__ = ("rates",)

    def __init__(self, rates: dict[str, Rate | None]) -> None:
        """``rates``: channel → rate, None where nobody has said."""
        self.rates = rates

    @classmethod
    def of(cls, rates: Iterable[tuple[str, Rate | None]]) -> Prices | None:
        """The prices of a model on these channels; None where no channel has one."""
        known = dict(rates)
        return cls(known) if any(rate is not None for rate in known.values()) else None

    def on(self, channel: str | None) -> Rate | None:
        """The rate there, None if it is not known; of a channel that is not known, if it is all the same."""
        if channel is not None:
            return self.rates.get(channel)
        rates = set(self.rates.values())
        return rates.pop() if len(rates) == 1 else None

    def most(self, prompt_tokens: int, answer_tokens: int) -> Units | None:
        """What a call of this size costs at most, wherever it goes; None if that is not known."""
        found = 0
        for rate in self.rates.values():
            if rate is None:
                return None
            found = max(found, rate.most(prompt_tokens, answer_tokens))
        return found


def _per_token(price: float) -> Units:
    return round(price * _PER_TOKEN)


def cost_of(rate: Rate, usage: Usage) -> Units:
    """What a call that used so much costs."""
    cached, reasoning = _parts(usage.raw)
    cached, reasoning = min(cached, usage.prompt_tokens), min(reasoning, usage.completion_tokens)
    return (
        (usage.prompt_tokens - cached) * rate.input
        + cached * rate.cached
        + (usage.completion_tokens - reasoning) * rate.output
        + reasoning * rate.reasoning
    )


def money(units: Units | None) -> float | None:
    """The amount as it is told: in the currency. None stays unknown."""
    return None if units is None else units / UNITS


def units_of(amount: float) -> Units:
    """An amount of the currency in units."""
    return round(amount * UNITS)


class _Prompt(msgspec.Struct):
    cached_tokens: int | None = None


class _Completion(msgspec.Struct):
    reasoning_tokens: int | None = None


class _Details(msgspec.Struct):
    prompt_tokens_details: _Prompt | None = None
    completion_tokens_details: _Completion | None = None
    prompt_cache_hit_tokens: int | None = None  # DeepSeek's word


_DETAILS = msgspec.json.Decoder(_Details)


def _parts(raw: bytes | None) -> tuple[int, int]:
    """Tokens that came out of a cache, and that went into reasoning, as far as the upstream says so."""
    if raw is None:
        return 0, 0
    try:
        details = _DETAILS.decode(raw)
    except msgspec.DecodeError:
        return 0, 0  # of another shape: nothing is known of its parts
    cached = details.prompt_tokens_details.cached_tokens if details.prompt_tokens_details else None
    if cached is None:
        cached = details.prompt_cache_hit_tokens
    told = details.completion_tokens_details
    reasoning = told.reasoning_tokens if told else None
    return max(0, cached or 0), max(0, reasoning or 0)
