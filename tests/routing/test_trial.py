"""Trying a channel: one call a key, past everything that would keep a client's call away."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from server.deltas import Finished, Opening, ReasoningDelta, TextDelta
from server.errors import (
    InvalidRequest,
    RateLimited,
    ServerError,
    UpstreamAuth,
    UpstreamCut,
    UpstreamError,
    UpstreamTimeout,
)
from server.routing.channel import ChannelState
from server.routing.trial import MAX_TEXT, PROMPT, ChannelTrial, try_channel, try_keys
from server.settings import Channel, ChannelModel
from server.upstreams.base import Call
from server.upstreams.listing import Listing
from tests.channels import ScriptedChannel, channel, chat, played, says, until


def now() -> float:
    return asyncio.get_running_loop().time()


def against(state: ChannelState) -> str | None:
    return state.against(state.health.of("m"), now())


async def no_list(channel: Channel) -> Listing | None:
    return None


async def tried(state: ChannelState, listing: Listing | ServerError | None = None) -> ChannelTrial:
    async def list_models(channel: Channel) -> Listing | None:
        if isinstance(listing, ServerError):
            raise listing
        return listing

    return await try_channel(state, "m", list_models)


async def test_a_channel_that_answers_is_told_with_its_words_and_its_times() -> None:
    state = channel("a", says("ye", "s"))
    [trial] = await try_keys(state, "m")
    assert (trial.key, trial.ok, trial.text, trial.code, trial.message) == ("a", True, "yes", None, None)
    assert trial.first_token_s is not None
    assert 0 <= trial.first_token_s <= trial.total_s
    [asked] = played(state).asked
    assert asked.stream
    assert asked.messages[-1].text == PROMPT


async def test_reasoning_counts_as_an_answer() -> None:
    state = channel("a", [[Opening()], [ReasoningDelta("hm")], [Finished("stop")]])
    [trial] = await try_keys(state, "m")
    assert trial.ok


async def test_a_long_answer_is_shown_in_part() -> None:
    [trial] = await try_keys(channel("a", says("x" * 5000, "y")), "m")
    assert trial.text == "x" * MAX_TEXT


async def test_an_answer_without_a_word_is_a_failure() -> None:
    [trial] = await try_keys(channel("a", [[Opening()], [Finished("stop")]]), "m")
    assert (trial.ok, trial.code) == (False, "upstream_empty")


async def test_an_answer_that_is_cut_is_a_failure_which_tells_what_was_said() -> None:
    [trial] = await try_keys(channel("a", [[TextDelta("ye")], UpstreamCut("cut off")]), "m")
    assert (trial.ok, trial.text, trial.code, trial.message) == (False, "ye", "upstream_cut", "cut off")


async def test_one_that_cannot_serve_at_all_is_told_why_and_not_asked() -> None:
    state = channel("a")
    played(state).unavailable = "Install the extra."
    [trial] = await try_keys(state, "m")
    assert (trial.ok, trial.code, trial.message) == (False, "no_channel", "Install the extra.")
    assert not played(state).asked


async def test_a_channel_that_is_disabled_can_be_tried() -> None:
    state = channel("a", enabled=False)
    [trial] = await try_keys(state, "m")
    assert trial.ok
    assert against(state) == "disabled", "which does not switch it on"


@pytest.mark.parametrize(
    "error",
    [
        UpstreamError("broken", upstream_status=500),
        RateLimited("slower", retry_after_s=3600),
        UpstreamAuth("no"),
    ],
    ids=lambda error: error.code,
)
async def test_one_that_was_left_alone_is_back_once_it_answers(error: ServerError) -> None:
    state = channel("a", [error], says("yes"), breaker={"failures": 1})
    await try_keys(state, "m")
    assert against(state) is not None
    [trial] = await try_keys(state, "m")
    assert trial.ok
    assert against(state) is None
    assert state.health.of("m").avoided_until <= now()


async def test_a_trial_that_fails_counts_as_any_call_does() -> None:
    state = channel("a", [UpstreamCut("cut")], breaker={"failures": 2})
    await try_keys(state, "m")
    assert against(state) is None
    await try_keys(state, "m")
    assert against(state) == "breaker"


async def test_a_trial_that_is_answered_counts_as_any_call_does() -> None:
    error = UpstreamCut("cut")
    state = channel("a", [error], says("yes"), [error], says("yes"), [error], breaker={"failures": 2})
    told = [[one.ok for one in await try_keys(state, "m")] for _ in range(5)]
    assert told == [[False], [True], [False], [True], [False]]
    assert against(state) is None  # no two of the failures came in a row


async def test_after_an_answer_the_breaker_opens_for_no_longer_than_at_first() -> None:
    error = UpstreamCut("cut")
    state = channel("a", [error], says("yes"), [error], says("yes"), [error], breaker={"failures": 1})
    for _ in range(5):
        await try_keys(state, "m")
    assert against(state) == "breaker"
    assert state.health.of("m").breaker.trips == 1


@pytest.mark.parametrize(
    "error", [InvalidRequest("bad"), UpstreamTimeout("total", 60)], ids=lambda error: error.code
)
async def test_what_says_nothing_of_the_channel_is_not_held_against_it(error: ServerError) -> None:
    state = channel("a", [error], breaker={"failures": 1})
    [trial] = await try_keys(state, "m")
    assert not trial.ok
    assert against(state) is None


async def test_every_key_is_tried_and_only_the_one_that_fails_is_left_alone() -> None:
    upstreams = [ScriptedChannel("a", [UpstreamAuth("wrong key")]), ScriptedChannel("a", says("yes"))]
    state = ChannelState(Channel("a", "openai", ("m",), api_keys=("k1", "k2")), upstreams)
    trials = await try_keys(state, "m")
    assert [(one.key, one.ok) for one in trials] == [("a, key 1", False), ("a, key 2", True)]
    assert [lane.health.refused_until > now() for lane in state.lanes] == [True, False]


async def test_its_calls_count_within_the_channels_limits_and_give_their_place_back() -> None:
    state = channel("a", max_concurrency=1)
    for _ in range(3):
        [trial] = await try_keys(state, "m")
        assert trial.ok
    assert state.in_use == 0


async def test_what_the_upstream_lists_is_told_and_what_it_does_not() -> None:
    fields: dict[str, Any] = {"models": {"m": ChannelModel(model="theirs"), "n": ChannelModel()}}
    found = await tried(channel("a", **fields), Listing(("theirs", "more"), 0.25))
    assert (found.ok, found.connect_s, found.models) == (True, 0.25, ("theirs", "more"))
    assert found.missing == ("n",)
    assert (found.channel, found.kind, found.model) == ("a", "openai", "m")


async def test_a_list_that_does_not_come_is_told_and_is_no_failure() -> None:
    found = await tried(channel("a"), UpstreamError("no such page", upstream_status=404))
    assert (found.ok, found.models, found.models_error) == (True, None, "no such page")


async def test_without_a_model_it_is_the_first_of_the_list_that_may_be_served() -> None:
    async def list_models(channel: Channel) -> Listing:
        return Listing(("tts-1", "gpt-1"), 0.25)

    found = await try_channel(channel("a", list_only=("gpt-*",)), None, list_models)
    assert (found.ok, found.model) == (True, "gpt-1")
    found = await try_channel(channel("a", list_only=("o?",)), None, list_models)
    assert (found.ok, found.model, found.calls[0].code) == (False, "auto", "no_channel")
    assert found.models_error == "Its upstream lists no model that list_only lets in."


async def test_without_a_model_and_a_list_that_is_the_failure() -> None:
    async def list_models(channel: Channel) -> Listing:
        raise UpstreamError("no such page", upstream_status=404)

    found = await try_channel(channel("a"), None, list_models)
    assert (found.ok, found.models, found.models_error) == (False, None, "no such page")
    assert [(call.key, call.ok, call.message) for call in found.calls] == [("a", False, "no such page")]


async def test_a_kind_without_a_list_has_none() -> None:
    found = await tried(channel("a"))
    assert (found.ok, found.models, found.models_error, found.missing) == (True, None, None, ())


async def test_it_is_well_if_one_of_its_keys_is() -> None:
    well, ill = says("yes"), [UpstreamAuth("wrong key")]
    keys = ("k1", "k2")
    both = [ScriptedChannel("a", ill), ScriptedChannel("a", well)]
    assert (await tried(ChannelState(Channel("a", "openai", ("m",), api_keys=keys), both))).ok
    none = [ScriptedChannel("a", ill), ScriptedChannel("a", ill)]
    assert not (await tried(ChannelState(Channel("a", "openai", ("m",), api_keys=keys), none))).ok


async def test_a_trial_that_waited_for_a_channel_which_a_reload_took_away_asks_nobody() -> None:
    state = channel("a", says("yes"), max_concurrency=1)
    ticket = await state.take(Call(), chat())
    trial = asyncio.create_task(try_keys(state, "m"))
    await until(lambda: state.gate is not None and state.gate.waiting)
    state.dismiss()
    state.give(ticket)
    [found] = await trial
    assert (found.ok, found.code) == (False, "no_channel")
    assert not played(state).asked
    assert against(state) == "disabled", "which is all that is held against it"


async def test_a_trial_that_waited_for_one_that_is_left_alone_by_now_asks_it_all_the_same() -> None:
    state = channel("a", says("yes"), max_concurrency=1)
    ticket = await state.take(Call(), chat())
    trial = asyncio.create_task(try_keys(state, "m"))
    await until(lambda: state.gate is not None and state.gate.waiting)
    error = RateLimited("slower", retry_after_s=60)
    state.health.of("m").failed(error, state.only.health, now(), probe=False, cooldown_s=0)
    state.give(ticket)
    [found] = await trial
    assert found.ok
