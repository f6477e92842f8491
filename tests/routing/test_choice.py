"""Which channel is asked: priority, weight, latency, load, and who may not be asked."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence

import pytest

from server.errors import RateLimited, UpstreamAuth, UpstreamUnreachable
from server.routing.channel import ChannelState
from server.routing.choice import Candidate, Chooser
from server.settings import ChannelModel, Policy
from server.upstreams.base import Call
from tests.channels import channel, chat, played

DRAWS = 10_000


def candidates(*states: ChannelState) -> list[Candidate]:
    return [Candidate(state, ChannelModel(), "m") for state in states]


def chooser(
    states: Sequence[ChannelState] | Sequence[Candidate], policy: Policy = "weight", seed: int = 1
) -> Chooser:
    made = [one if isinstance(one, Candidate) else Candidate(one, ChannelModel(), "m") for one in states]
    return Chooser(made, policy, random.Random(seed))


def draws(one: Chooser, count: int = DRAWS, now: float = 0.0, but: Sequence[Candidate] = ()) -> Counter[str]:
    counts: Counter[str] = Counter()
    for _ in range(count):
        chosen = one.choose(now, but)
        counts[chosen.state.name if chosen is not None else "nobody"] += 1
    return counts


def shares_are(counts: Counter[str], weights: dict[str, float]) -> None:
    total, drawn = sum(weights.values()), counts.total()
    assert set(counts) <= {name for name, weight in weights.items() if weight}
    for name, weight in weights.items():
        share = weight / total
        assert abs(counts[name] - drawn * share) <= 3 * math.sqrt(drawn * share * (1 - share)), counts


def block(state: ChannelState, until: float) -> None:
    """Have the channel ask for patience until then; it is 0 now."""
    limited = RateLimited("slower", retry_after_s=until)
    state.health.of("m").failed(limited, state.health.keys[0], 0.0, probe=False, cooldown_s=0)


# ── weight ──


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize(
    "weights",
    [{"a": 1, "b": 1}, {"a": 1, "b": 3, "c": 6, "none": 0}, {"a": 0.001, "b": 1000}, {"a": 2, "b": 0.5}],
    ids=str,
)
async def test_weight_is_a_share(weights: dict[str, float], seed: int) -> None:
    states = [channel(name, weight=weight) for name, weight in weights.items()]
    shares_are(draws(chooser(states, seed=seed)), weights)


async def test_the_others_keep_their_shares_when_some_cannot_be_asked() -> None:
    weights = {"a": 1.0, "b": 2.0, "sick": 50.0, "c": 3.0}
    states = [channel(name, weight=weight) for name, weight in weights.items()]
    block(states[2], 60)
    shares_are(draws(chooser(states)), {"a": 1, "b": 2, "c": 3})


async def test_those_tried_already_are_left_out_by_identity() -> None:
    fit = candidates(channel("same"), channel("same"), channel("same"))
    one = chooser(fit)
    assert all(one.choose(0.0, fit[:2]) is fit[2] for _ in range(50))
    assert one.choose(0.0, fit) is None


# ── priority ──


async def test_a_lower_priority_is_asked_only_when_no_higher_one_may_be() -> None:
    high, twin, low = channel("high", priority=2), channel("twin", priority=2), channel("low", weight=1000)
    one = chooser([low, high, twin])
    assert set(draws(one, 200)) == {"high", "twin"}
    block(high, 60)
    assert set(draws(one, 200)) == {"twin"}
    block(twin, 30)
    assert set(draws(one, 200)) == {"low"}
    assert set(draws(one, 200, now=31)) == {"twin"}
    assert set(draws(one, 200, now=61)) == {"high", "twin"}


async def test_a_refused_key_comes_after_every_other_channel_but_not_never() -> None:
    high, low = channel("high", priority=2), channel("low")
    health = high.health.of("m")
    health.failed(UpstreamAuth("no"), high.health.keys[0], 0.0, probe=False, cooldown_s=0)
    one = chooser([high, low])
    assert set(draws(one, 50)) == {"low"}
    block(low, 60)
    assert set(draws(one, 50)) == {"high"}


# ── who cannot be asked ──


async def test_one_whose_breaker_is_open_gets_nothing_until_its_time_and_then_one_probe() -> None:
    a, b = channel("a", breaker={"failures": 1}), channel("b")
    health = a.health.of("m")
    health.failed(UpstreamUnreachable("down"), a.health.keys[0], 0.0, probe=False, cooldown_s=0)
    one = chooser([a, b])
    assert set(draws(one, 50, now=9.9)) == {"b"}
    assert set(draws(one, 50, now=10.1)) == {"a", "b"}
    assert health.begin(10.1)
    assert set(draws(one, 50, now=10.1)) == {"b"}
    health.answered()
    assert set(draws(one, 50, now=10.1)) == {"a", "b"}


async def test_one_that_was_dismissed_gets_nothing_from_that_moment() -> None:
    a, b = channel("a"), channel("b")
    one = chooser([a, b])
    a.dismiss()
    assert set(draws(one, 50)) == {"b"}
    b.dismiss()
    assert set(draws(one, 50)) == {"nobody"}


async def test_one_that_cannot_serve_gets_nothing() -> None:
    a, b = channel("a"), channel("b")
    played(a).unavailable = "Install it."
    assert set(draws(chooser([a, b]), 50)) == {"b"}


async def test_one_that_could_begin_at_once_is_preferred_among_equals() -> None:
    busy, free = channel("busy", requests_per_min=1, weight=1000), channel("free")
    assert busy.gate is not None
    busy.gate.leave(await busy.gate.enter(Call(), 0))
    assert set(draws(chooser([busy, free]), 50)) == {"free"}
    assert set(draws(chooser([busy]), 5)) == {"busy"}


async def test_who_is_passed_over_is_told_with_the_reason() -> None:
    cool, open_, refused, absent, well = (
        channel(name, breaker={"failures": 1}) for name in ("cool", "open", "refused", "absent", "well")
    )
    block(cool, 60)
    for state, error in ((open_, UpstreamUnreachable("down")), (refused, UpstreamAuth("no"))):
        state.health.of("m").failed(error, state.health.keys[0], 0.0, probe=False, cooldown_s=0)
    played(absent).unavailable = "Install it."
    assert chooser([cool, open_, refused, absent, well]).passed_over(1.0) == [
        ("cool", "cooling"),
        ("open", "breaker"),
        ("refused", "refused"),
        ("absent", "unavailable"),
    ]


# ── least latency, least busy ──


async def test_the_faster_of_two_that_are_drawn_is_asked() -> None:
    speeds = {"fast": 0.1, "middle": 0.5, "slow": 2.0}
    states = [channel(name) for name in speeds]
    for state in states:
        state.health.of("m").measured(speeds[state.name], 0.0)
    counts = draws(chooser(states, "least_latency"), 3000)
    # Each pair is drawn alike often: the fastest wins two pairs of three, the slowest none.
    shares_are(counts, {"fast": 2, "middle": 1, "slow": 0})


async def test_one_that_was_never_measured_is_tried() -> None:
    known, new = channel("known"), channel("new")
    known.health.of("m").measured(0.001, 0.0)
    assert set(draws(chooser([known, new], "least_latency"), 50)) == {"new"}


async def test_calls_under_way_count_against_the_faster_one() -> None:
    fast, slow = channel("fast"), channel("slow")
    fast.health.of("m").measured(0.1, 0.0)
    slow.health.of("m").measured(0.25, 0.0)
    fast.in_use = 2
    assert set(draws(chooser([fast, slow], "least_latency"), 50)) == {"slow"}


async def test_a_slow_one_is_tried_again_when_its_measure_has_faded() -> None:
    fast, slow = channel("fast"), channel("slow")
    slow.health.of("m").measured(2.0, 0.0)
    fast.health.of("m").measured(0.5, 0.0)
    one = chooser([fast, slow], "least_latency")
    assert set(draws(one, 50, now=60)) == {"fast"}
    fast.health.of("m").measured(0.5, 180.0)
    assert set(draws(one, 50, now=180)) == {"slow"}


async def test_the_average_moves_toward_new_measures() -> None:
    health = channel("a").health.of("m")
    for at in range(50):
        health.measured(1.0, float(at))
    health.measured(2.0, 50.0)
    assert health.speed_s(50.0) == pytest.approx(1.3)


async def test_the_one_with_the_fewest_calls_for_its_weight_is_asked() -> None:
    small, large = channel("small", weight=1), channel("large", weight=4)
    one = chooser([small, large], "least_busy")
    for _ in range(100):
        chosen = one.choose(0.0)
        assert chosen is not None
        chosen.state.in_use += 1
    assert (small.in_use, large.in_use) == (20, 80)


async def test_an_idle_one_that_is_not_well_does_not_stand_before_a_busy_one() -> None:
    busy, refused, full = channel("busy"), channel("refused"), channel("full", max_concurrency=1)
    busy.in_use = 7
    refused.health.of("m").failed(UpstreamAuth("no"), refused.health.keys[0], 0.0, probe=False, cooldown_s=0)
    await full.take(Call(), chat())
    full.in_use = 0
    assert set(draws(chooser([busy, refused, full], "least_busy"), 50)) == {"busy"}


async def test_idle_channels_share_alike() -> None:
    shares_are(draws(chooser([channel(name) for name in "abc"], "least_busy")), {"a": 1, "b": 1, "c": 1})


# ── apart from siblings ──


def hosted(name: str, host: str, **settings: object) -> ChannelState:
    return channel(name, base_url=f"https://{host}/v1", **settings)


def apart(one: Chooser, places: dict[str, int], now: float = 0.0) -> set[str]:
    chosen = [one.apart(now, places) for _ in range(50)]
    return {candidate.state.name for candidate in chosen if candidate is not None}


async def test_where_the_fewest_siblings_are_comes_first() -> None:
    made = chooser([hosted("a", "x.example"), hosted("b", "X.example"), hosted("c", "y.example")])
    assert apart(made, {}) == {"a", "b", "c"}
    assert apart(made, {"x.example": 1}) == {"c"}
    assert apart(made, {"x.example": 1, "y.example": 1}) == {"a", "b", "c"}
    assert apart(made, {"x.example": 1, "y.example": 2}) == {"a", "b"}, "one host, two channels"


async def test_spreading_does_not_go_below_the_priority_nor_to_one_that_is_ill() -> None:
    high, low, ill = (
        hosted("high", "x.example", priority=1),
        hosted("low", "y.example"),
        hosted("ill", "z.example", priority=1),
    )
    block(ill, until=100.0)
    made = chooser([high, low, ill])
    assert apart(made, {"x.example": 9}) == {"high"}
    block(high, until=100.0)
    assert apart(made, {}) == {"low"}


async def test_where_nobody_is_well_the_usual_choice_holds() -> None:
    lone = hosted("a", "x.example")
    lone.health.of("m").failed(UpstreamAuth("no"), lone.health.keys[0], 0.0, probe=False, cooldown_s=0)
    assert apart(chooser([lone]), {"x.example": 1}) == {"a"}
