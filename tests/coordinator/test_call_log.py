"""What a call costs, and which of its text is kept."""

from __future__ import annotations

import asyncio

import pytest

from server.coordinator.call_log import MAX_TEXT
from server.coordinator.model_log import ModelLog
from server.deltas import Finished, TextDelta, ToolCallDelta, Usage, UsageDelta
from server.errors import UpstreamInvalid
from server.events import MemberRef, StageRef
from server.price_settings import Price
from server.prices import Prices, Rate
from server.run_log import Run, Runs
from server.settings import Runs as RunsSettings
from tests.coordinator.panel import Owner, broken, request

STAGE = StageRef("draft.1", "draft")


def start() -> Run:
    return Runs(RunsSettings()).start(model="m", principal=Owner())


def model_log(run: Run, *, keep: bool = False) -> ModelLog:
    return ModelLog(run, STAGE, MemberRef("m1", "a"), request("Why is it so?"), keep=keep)


def types(run: Run) -> list[str]:
    return [event.type for event in run.events_after(0)]


async def test_what_nobody_counted_is_estimated_and_marked() -> None:
    log = model_log(start())
    log.attempt(1, "one")
    log.take([TextDelta("word " * 8), ToolCallDelta(0, "id", "f", "{}"), TextDelta("天空", index=1)])
    log.cancelled("client")
    usage = log.usage
    assert usage is not None
    assert usage.estimated
    assert usage.completion_tokens == -(-(40 + 3 + 6) // 4)
    assert usage.prompt_tokens > 0


async def test_a_call_that_never_started_or_failed_before_any_text_costs_nothing() -> None:
    waiting = model_log(start())
    waiting.queued("one")
    waiting.cancelled("client")
    assert waiting.usage is None
    refused = model_log(start())
    refused.attempt(1, "one")
    refused.failed(broken())
    assert refused.usage is None


async def test_a_text_that_is_kept_is_bounded() -> None:
    log = model_log(start(), keep=True)
    log.take([TextDelta("x" * MAX_TEXT)])
    with pytest.raises(UpstreamInvalid):
        log.take([TextDelta("x")])
    unkept = model_log(start())
    unkept.take([TextDelta("x" * 100)])
    assert unkept.text == ""
    assert unkept.chars == 100


async def test_a_draft_is_there_for_a_watcher_who_comes_late() -> None:
    run = start()
    log = model_log(run, keep=True)
    log.take([TextDelta("hel")])
    await asyncio.sleep(0)
    log.take([TextDelta("lo")])
    assert run.lanes["m1"].text() == log.text == "hello"


def test_an_answer_that_another_call_has_paid_for_costs_nothing() -> None:
    run = start()
    prices = Prices.of([("c", Rate.of(Price(input=1, output=1)))])
    log = ModelLog(run, STAGE, MemberRef("m1", "a"), request("Why?"), prices=prices)
    log.noted("c", "kept")
    log.take([TextDelta("hi"), Finished("stop"), UsageDelta(Usage(1, 2, 3))])
    log.finished()
    assert log.cost == 0


def test_of_two_attempts_beside_each_other_the_price_is_known_only_if_both_have_the_same() -> None:
    for other, cost in ((1, 3), (2, None)):
        rates = [("a", Rate.of(Price(input=1, output=1))), ("b", Rate.of(Price(input=other, output=1)))]
        log = ModelLog(start(), STAGE, MemberRef("m1", "a"), request("Why?"), prices=Prices.of(rates))
        log.attempt(1, "a")
        log.noted("b", "hedged", for_s=1)
        log.take([TextDelta("hi"), Finished("stop"), UsageDelta(Usage(1, 2, 3))])
        assert log.cost == (None if cost is None else cost * 10**6)
