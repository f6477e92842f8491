"""One channel: its keys in turn, why it is not asked, and how it is lent."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from server.deltas import Batch, TextDelta, UsageDelta
from server.deltas import Usage as Figures
from server.errors import InsufficientQuota, RateLimited, UpstreamAuth, UpstreamUnreachable
from server.routing.channel import ChannelState, lent
from server.routing.health import LeftAlone
from server.routing.limits import Ticket
from server.routing.turns import Caller
from server.settings import Channel
from server.upstreams.base import Call
from tests.channels import ScriptedChannel, answer, channel, chat, failure, model, played, says, until


def keyed(*keys: str, **more: Any) -> ChannelState:
    """A channel with so many keys, each with an upstream of its own."""
    fields = {"name": "c", "kind": "openai", "models": ("m",), "api_keys": keys} | more
    settings = msgspec.convert(fields, Channel)
    return ChannelState(settings, [ScriptedChannel(key) for key in keys])


def now() -> float:
    return asyncio.get_running_loop().time()


def fail(state: ChannelState, error: Any, key: int = 0) -> None:
    state.health.of("m").failed(error, state.health.keys[key], now(), probe=False, cooldown_s=10)


async def test_its_keys_are_used_in_turn() -> None:
    state = keyed("k1", "k2", "k3")
    used = [state.lane("m", now()).upstream.name for _ in range(6)]
    assert sorted(used) == ["k1", "k1", "k2", "k2", "k3", "k3"]
    assert set(used[:3]) == {"k1", "k2", "k3"}


async def test_a_key_that_was_refused_or_limited_comes_last_and_is_still_there() -> None:
    state = keyed("k1", "k2")
    fail(state, UpstreamAuth("no"), key=0)
    assert {state.lane("m", now()).upstream.name for _ in range(4)} == {"k2"}
    assert {state.lane("m", now(), [state.lanes[1].health]).upstream.name for _ in range(4)} == {"k1"}
    assert not state.has_other_key("m", now(), [state.lanes[1].health])
    assert state.has_other_key("m", now(), [state.lanes[0].health])


async def test_the_key_behind_a_refused_one_has_no_double_share() -> None:
    state = keyed("k1", "k2", "k3")
    fail(state, UpstreamAuth("no"), key=1)
    used = [state.lane("m", now()).upstream.name for _ in range(6)]
    assert (used.count("k1"), used.count("k2"), used.count("k3")) == (3, 0, 3)


async def test_a_lone_key_has_no_other() -> None:
    state = channel("c")
    assert state.lane("m", now()) is state.only
    assert not state.has_other_key("m", now(), [])


@pytest.mark.parametrize(
    ("errors", "why"),
    [
        ([], None),
        ([RateLimited("slower", retry_after_s=30)], "cooling"),
        ([RateLimited("slower")], "cooling"),
        ([UpstreamAuth("no")], "refused"),
        ([InsufficientQuota("spent")], "refused"),
        ([UpstreamUnreachable("down")] * 2, "breaker"),
    ],
)
async def test_it_says_why_it_is_not_asked(errors: list[Any], why: str | None) -> None:
    state = channel("c", breaker={"failures": 2})
    for error in errors:
        fail(state, error)
    assert state.against(state.health.of("m"), now()) == why


async def test_what_cannot_serve_or_is_dismissed_is_not_asked() -> None:
    state = channel("c")
    played(state).unavailable = "Install it."
    assert (state.able(), state.against(state.health.of("m"), now())) == (False, "unavailable")
    played(state).unavailable = None
    state.dismiss()
    assert (state.able(), state.against(state.health.of("m"), now())) == (False, "disabled")
    assert not channel("off", enabled=False).able()
    assert not channel("weightless", weight=0).able()


async def test_it_is_idle_when_no_call_is_under_way() -> None:
    state = channel("c", max_concurrency=2)
    tickets = [await state.take(Call(), chat()) for _ in range(2)]
    assert (state.in_use, state.idle.is_set()) == (2, False)
    for ticket in tickets:
        state.give(ticket)
    assert (state.in_use, state.idle.is_set()) == (0, True)


async def test_whom_a_call_waits_for_is_not_idle() -> None:
    state = channel("c", max_concurrency=1)
    ticket = await state.take(Call(), chat())
    waits, leaves = (asyncio.create_task(state.take(Call(), chat())) for _ in range(2))
    await until(lambda: state.gate is not None and state.gate.waiting == 2)
    leaves.cancel()
    await asyncio.wait({leaves})
    retired = asyncio.create_task(state.idle.wait())
    state.give(ticket)
    ticket = await waits
    assert not retired.done(), "a reload that waits for it would have ended what the call uses"
    assert state.in_use == 1
    state.give(ticket)
    assert await retired


async def test_what_an_answer_cost_is_what_the_upstream_says_or_else_its_length() -> None:
    state = channel("c", tokens_per_min=1000)
    ticket = await state.take(Call(), chat())
    assert ticket is not None
    said: Batch = [TextDelta("x" * 400)]
    state.count_tokens(said, chat(), ticket)
    assert 100 <= ticket.used < 150
    state.count_tokens([*said, UsageDelta(Figures(3, 4, 7))], chat(), ticket)
    assert ticket.used == 7
    state.give(ticket)
    state.count_tokens(said, chat(), Ticket(Caller(), None, None))  # nobody counts


async def test_what_the_upstream_has_counted_is_not_estimated_again() -> None:
    state = channel("c", tokens_per_min=1000)
    ticket = await state.take(Call(), chat())
    assert ticket is not None
    state.count_tokens([UsageDelta(Figures(3, 4, 7)), TextDelta("x" * 400)], chat(), ticket)
    assert ticket.used == 7
    state.give(ticket)


@pytest.mark.parametrize(("cools_s", "told_s"), [(0.4, 1), (20, 20), (3600, 60)])
async def test_who_waited_for_one_that_is_left_alone_by_now_hears_a_time_within_a_minute(
    cools_s: float, told_s: float
) -> None:
    state = channel("c", max_concurrency=1)
    first = await state.take(Call(), chat())
    waits = asyncio.create_task(state.take(Call(), chat(), state.health.of("m")))
    await asyncio.sleep(0)
    fail(state, RateLimited("slower", retry_after_s=cools_s))
    state.give(first)
    with pytest.raises(LeftAlone) as refused:
        await waits
    assert refused.value.retry_after_s == pytest.approx(told_s, abs=0.3)
    assert state.gate is not None
    assert state.gate.free(), "the slot is given back"


async def test_lent_it_shares_the_place_and_neither_limits_nor_standing() -> None:
    state = channel("c", says("hello"), max_concurrency=1, breaker={"failures": 1})
    fail(state, UpstreamUnreachable("down"))
    await state.take(Call(), chat())  # its only slot is taken
    for_one = lent(state)
    assert for_one.against(for_one.health.of("m"), now()) is None
    assert await answer(model(for_one)) == "hello"
    fail(for_one, UpstreamAuth("a caller's own"))
    assert lent(state).against(lent(state).health.of("m"), now()) is None
    assert state.against(state.health.of("m"), now()) == "breaker"


async def test_what_is_lent_counts_as_use_of_the_channel() -> None:
    """A channel that a reload drops is closed only when nobody uses it."""
    go = asyncio.Event()
    state = channel("c", [go, *says("hello")])
    asking = asyncio.create_task(answer(model(lent(state))))
    await until(lambda: played(state).open)
    assert not state.idle.is_set()
    go.set()
    assert await asking == "hello"
    assert state.idle.is_set()


async def test_a_reload_keeps_the_health_of_a_channel_at_the_same_place() -> None:
    before = channel("c")
    fail(before, RateLimited("slower", retry_after_s=30))
    upstreams = [ScriptedChannel("c")]
    same = ChannelState(before.settings, upstreams, before=before)
    assert same.against(same.health.of("m"), now()) == "cooling"
    moved = msgspec.structs.replace(before.settings, base_url="http://elsewhere/v1")
    other = ChannelState(moved, upstreams, before=before)
    assert other.against(other.health.of("m"), now()) is None


async def test_an_embedded_model_is_not_left_alone_for_one_death_that_failed_many_calls() -> None:
    state = channel("c", [UpstreamUnreachable("it died")], kind="local", base_url=None)
    routed = model(state)
    for _ in range(10):
        await failure(routed)
    assert state.against(state.health.of("m"), now()) is None
