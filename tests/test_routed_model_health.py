"""A model whose channels fall ill: breakers, probes, key pools, the budget, and what is told of it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

import msgspec
import pytest

from server.deltas import Opening, TextDelta
from server.errors import (
    NoChannel,
    RateLimited,
    ServerError,
    UpstreamAuth,
    UpstreamCut,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from server.routing.channel import ChannelState
from server.routing.health import NoRoom
from server.run_log import Runs
from server.settings import Channel, Timeouts
from server.settings import Runs as RunsSettings
from server.upstreams.base import Call
from tests.channels import (
    Listener,
    Script,
    ScriptedChannel,
    answer,
    channel,
    chat,
    failure,
    model,
    played,
    said_and_failed,
    says,
    until,
)
from tests.run_clock import ANN

TWO = {"failures": 2, "open_s": 30}
DOWN: Script = [UpstreamUnreachable("down")]


def asked(*states: ChannelState) -> list[int]:
    return [len(played(state).asked) for state in states]


def pool(
    name: str, *scripts: Sequence[Script], **settings: Any
) -> tuple[ChannelState, list[ScriptedChannel]]:
    """A channel with one key for each list of scripts, and the upstreams that use them."""
    keys = tuple(f"k{at}" for at in range(len(scripts)))
    fields = {"name": name, "kind": "openai", "models": ("m",), "api_keys": keys} | settings
    upstreams = [ScriptedChannel(name, *one) for one in scripts]
    return ChannelState(msgspec.convert(fields, Channel), upstreams), upstreams


async def opened() -> tuple[ChannelState, Any]:
    """A lone channel whose breaker its failures have opened, and its model."""
    a = channel("a", DOWN, breaker=TWO)
    routed = model(a)
    await failure(routed)  # asked once more: two in a row
    assert a.health.of("m").breaker.state == "open"
    return a, routed


def time_is_over(state: ChannelState) -> None:
    """The open breaker's time has passed: the next call is its probe."""
    health = state.health.of("m")
    assert health.breaker.state == "open"
    health.breaker.until = asyncio.get_running_loop().time()
    health.refresh()


# ── the breaker ──


async def test_a_channel_that_fails_again_and_again_is_left_alone() -> None:
    a, b = channel("a", DOWN, priority=1, breaker={"failures": 3}), channel("b")
    routed = model(a, b)
    for _ in range(10):
        assert await answer(routed) == "hello"
    assert asked(a, b) == [3, 10]


async def test_one_run_whose_calls_fail_together_does_not_shut_a_channel_for_all() -> None:
    a = channel("a", DOWN, breaker={"failures": 5})
    routed, runs = model(a), Runs(RunsSettings())
    for number in range(1, 4):
        run = runs.start(model="m", principal=ANN)
        calls = [failure(routed, Call(run=run)) for _ in range(6)]
        errors = await asyncio.gather(*calls)
        if number < 3:
            assert a.health.of("m").breaker.state == "closed"
            assert {type(error) for error in errors} == {UpstreamUnreachable}
    assert a.health.of("m").breaker.state == "open", "the third run's first failure is the fifth"


async def test_when_all_are_open_the_client_hears_at_once_for_how_long() -> None:
    a, routed = await opened()
    error = await failure(routed)
    assert (type(error), error.status, error.code) == (NoChannel, 503, "no_channel")
    assert 29 < (error.retry_after_s or 0) <= 30
    assert "after upstream_unreachable" in error.message
    assert asked(a) == [2]


async def test_the_first_choice_is_used_again_once_it_is_well() -> None:
    a, b = channel("a", *[DOWN] * 2, says("well"), priority=1, breaker=TWO), channel("b")
    routed = model(a, b)
    for _ in range(3):
        assert await answer(routed) == "hello"
    time_is_over(a)
    assert await answer(routed) == "well"
    assert a.health.of("m").breaker.state == "closed"


async def test_one_call_alone_tries_a_channel_that_was_open() -> None:
    go = asyncio.Event()
    a = channel("a", *[DOWN] * 2, [go, *says("well")], breaker=TWO, priority=1)
    b = channel("b")
    routed = model(a, b)
    for _ in range(2):
        await answer(routed)
    time_is_over(a)
    probe = asyncio.create_task(answer(routed))
    await until(lambda: len(played(a).asked) == 3)
    assert [await answer(routed) for _ in range(5)] == ["hello"] * 5
    go.set()
    assert await probe == "well"
    assert await answer(routed) == "well"


async def test_a_lone_channel_under_probe_refuses_the_others_for_a_moment() -> None:
    a, routed = await opened()
    played(a).scripts = [[asyncio.Event()]]
    time_is_over(a)
    probe = asyncio.create_task(answer(routed))
    await until(lambda: played(a).open)
    error = await failure(routed)
    assert (type(error), error.retry_after_s) == (NoChannel, 1)
    probe.cancel()
    await asyncio.wait({probe})


async def test_a_probe_whose_client_leaves_leaves_its_turn_to_the_next() -> None:
    a, routed = await opened()
    played(a).scripts = [[asyncio.Event()], says("well")]
    time_is_over(a)
    probe = asyncio.create_task(answer(routed))
    await until(lambda: played(a).open)
    probe.cancel()
    await asyncio.wait({probe})
    assert await answer(routed) == "well"


async def test_a_probe_that_ends_in_a_bug_of_ours_leaves_its_turn_to_the_next() -> None:
    a, routed = await opened()
    played(a).scripts = [[KeyError("bug")], says("well")]  # type: ignore[list-item]
    time_is_over(a)
    with pytest.raises(TypeError):
        await answer(routed)
    assert await answer(routed) == "well"


async def test_a_probe_that_speaks_closes_the_breaker_before_its_answer_is_whole() -> None:
    a, routed = await opened()
    played(a).scripts = [says("we", "ll")]
    time_is_over(a)
    async with aclosing(routed.stream(chat(), Call())) as batches:
        await anext(batches)
        assert a.health.of("m").breaker.state == "closed"
    assert a.health.of("m").blocked_until == 0


@pytest.mark.parametrize("error", [UpstreamRefused("bad", upstream_status=400), RateLimited("slower")])
async def test_mistakes_of_clients_and_limits_open_nothing(error: ServerError) -> None:
    a = channel("a", [error], breaker={"failures": 1})
    routed = model(a)
    for _ in range(5):
        assert await failure(routed) is error
    assert a.health.of("m").breaker.state == "closed"


async def test_clients_that_leave_open_nothing() -> None:
    a = channel("a", [asyncio.Event()], breaker={"failures": 1})
    routed = model(a)
    for _ in range(5):
        task = asyncio.create_task(answer(routed))
        await until(lambda: played(a).open)
        task.cancel()
        await asyncio.wait({task})
    assert a.health.of("m").breaker.state == "closed"


async def test_an_answer_that_is_cut_counts_although_it_had_begun() -> None:
    a = channel("a", [[Opening(), TextDelta("he")], UpstreamCut("cut")], breaker={"failures": 2})
    routed = model(a)
    for _ in range(2):
        assert (await said_and_failed(routed))[0] == ["he"]
    assert a.health.of("m").breaker.state == "open"


async def test_a_total_time_that_the_caller_set_is_not_held_against_the_channel() -> None:
    a = channel("a", [UpstreamTimeout("total", 1)], breaker={"failures": 1})
    routed = model(a)
    deadline = asyncio.get_running_loop().time() + 60
    await failure(routed, Call(deadline=deadline, timeouts=lambda said: Timeouts(connect_s=1)))
    assert a.health.of("m").breaker.state == "closed"
    await failure(routed)
    assert a.health.of("m").breaker.state == "open"


async def test_a_probe_that_ends_by_the_callers_own_time_leaves_its_turn_to_the_next() -> None:
    a, routed = await opened()
    played(a).scripts = [[UpstreamTimeout("total", 1)], says("well")]
    time_is_over(a)
    deadline = asyncio.get_running_loop().time() + 60
    await failure(routed, Call(deadline=deadline, attempts=1))
    assert a.health.of("m").breaker.until <= asyncio.get_running_loop().time()
    assert await answer(routed) == "well"


# ── the budget ──


async def test_calls_to_failing_channels_come_out_of_a_budget() -> None:
    a, b = (
        channel("a", DOWN, breaker={"failures": 0, "rate": 0}),
        channel("b", DOWN, breaker={"failures": 0, "rate": 0}),
    )
    routed = model(a, b, retry_ratio=0.5, retry_reserve=4)
    for _ in range(50):
        await failure(routed)
    # Fifty first calls, the reserve, one for each two requests, and two while a sibling still seemed well.
    assert 50 + 4 + 20 <= sum(asked(a, b)) <= 50 + 4 + 25 + 2


async def test_a_try_that_is_not_made_is_told_with_the_reason() -> None:
    a, b = channel("a", DOWN, priority=1), channel("b", DOWN)
    listener, late = Listener(), Listener()
    await failure(model(a, b, retry_reserve=0), Call(observer=listener))
    assert listener.notes[-1] == ("b", "passed_over", "budget")
    deadline = asyncio.get_running_loop().time() + 3
    await failure(model(channel("c", DOWN, priority=1), b), Call(observer=late, deadline=deadline))
    assert late.notes == [("b", "passed_over", "time")]


async def test_a_sibling_that_is_well_may_always_be_asked() -> None:
    a, b = channel("a", DOWN, priority=1, breaker={"failures": 0, "rate": 0}), channel("b")
    routed = model(a, b, retry_ratio=0, retry_reserve=0)
    assert [await answer(routed) for _ in range(50)] == ["hello"] * 50


# ── several keys ──


async def test_keys_are_used_in_turn() -> None:
    a, upstreams = pool("a", [says("x")], [says("x")], [says("x")])
    routed = model(a)
    for _ in range(9):
        await answer(routed)
    assert [len(one.asked) for one in upstreams] == [3, 3, 3]


@pytest.mark.parametrize("error", [UpstreamAuth("no"), RateLimited("slower", retry_after_s=30)])
async def test_a_key_that_is_refused_or_limited_is_left_out_and_another_answers(error: ServerError) -> None:
    a, (bad, good) = pool("a", [[error]], [says("good")])
    routed = model(a)
    for _ in range(10):
        assert await answer(routed) == "good"
    assert (len(bad.asked), len(good.asked)) == (1, 10)


async def test_a_fault_of_the_server_moves_on_to_another_channel_not_to_another_key() -> None:
    a, (one, two) = pool("a", [DOWN], [DOWN], priority=1)
    b = channel("b")
    assert await answer(model(a, b)) == "hello"
    assert len(one.asked) + len(two.asked) == 1


async def test_when_every_key_is_refused_each_was_tried_once() -> None:
    refused: Script = [UpstreamAuth("no", upstream_status=401)]
    a, upstreams = pool("a", [refused], [refused], [refused])
    error = await failure(model(a), Call(attempts=9))
    assert (error.code, [len(one.asked) for one in upstreams]) == ("upstream_auth", [1, 1, 1])


# ── what is told ──


async def test_each_decision_is_told() -> None:
    a, b, listener = channel("a", DOWN, breaker={"failures": 1}, priority=1), channel("b"), Listener()
    routed = model(a, b)
    call = Call(observer=listener)
    await answer(routed, call)
    assert listener.notes == [("a", "open", None), ("b", "asked", None)]
    assert call.tried == (("a", "upstream_unreachable"),)
    later = Listener()
    await answer(routed, Call(observer=later))
    assert later.notes == [("a", "passed_over", "breaker")]


async def test_a_channel_without_the_model_costs_one_call_and_comes_last_then() -> None:
    missing: ServerError = UpstreamRefused(
        "no such deployment", status=404, code="model_not_found", upstream_status=404
    )
    missing.retryable = True
    a, b, listener = channel("a", [missing], priority=1), channel("b"), Listener()
    routed = model(a, b)
    await answer(routed)
    for _ in range(3):
        await answer(routed, Call(observer=listener))
    assert asked(a, b) == [1, 4]
    assert listener.notes == [("a", "passed_over", "cooling")] * 3
    lone = channel("c", [missing], says("pulled"))
    assert isinstance(await failure(model(lone)), UpstreamRefused)
    assert await answer(model(lone)) == "pulled", "alone it is asked all the same"


async def test_a_channel_that_is_back_is_told() -> None:
    a, routed = await opened()
    played(a).scripts = [says("well")]
    time_is_over(a)
    listener = Listener()
    await answer(routed, Call(observer=listener))
    assert listener.notes == [("a", "closed", None)]


async def test_a_call_that_goes_well_tells_nothing_of_channels() -> None:
    listener, call = Listener(), Call()
    call.observer = listener
    await answer(model(channel("a"), channel("b")), call)
    assert (listener.notes, call.tried) == ([], ())


# ── reloads ──


async def renewed(state: ChannelState, **changes: Any) -> ChannelState:
    settings = msgspec.structs.replace(state.settings, **changes)
    return ChannelState(settings, [ScriptedChannel(settings.name)], before=state)


async def test_health_survives_a_reload_that_keeps_name_and_address() -> None:
    a, _ = await opened()
    again = await renewed(a, priority=7)
    assert isinstance(await failure(model(again)), NoChannel)


async def test_another_address_begins_in_good_health() -> None:
    a, _ = await opened()
    assert await answer(model(await renewed(a, base_url="https://b.example/v1"))) == "hello"


async def test_a_reload_that_keeps_the_limits_keeps_what_counts_toward_them() -> None:
    a = channel("a", requests_per_min=1, max_waiting=0)
    await answer(model(a))
    assert isinstance(await failure(model(await renewed(a, weight=3))), NoRoom)
    assert await answer(model(await renewed(a, requests_per_min=2))) == "hello"


async def test_what_runs_under_older_settings_still_counts() -> None:
    a = channel("a", DOWN, breaker={"failures": 2, "open_s": 30})
    old, again = model(a), await renewed(a, priority=7)
    await failure(old)
    assert again.health.of("m").blocked_until not in (0, math.inf)


async def test_a_request_under_way_moves_on_to_no_channel_that_was_dismissed_meanwhile() -> None:
    go = asyncio.Event()
    a, b = channel("a", [go, *DOWN], priority=1), channel("b")
    task = asyncio.create_task(failure(model(a, b)))
    await until(lambda: played(a).open)
    b.dismiss()
    a.dismiss()
    go.set()
    assert (await task).code == "upstream_unreachable"
    assert asked(a, b) == [1, 0]
