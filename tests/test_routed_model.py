"""A model over its channels: order, retry, failover, patience."""

from __future__ import annotations

import asyncio
import math
import random
from collections import Counter
from contextlib import aclosing

import pytest

from server.deltas import Extra, Finished, Opening, TextDelta
from server.errors import (
    ContentFiltered,
    InsufficientQuota,
    NoChannel,
    Overloaded,
    RateLimited,
    ServerError,
    UpstreamAuth,
    UpstreamCut,
    UpstreamEmpty,
    UpstreamError,
    UpstreamInvalid,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from server.hedged_model import HedgedModel
from server.price_settings import Price
from server.prices import Rate
from server.routed_model import MAX_HELD, RoutedModel
from server.routing.channel import ChannelState
from server.settings import ChannelModel, Timeouts
from server.upstreams.base import Call, Upstream
from tests.channels import (
    Eager,
    Listener,
    Script,
    answer,
    channel,
    chat,
    deltas,
    failure,
    model,
    played,
    says,
    until,
)


def down() -> Script:
    return [UpstreamUnreachable("down")]


def fails(error: ServerError) -> Script:
    return [error]


def asked(*states: ChannelState) -> list[int]:
    return [len(played(state).asked) for state in states]


# ── one channel, and which one ──


async def test_the_answer_comes_through_as_it_is() -> None:
    got = await deltas(model(channel("a", says("he", "llo"))))
    assert got == [Opening(), TextDelta("he"), TextDelta("llo"), Finished("stop")]


async def test_the_channel_is_asked_for_the_models_own_name_not_for_an_alias() -> None:
    a = channel("a")
    await answer(model(a), request=chat("an-alias", seed=0))
    assert (
        played(a).asked[0].body
        == b'{"model":"m","stream":true,"messages":[{"role":"user","content":"hello"}],"seed":0}'
    )


async def test_success_takes_one_attempt() -> None:
    a, b = channel("a"), channel("b")
    call = Call()
    await answer(model(a, b), call)
    assert sum(asked(a, b)) == 1
    assert (call.attempts_made, call.channel) in {(1, "a"), (1, "b")}


async def test_the_higher_priority_is_asked_first_and_again_once_it_is_well() -> None:
    low, high = channel("low"), channel("high", down(), says("high"), priority=5)
    routed = model(low, high)
    assert await answer(routed) == "hello"
    assert await answer(routed) == "high"
    assert asked(low, high) == [1, 2]


async def test_siblings_of_the_same_priority_come_before_a_lower_one() -> None:
    for seed in range(20):
        low, a, b = (
            channel("low"),
            channel("a", down(), priority=1),
            channel("b", down(), priority=1),
        )
        assert await answer(model(low, a, b, rng=Eager(seed))) == "hello"
        assert asked(low, a, b) == [1, 1, 1]


async def test_weight_is_a_share() -> None:
    weights = {"a": 1, "b": 3, "c": 6, "none": 0}
    states = [channel(name, weight=weight) for name, weight in weights.items()]
    routed, draws = model(*states, rng=random.Random(7)), 10_000
    counts: Counter[str] = Counter()
    for _ in range(draws):
        chosen, _ = await routed._first(Call())
        counts[chosen.state.name] += 1
    assert counts["none"] == 0
    for name, weight in weights.items():
        share = weight / 10
        assert abs(counts[name] - draws * share) <= 3 * math.sqrt(draws * share * (1 - share))


@pytest.mark.parametrize("settings", [{"weight": 0}, {"enabled": False}])
async def test_a_channel_that_takes_no_calls_gets_none_even_as_the_last_one(
    settings: dict[str, object],
) -> None:
    a, off = channel("a", down()), channel("off", priority=9, **settings)
    assert isinstance(await failure(model(a, off)), UpstreamUnreachable)
    assert asked(off) == [0]
    assert (await failure(model(off))).code == "no_channel"


async def test_a_channel_that_cannot_serve_is_passed_over_and_says_why_when_it_is_alone() -> None:
    a, b = channel("a", priority=1), channel("b")
    played(a).unavailable = "Install the extra 'local'."
    assert await answer(model(a, b)) == "hello"
    assert asked(a, b) == [0, 1]
    error = await failure(model(a))
    assert (type(error), error.status, error.message) == (NoChannel, 503, "Install the extra 'local'.")


# ── what moves on, and what does not ──


@pytest.mark.parametrize(
    "error",
    [
        UpstreamUnreachable("down"),
        UpstreamCut("cut"),
        UpstreamEmpty("empty"),
        UpstreamInvalid("nonsense"),
        UpstreamError("broken", upstream_status=500),
        Overloaded("busy", upstream_status=503),
        RateLimited("slower", upstream_status=429),
        UpstreamAuth("refused", upstream_status=401),
        InsufficientQuota("empty", upstream_status=402),
        UpstreamTimeout("connect", 5),
        UpstreamTimeout("first_token", 5),
        UpstreamTimeout("idle", 5),
    ],
    ids=lambda error: error.code,
)
async def test_a_fault_of_the_upstream_moves_on_to_another_channel_at_once(error: ServerError) -> None:
    a, b, listener = channel("a", fails(error), priority=1), channel("b"), Listener()
    call = Call(observer=listener)
    assert await answer(model(a, b, rng=random.Random(1)), call) == "hello"
    assert listener.heard == [("attempt", 1, "a"), ("retrying", error.code, 2, False), ("attempt", 2, "b")]
    assert listener.delays == [0]
    assert (call.channel, call.attempts_made) == ("b", 2)


@pytest.mark.parametrize(
    "error",
    [
        UpstreamRefused("bad", upstream_status=400),
        UpstreamRefused("no such model", status=404, upstream_status=404),
        ContentFiltered("no", upstream_status=400),
        UpstreamTimeout("total", 5),
    ],
    ids=lambda error: f"{error.code}-{error.status}",
)
async def test_a_fault_of_the_request_is_not_repeated_anywhere(error: ServerError) -> None:
    a, b = channel("a", fails(error), priority=1), channel("b")
    assert await failure(model(a, b)) is error
    assert asked(a, b) == [1, 0]
    assert error.should_retry is None


async def test_each_attempt_gets_the_same_bytes() -> None:
    a, b = channel("a", down(), priority=1), channel("b")
    request = chat(seed=0, stop=[], extra={"n": 1.0})
    await answer(model(a, b), request=request)
    assert [one.body for state in (a, b) for one in played(state).asked] == [request.body] * 2


async def test_attempts_never_overlap() -> None:
    a, b = channel("a", [[Opening()], UpstreamCut("cut")], priority=1), channel("b", [asyncio.Event()])
    task = asyncio.create_task(answer(model(a, b)))
    await until(lambda: played(b).asked)
    assert (played(a).open, played(b).open) == (0, 1)
    task.cancel()
    await asyncio.wait({task})


async def test_three_attempts_are_made_and_no_more() -> None:
    states = [channel(name, down()) for name in "abcd"]
    await failure(model(*states))
    assert sorted(asked(*states)) == [0, 1, 1, 1]


async def test_a_call_may_have_fewer_attempts() -> None:
    a, b = channel("a", down()), channel("b", down())
    await failure(model(a, b), Call(attempts=1))
    assert sum(asked(a, b)) == 1


async def test_a_lone_channel_is_asked_once_more_after_a_back_off_and_not_for_ever() -> None:
    a, listener = channel("a", down()), Listener()
    call = Call(attempts=9, observer=listener)
    await failure(model(a), call)
    assert asked(a) == [2]
    assert listener.heard[1] == ("retrying", "upstream_unreachable", 2, True)


async def test_two_channels_are_asked_twice_each_at_most() -> None:
    a, b = channel("a", down()), channel("b", down())
    await failure(model(a, b), Call(attempts=9))
    assert asked(a, b) == [2, 2]


async def test_the_back_off_is_drawn_from_a_range_that_doubles() -> None:
    class Latest(Eager):
        ranges: list[tuple[float, float]] = []  # noqa: RUF012

        def uniform(self, a: float, b: float) -> float:
            self.ranges.append((a, b))
            return 0.0

    rng = Latest(1)
    await failure(model(channel("a", down()), channel("b", down()), rng=rng), Call(attempts=9))
    assert rng.ranges == [(0, 0.5), (0, 1.0)]


# ── credentials ──


@pytest.mark.parametrize("error", [UpstreamAuth("no", upstream_status=401), InsufficientQuota("no")])
async def test_refused_credentials_are_never_shown_twice_by_one_request(error: ServerError) -> None:
    a = channel("a", fails(error))
    assert await failure(model(a)) is error
    assert asked(a) == [1]
    assert error.should_retry is False


async def test_after_refused_credentials_no_wait_for_another_channel_leads_back_to_them() -> None:
    a = channel("a", fails(UpstreamAuth("no", upstream_status=401)), priority=1)
    b = channel("b", fails(RateLimited("slower", retry_after_s=0.02)), says("well"))
    assert await answer(model(a, b)) == "well"
    assert asked(a, b) == [1, 2]


async def test_the_next_requests_ask_the_refused_channel_last(caplog: pytest.LogCaptureFixture) -> None:
    a, b = channel("a", fails(UpstreamAuth("no", upstream_status=401)), priority=1), channel("b")
    routed = model(a, b)
    for _ in range(3):
        assert await answer(routed) == "hello"
    assert asked(a, b) == [1, 3]
    assert caplog.messages == ["channel a: no"]


# ── what is told in the end ──


async def test_a_cause_that_names_a_time_is_not_hidden_behind_a_later_one() -> None:
    limited = RateLimited("slower", retry_after_s=30, upstream_status=429)
    a, b = channel("a", fails(limited), priority=1), channel("b", down())
    assert await failure(model(a, b)) is limited
    assert limited.should_retry is None


async def test_a_cause_that_an_upstream_said_is_told_before_one_that_is_ours() -> None:
    said = UpstreamError("broken", upstream_status=500)
    a, b = channel("a", fails(said), priority=1), channel("b", down())
    assert await failure(model(a, b)) is said


@pytest.mark.parametrize(
    "error",
    [UpstreamUnreachable("down"), UpstreamTimeout("connect", 5), Overloaded("busy", upstream_status=503)],
)
async def test_a_5xx_after_our_own_attempts_tells_sdks_not_to_repeat(error: ServerError) -> None:
    assert (
        await failure(model(channel("a", fails(error)), channel("b", fails(error))))
    ).should_retry is False


@pytest.mark.parametrize("error", [RateLimited("slower"), Overloaded("busy", retry_after_s=9)])
async def test_a_429_and_a_503_with_a_time_may_be_repeated(error: ServerError) -> None:
    assert (await failure(model(channel("a", fails(error)), channel("b", fails(error))))).should_retry is None


async def test_after_one_attempt_the_client_may_repeat() -> None:
    assert (await failure(model(channel("a", down())), Call(attempts=1))).should_retry is None


# ── the first delta ──


async def collect(upstream: Upstream, got: list[object]) -> None:
    async with aclosing(upstream.stream(chat(), Call())) as batches:
        async for batch in batches:
            got += batch


async def test_after_the_first_delta_nothing_is_repeated() -> None:
    cut = UpstreamCut("cut")
    a, b = channel("a", [[Opening(), TextDelta("he")], cut], priority=1), channel("b")
    got: list[object] = []
    with pytest.raises(UpstreamCut) as raised:
        await collect(model(a, b), got)
    assert (got, raised.value) == ([Opening(), TextDelta("he")], cut)
    assert (cut.should_retry, asked(b)) == (None, [0])


async def test_a_lone_role_is_no_first_delta_and_leaves_no_trace_after_a_failover() -> None:
    a = channel("a", [[Opening()], [Extra()], UpstreamCut("cut")], priority=1)
    b = channel("b", [[Opening(), Extra()], [TextDelta("x")], [Finished("stop")]])
    assert await deltas(model(a, b)) == [Opening(), Extra(), TextDelta("x"), Finished("stop")]


async def test_what_is_kept_before_the_first_delta_is_bounded() -> None:
    noise = [[Extra()] for _ in range(5 * MAX_HELD)]
    got = await deltas(model(channel("a", [[Opening()], *noise, [TextDelta("x")], [Finished("stop")]])))
    assert got[0] == Opening()
    assert got[-2:] == [TextDelta("x"), Finished("stop")]
    assert len(got) <= MAX_HELD + 3


# ── time ──


async def test_the_total_time_covers_all_attempts() -> None:
    a = channel("a", down(), timeouts={"total_s": 90})
    call = Call()
    before = asyncio.get_running_loop().time()
    await failure(model(a), call)
    assert call.deadline == pytest.approx(before + 90, abs=5)


async def test_the_calls_own_total_time_wins_and_zero_is_none() -> None:
    for mine, theirs in [(0, 90), (0, 0), (7, 0)]:
        own = Timeouts(total_s=mine)
        call = Call(timeouts=lambda said, own=own: own)  # type: ignore[misc]
        before = asyncio.get_running_loop().time()
        assert await answer(model(channel("a", timeouts={"total_s": theirs})), call) == "hello"
        assert call.deadline == (pytest.approx(before + mine, abs=5) if mine else None)


async def test_a_call_that_leaves_a_clock_to_the_channel_has_each_channels_own() -> None:
    now = asyncio.get_running_loop().time
    a, b = (
        channel("a", down(), timeouts={"connect_s": 9}, priority=1),
        channel("b", timeouts={"connect_s": 1}),
    )
    call = Call(deadline=now() + 5, timeouts=lambda said: said.over(Timeouts(connect_s=9)))
    assert await answer(model(a, b), call) == "hello", "there is time for b's second"
    assert (await failure(model(a), Call(deadline=now() + 5))).code == "upstream_unreachable"
    assert asked(a) == [2], "not for a's nine: it was asked once in each request"


async def test_no_attempt_begins_that_would_have_no_time_left_to_connect() -> None:
    a, b = channel("a", down(), priority=1), channel("b")
    deadline = asyncio.get_running_loop().time() + 3
    assert isinstance(await failure(model(a, b), Call(deadline=deadline)), UpstreamUnreachable)
    assert asked(b) == [0]
    call = Call(deadline=deadline, timeouts=lambda said: Timeouts(connect_s=0.1))
    assert await answer(model(a, b), call) == "hello"


# ── what it costs ──


def test_each_channel_has_the_price_that_its_model_has_there() -> None:
    served = ChannelModel(price=Price(input=1, output=2))
    billing = channel("b", bills_cancelled=True)
    routed = RoutedModel("m", [(channel("a"), ChannelModel()), (billing, served)], random.Random(1))
    assert routed.prices is not None
    assert routed.prices.on("a") is None
    assert routed.prices.on("b") == Rate.of(Price(input=1, output=2), bills_cancelled=True)
    assert model(channel("a")).prices is None
    assert HedgedModel(routed, 1).prices is routed.prices
