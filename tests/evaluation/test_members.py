from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from evaluation.chance import Chance
from evaluation.members import Faults, SimulatedModel
from evaluation.reading import value_in
from evaluation.world import Skill, World
from server.chat import ChatRequest
from server.deltas import Finished, TextDelta
from server.errors import RateLimited, ServerError, UpstreamAuth, UpstreamCut, UpstreamTimeout
from server.settings import Timeouts
from server.upstreams.base import Call
from tests.evaluation.members import asked, at_once

WORLD = World("members", 0.0)
KNOWING = Skill("m", 1.0)
LIMITS = Timeouts(connect_s=5, first_token_s=20, idle_s=15, total_s=55)


async def hear(model: SimulatedModel, call: Call, chat: ChatRequest) -> tuple[str, float, ServerError | None]:
    """The text, the seconds, and how it failed."""
    loop, text, ended = asyncio.get_running_loop(), "", False
    began = loop.time()
    try:
        async with aclosing(model.stream(chat, call)) as batches:
            async for batch in batches:
                for delta in batch:
                    text += delta.text if isinstance(delta, TextDelta) else ""
                    ended = ended or isinstance(delta, Finished)
    except ServerError as error:
        return text, loop.time() - began, error
    assert ended
    return text, loop.time() - began, None


def ask(
    faults: Faults | None = None, *, attempts: int = 1, limits: Timeouts = LIMITS
) -> tuple[str, float, ServerError | None, Call]:
    model = SimulatedModel(WORLD, KNOWING, faults or Faults())
    call = Call(timeouts=lambda _: limits, attempts=attempts)
    text, seconds, error = at_once(lambda: hear(model, call, asked()))
    return text, seconds, error, call


def test_who_knows_says_the_right_answer_after_some_time() -> None:
    text, seconds, error, call = ask()
    assert error is None
    assert value_in(text) == WORLD.item(1).truth
    assert 1 < seconds < 55
    assert call.attempts_made == 1


def test_the_same_call_takes_the_same_time() -> None:
    assert ask()[:2] == ask()[:2]


def test_silence_ends_by_the_clock_of_the_first_word_in_every_attempt() -> None:
    text, seconds, error, call = ask(Faults(hang=1), attempts=2)
    assert isinstance(error, UpstreamTimeout)
    assert error.clock == "first_token"
    assert text == ""
    assert call.attempts_made == 2
    assert 40 <= seconds <= 42  # two times twenty, and a wait between


def test_who_falls_silent_in_the_middle_is_given_up_by_the_idle_clock() -> None:
    text, _, error, _ = ask(Faults(stall=1))
    assert isinstance(error, UpstreamTimeout)
    assert error.clock == "idle"
    assert len(text) > 200
    assert value_in(text) is None


def test_an_answer_that_breaks_off_is_no_answer() -> None:
    text, _, error, _ = ask(Faults(cut=1))
    assert isinstance(error, UpstreamCut)
    assert value_in(text) is None


def test_a_busy_model_answers_at_the_second_attempt() -> None:
    assert isinstance(ask(Faults(busy=1))[2], RateLimited)
    text, _, error, call = ask(Faults(busy=1), attempts=2)
    assert error is None
    assert call.attempts_made == 2
    assert value_in(text) is not None


def test_a_refusal_is_not_cured_by_another_attempt() -> None:
    assert isinstance(ask(Faults(refuse=1), attempts=3)[2], UpstreamAuth)


def test_rubbish_is_a_whole_answer_without_a_value() -> None:
    text, _, error, _ = ask(Faults(garbage=1))
    assert error is None
    assert len(text) > 200
    assert value_in(text) is None


def test_a_straggler_takes_longer_and_the_total_clock_ends_it() -> None:
    _, seconds, error, _ = ask(Faults(straggle=1), limits=Timeouts(first_token_s=0, total_s=0))
    assert error is None
    assert seconds == pytest.approx(8 * ask()[1])
    _, seconds, error, _ = ask(Faults(straggle=1, times=100), limits=Timeouts(first_token_s=0, total_s=30))
    assert isinstance(error, UpstreamTimeout)
    assert error.clock == "total"
    assert seconds == pytest.approx(30)


def test_no_attempt_begins_that_could_not_end_in_time() -> None:
    async def hurried() -> int:
        model = SimulatedModel(WORLD, KNOWING, Faults(hang=1))
        call = Call(timeouts=lambda _: LIMITS, attempts=2, deadline=asyncio.get_running_loop().time() + 22)
        await hear(model, call, asked())
        return call.attempts_made

    assert at_once(hurried) == 1


def test_shares_of_faults_are_kept() -> None:
    faults = Faults(hang=0.2, cut=0.1)
    fates = [faults.fate(Chance("fate", place)) for place in range(3000)]
    assert fates.count("hang") / 3000 == pytest.approx(0.2, abs=0.03)
    assert fates.count("cut") / 3000 == pytest.approx(0.1, abs=0.02)
    assert fates.count("whole") / 3000 == pytest.approx(0.7, abs=0.03)
