"""Windows and gates: what a channel may be burdened with."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from server.routing.health import NoRoom
from server.routing.limits import Gate, Window
from server.routing.turns import Caller
from server.settings import Channel
from server.upstreams.base import Call
from tests.channels import Listener, until


def gate(**limits: Any) -> Gate:
    channel = msgspec.convert({"name": "a", "kind": "openai", "models": ("m",)} | limits, Channel)
    return Gate(channel, asyncio.get_running_loop().time)


# ── windows, on a clock of their own ──


def test_so_many_begin_at_once_and_the_next_one_a_span_after_the_first() -> None:
    window = Window(3)
    for now in (0.0, 1.0, 2.0):
        assert window.plan(now, 1) == now
        window.enter(now, 1)
    assert window.plan(3.0, 1) == 60.0


def test_who_must_wait_gets_the_next_place_in_order() -> None:
    window = Window(1)
    planned = []
    for _ in range(4):
        planned.append(window.plan(5.0, 1))
        window.enter(planned[-1], 1)
    assert planned == [5, 65, 125, 185]


def test_what_is_larger_than_the_limit_goes_when_nothing_else_counts() -> None:
    window = Window(100)
    window.enter(window.plan(0.0, 50), 50)
    assert window.plan(1.0, 1000) == 60.0


def test_a_true_amount_that_is_larger_than_thought_makes_others_wait() -> None:
    window = Window(100)
    entry = window.enter(0.0, 10)
    window.settle(entry, 95, 1.0)
    assert window.plan(2.0, 10) == 60.0
    window.settle(entry, 0, 3.0)
    assert window.plan(4.0, 100) == 4.0


def test_what_is_settled_after_its_time_changes_nothing() -> None:
    window = Window(100)
    entry = window.enter(0.0, 10)
    assert window.plan(61.0, 100) == 61.0
    window.settle(entry, 500, 62.0)
    assert window.plan(62.0, 100) == 62.0


@given(
    limit=st.integers(1, 8),
    steps=st.lists(st.tuples(st.floats(0, 40), st.integers(1, 10)), max_size=40),
)
@hypothesis_settings(deadline=None, max_examples=200)
def test_no_span_ever_holds_more_than_the_limit(limit: int, steps: list[tuple[float, int]]) -> None:
    window, now = Window(limit), 0.0
    entered: list[tuple[float, int]] = []
    for wait, amount in steps:
        now += wait
        when = window.plan(now, amount)
        assert when >= now
        assert not entered or when >= entered[-1][0]
        window.enter(when, amount)
        entered.append((when, min(amount, limit)))
    for end, _ in entered:
        within = [amount for when, amount in entered if end - 60 < when <= end and when + 60 > end]
        assert sum(within) <= limit or len(within) == 1


# ── gates ──


async def test_requests_beyond_the_minute_are_refused_with_the_time_to_wait() -> None:
    one = gate(requests_per_min=2, max_waiting=0)
    for _ in range(2):
        one.leave(await one.enter(Call(), 0))
    with pytest.raises(NoRoom) as refused:
        await one.enter(Call(), 0)
    assert 59 < (refused.value.retry_after_s or 0) <= 60
    assert not one.free()


async def test_a_refusal_tells_whether_the_minute_or_the_queue_is_full() -> None:
    one = gate(requests_per_min=1, max_wait_s=1)
    one.leave(await one.enter(Call(), 0))
    with pytest.raises(NoRoom, match="limit of requests or tokens a minute is used up"):
        await one.enter(Call(), 0)
    busy = gate(max_concurrency=1, max_waiting=0)
    await busy.enter(Call(), 0)
    with pytest.raises(NoRoom, match="Too many requests wait"):
        await busy.enter(Call(), 0)


async def test_a_wait_longer_than_allowed_is_refused_at_once() -> None:
    one = gate(requests_per_min=1, max_wait_s=5)
    one.leave(await one.enter(Call(), 0))
    with pytest.raises(NoRoom):
        await one.enter(Call(), 0)
    assert one.waiting == 0


async def test_a_call_that_has_not_the_time_is_refused_at_once() -> None:
    one = gate(requests_per_min=1, max_wait_s=0)
    one.leave(await one.enter(Call(), 0))
    with pytest.raises(NoRoom):
        await one.enter(Call(deadline=asyncio.get_running_loop().time() + 10), 0)


async def test_tokens_count_by_what_they_were_not_by_what_was_thought() -> None:
    one = gate(tokens_per_min=100, max_waiting=0)
    ticket = await one.enter(Call(), 10)
    ticket.used = 100
    one.leave(ticket)
    with pytest.raises(NoRoom):
        await one.enter(Call(), 1)


async def test_whoever_leaves_the_queue_gives_his_place_in_the_window_back() -> None:
    one, listener = gate(requests_per_min=1, max_wait_s=0), Listener()
    one.leave(await one.enter(Call(), 0))
    waiting = asyncio.create_task(one.enter(Call(observer=listener), 0))
    await until(lambda: one.waiting)
    assert listener.heard == [("queued", "a")]
    waiting.cancel()
    await asyncio.wait({waiting})
    with pytest.raises(NoRoom) as refused:
        await one.enter(Call(deadline=asyncio.get_running_loop().time() + 1), 0)
    assert (refused.value.retry_after_s or 0) <= 60  # not behind the one who left


async def test_a_refusal_by_the_minute_gives_the_slot_back() -> None:
    one = gate(requests_per_min=1, max_concurrency=1, max_waiting=0)
    one.leave(await one.enter(Call(), 0))
    with pytest.raises(NoRoom):
        await one.enter(Call(), 0)
    assert one._slots is not None
    assert not one._slots.locked(Caller())


async def test_a_wait_for_a_slot_has_an_end_of_its_own() -> None:
    one = gate(max_concurrency=1, max_wait_s=0.02)
    await one.enter(Call(), 0)
    with pytest.raises(NoRoom):
        await one.enter(Call(), 0)
    assert one.waiting == 0
