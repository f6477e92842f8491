"""A second channel beside one that is slow to speak."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import pytest

from server.deltas import TextDelta
from server.errors import RateLimited, UpstreamCut, UpstreamUnreachable
from server.hedged_model import HedgedModel
from server.routing.channel import ChannelState
from server.upstreams.base import Call
from tests.channels import Listener, Script, answer, channel, chat, failure, model, played, says, until


def hedged(*states: ChannelState, after_s: float = 0.01, **routing: Any) -> HedgedModel:
    return HedgedModel(model(*states, **routing), after_s)


def asked(*states: ChannelState) -> list[int]:
    return [len(played(state).asked) for state in states]


def silent() -> Script:
    return [asyncio.Event()]


async def test_one_that_speaks_in_time_is_asked_alone() -> None:
    a, b = channel("a", priority=1), channel("b")
    call = Call(observer=(listener := Listener()))
    assert await answer(hedged(a, b, after_s=60), call) == "hello"
    assert (asked(a, b), listener.notes, call.tried) == ([1, 0], [], ())


async def test_when_it_is_silent_another_is_asked_and_answers() -> None:
    a, b = channel("a", silent(), priority=1), channel("b", says("from ", "b"))
    call = Call(observer=(listener := Listener()))
    assert await answer(hedged(a, b), call) == "from b"
    assert listener.notes == [("b", "hedged", None)]
    assert (call.channel, call.attempts_made, call.tried) == ("b", 2, (("a", "overtaken"),))
    assert (played(a).open, played(b).open) == (0, 0)


async def test_what_the_faster_one_adapted_is_told_in_the_call() -> None:
    a, b = channel("a", silent(), priority=1), channel("b", says("from b"))
    played(b).warnings = ("seed was left out",)
    call = Call(observer=(listener := Listener()))
    assert await answer(hedged(a, b), call) == "from b"
    assert (call.channel, call.warnings) == ("b", ("b", ("seed was left out",)))
    assert listener.adaptations == [("b", ("seed was left out",))]


async def test_the_first_may_still_be_the_faster_one() -> None:
    go = asyncio.Event()
    a, b = channel("a", [go, *says("from a")], priority=1), channel("b", silent())
    call = Call()
    task = asyncio.create_task(answer(hedged(a, b), call))
    await until(lambda: played(b).open)
    go.set()
    assert await task == "from a"
    assert (call.channel, call.tried, played(b).open) == ("a", (("b", "overtaken"),), 0)


async def test_the_loser_is_closed_before_the_first_word_is_relayed() -> None:
    a, b = channel("a", silent(), priority=1), channel("b")
    async with aclosing(hedged(a, b).stream(chat(), Call())) as batches:
        await anext(batches)
        assert (played(a).open, played(b).open) == (0, 1)
    assert played(b).open == 0


async def test_a_loser_that_spoke_in_the_same_moment_is_closed_before_the_first_word_too() -> None:
    go = asyncio.Event()
    a = channel("a", [go, [TextDelta("from a")], asyncio.Event()], priority=1)
    b = channel("b", [go, [TextDelta("from b")], asyncio.Event()])
    async with aclosing(hedged(a, b).stream(chat(), Call())) as batches:
        first = asyncio.ensure_future(anext(batches))
        await until(lambda: played(b).open)
        go.set()
        assert await first == [TextDelta("from a")]
        assert (played(a).open, played(b).open) == (1, 0)


async def test_the_hedge_has_the_time_that_the_call_has_left() -> None:
    a, b = channel("a", silent(), priority=1, timeouts={"total_s": 30}), channel("b")
    began = asyncio.get_running_loop().time()
    await answer(hedged(a, b))
    assert [call.deadline for call in played(b).asked_by] == [played(a).asked_by[0].deadline]
    assert began + 29 < (played(b).asked_by[0].deadline or 0) < began + 45


async def test_the_hedge_goes_to_none_that_has_failed_in_this_request() -> None:
    a = channel("a", [UpstreamUnreachable("down")], priority=2)
    b, c = channel("b", silent(), priority=1), channel("c", says("from c"))
    call = Call()
    assert await answer(hedged(a, b, c), call) == "from c"
    assert asked(a, b, c) == [1, 1, 1]
    assert call.tried == (("a", "upstream_unreachable"), ("b", "overtaken"))


async def test_a_hedge_that_fails_leaves_the_first_alone() -> None:
    go = asyncio.Event()
    a, b = channel("a", [go, *says("from a")], priority=1), channel("b", [UpstreamUnreachable("down")])
    task = asyncio.create_task(answer(hedged(a, b)))
    await until(lambda: asked(b) == [1])
    go.set()
    assert await task == "from a"


async def test_when_the_first_fails_meanwhile_the_hedge_answers() -> None:
    go, stay = asyncio.Event(), asyncio.Event()
    a = channel("a", [go, RateLimited("slower", retry_after_s=60)], priority=1)
    b, call = channel("b", [stay, *says("from b")]), Call()
    task = asyncio.create_task(answer(hedged(a, b), call))
    await until(lambda: played(b).open)
    go.set()
    await until(lambda: not played(a).open)
    stay.set()
    assert await task == "from b"
    assert asked(a, b) == [1, 1]
    assert call.tried == (("a", "rate_limit_exceeded"),), "one that failed was not overtaken as well"


async def test_when_both_fail_the_cause_of_the_first_is_told() -> None:
    go = asyncio.Event()
    a = channel("a", [go, RateLimited("slower", retry_after_s=60)], priority=1)
    b = channel("b", [UpstreamUnreachable("down")])
    task = asyncio.create_task(failure(hedged(a, b)))
    await until(lambda: asked(b) == [1])
    go.set()
    assert (await task).message == "slower"


async def test_a_failure_in_time_moves_on_as_ever() -> None:
    a, b = channel("a", [UpstreamUnreachable("down")], priority=1), channel("b", says("from b"))
    assert await answer(hedged(a, b, after_s=60)) == "from b"


async def test_a_failure_in_time_that_nobody_mends_is_told_as_it_is() -> None:
    limited = RateLimited("slower", retry_after_s=60)
    assert await failure(hedged(channel("a", [limited]), after_s=60)) is limited


async def test_after_the_first_word_there_is_no_second_chance() -> None:
    a = channel("a", [[TextDelta("he")], asyncio.Event()], priority=1)
    b = channel("b", [[TextDelta("x")], UpstreamCut("cut")])
    async with aclosing(hedged(a, b).stream(chat(), Call())) as batches:
        assert await anext(batches) == [TextDelta("he")]
        await asyncio.sleep(0.03)
        assert asked(b) == [0]


async def test_whole_answers_are_not_hedged() -> None:
    go = asyncio.Event()
    a, b = channel("a", [go, *says("whole")], priority=1), channel("b")
    task = asyncio.create_task(answer(hedged(a, b), request=chat(stream=False)))
    await until(lambda: played(a).open)
    await asyncio.sleep(0.03)
    go.set()
    assert (await task, asked(b)) == ("whole", [0])


@pytest.mark.parametrize("why", ["alone", "sick", "no budget"])
async def test_without_another_that_is_well_or_without_budget_it_waits(why: str) -> None:
    go = asyncio.Event()
    a, b = channel("a", [go, *says("from a")], priority=1), channel("b", enabled=why != "alone")
    if why == "sick":
        limited = RateLimited("slower", retry_after_s=60)
        now = asyncio.get_running_loop().time()
        b.health.of("m").failed(limited, b.health.keys[0], now, probe=False, cooldown_s=0)
    upstream = hedged(a, b, retry_reserve=0 if why == "no budget" else 20)
    task = asyncio.create_task(answer(upstream))
    await until(lambda: played(a).open)
    await asyncio.sleep(0.03)
    go.set()
    assert (await task, asked(b)) == ("from a", [0])


async def test_a_client_that_leaves_closes_both() -> None:
    a, b = channel("a", silent(), priority=1), channel("b", silent())
    before = asyncio.all_tasks()
    task = asyncio.create_task(answer(hedged(a, b)))
    await until(lambda: played(b).open)
    task.cancel()
    await asyncio.wait({task})
    assert (task.cancelled(), played(a).open, played(b).open) == (True, 0, 0)
    assert asyncio.all_tasks() == before
