"""What a call costs: exact sums, cached tokens and reasoning apart, and nothing invented."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from server.deltas import Usage
from server.price_settings import Price
from server.prices import UNITS, Prices, Rate, cost_of, money, units_of

PRICE = Price(input=0.28, output=0.42, cached_input=0.028, reasoning=1)
RATE = Rate.of(PRICE)


def used(prompt: int, completion: int, **details: object) -> Usage:
    raw = msgspec.json.encode({"prompt_tokens": prompt, "completion_tokens": completion, **details})
    return Usage(prompt, completion, prompt + completion, raw=raw)


def test_a_million_tokens_cost_their_price() -> None:
    assert money(cost_of(RATE, Usage(10**6, 0, 10**6))) == 0.28
    assert money(cost_of(RATE, Usage(0, 10**6, 10**6))) == 0.42
    assert money(cost_of(RATE, Usage())) == 0


def test_tokens_from_the_cache_and_of_reasoning_have_prices_of_their_own() -> None:
    usage = used(
        1000,
        500,
        prompt_tokens_details={"cached_tokens": 400},
        completion_tokens_details={"reasoning_tokens": 100},
    )
    assert (
        cost_of(RATE, usage)
        == 600 * RATE.input + 400 * RATE.cached + 400 * RATE.output + 100 * RATE.reasoning
    )
    assert cost_of(RATE, used(10, 0, prompt_cache_hit_tokens=4)) == 6 * RATE.input + 4 * RATE.cached


def test_a_price_that_is_not_set_apart_is_that_of_the_whole() -> None:
    rate = Rate.of(Price(input=1, output=2))
    assert (rate.cached, rate.reasoning) == (rate.input, rate.output)


def test_details_of_an_odd_shape_are_none() -> None:
    for raw in (
        b'{"prompt_tokens_details": 5}',
        b'{"prompt_tokens_details": {"cached_tokens": "many"}}',
        b'{"prompt_tokens_details": null, "completion_tokens_details": {"reasoning_tokens": null}}',
        b"[]",
        b"no JSON",
    ):
        assert cost_of(RATE, Usage(2, 3, 5, raw=raw)) == 2 * RATE.input + 3 * RATE.output


def test_more_cached_or_reasoned_than_there_was_counts_as_all_of_it() -> None:
    usage = used(
        5, 5, prompt_tokens_details={"cached_tokens": 99}, completion_tokens_details={"reasoning_tokens": 99}
    )
    assert cost_of(RATE, usage) == 5 * RATE.cached + 5 * RATE.reasoning
    less = used(5, 5, prompt_tokens_details={"cached_tokens": -9})
    assert cost_of(RATE, less) == 5 * RATE.input + 5 * RATE.output


@given(
    st.lists(st.tuples(st.integers(0, 10**7), st.integers(0, 10**7)), max_size=20),
    st.integers(0, 10**9).map(lambda millionths: millionths / 10**6),
)
def test_sums_are_exact(calls: list[tuple[int, int]], price: float) -> None:
    rate = Rate.of(Price(input=price, output=price))
    tokens = sum(prompt + completion for prompt, completion in calls)
    assert sum(cost_of(rate, Usage(*call, sum(call))) for call in calls) == tokens * round(price * 10**6)


def test_where_no_channel_has_a_price_there_are_none() -> None:
    assert Prices.of([("a", None), ("b", None)]) is None
    assert Prices.of([]) is None


def test_the_price_is_that_of_the_channel_which_answered() -> None:
    dear = Rate.of(Price(input=5, output=5))
    prices = Prices.of([("a", RATE), ("b", dear), ("c", None)])
    assert prices is not None
    assert [prices.on(name) for name in ("a", "b", "c", "unheard of", None)] == [RATE, dear, None, None, None]


def test_where_all_channels_cost_the_same_it_need_not_be_known_which_one_answered() -> None:
    prices = Prices.of([("a", RATE), ("b", Rate.of(PRICE))])
    assert prices is not None
    assert prices.on(None) == RATE


def test_the_most_that_a_call_can_cost_is_that_of_the_dearest_channel_and_unknown_with_an_unknown_one() -> (
    None
):
    dear = Rate.of(Price(input=5, output=0.1))
    prices = Prices.of([("a", RATE), ("b", dear)])
    assert prices is not None
    assert prices.most(100, 10) == max(RATE.most(100, 10), dear.most(100, 10))
    assert RATE.most(100, 10) == 100 * RATE.input + 10 * RATE.reasoning
    unsure = Prices.of([("a", RATE), ("b", None)])
    assert unsure is not None
    assert unsure.most(100, 10) is None


def test_an_amount_of_money_goes_to_units_and_back() -> None:
    assert units_of(0.25) == UNITS // 4
    assert money(units_of(1.1)) == 1.1
    assert money(None) is None
