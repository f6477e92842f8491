"""What a member's call tells of its attempts and its end."""

from __future__ import annotations

from server.deltas import Finished, TextDelta, Usage, UsageDelta
from server.errors import RateLimited
from server.events import ModelAdapted, ModelChannel
from tests.coordinator.panel import broken
from tests.coordinator.test_call_log import model_log, start, types


async def test_a_queued_and_retried_call_tells_each_step_once() -> None:
    run = start()
    log = model_log(run)
    log.queued("channel")
    log.queued("channel")
    log.attempt(1, "one")
    log.retrying(RateLimited("Wait.", upstream_status=429), delay_s=0.8, next_attempt=2, same_channel=True)
    log.queued("channel")  # started is started
    log.attempt(2, "two")
    log.take([TextDelta("hi")])
    log.take([Finished("stop"), UsageDelta(Usage(1, 2, 3))])
    log.finished()
    assert types(run) == [
        "model.queued",
        "model.started",
        "model.retrying",
        "model.first_token",
        "model.finished",
    ]
    retrying, end = run.events_after(2)[0], run.events_after(0)[-1]
    assert retrying.data.delay_ms == 800  # type: ignore[attr-defined]
    assert retrying.data.http_status == 429  # type: ignore[attr-defined]
    assert end.member is not None
    assert end.member.attempt == 2


async def test_what_was_decided_about_a_channel_is_told_until_the_end() -> None:
    run = start()
    log = model_log(run)
    log.noted("one", "passed_over", reason="breaker")
    log.noted("two", "open", for_s=1.5)
    log.cancelled("quorum")
    log.noted("two", "closed")
    told = [event.data for event in run.events_after(0)]
    assert told[:2] == [
        ModelChannel("passed_over", reason="breaker", channel="one"),
        ModelChannel("open", for_ms=1500, channel="two"),
    ]
    assert types(run) == ["model.channel", "model.channel", "model.cancelled"]


async def test_what_an_attempt_adapted_is_told_and_kept_until_another_attempt() -> None:
    run = start()
    log = model_log(run)
    log.attempt(1, "one")
    log.adapted("one", ("seed was left out",))
    assert run.events_after(0)[-1].data == ModelAdapted(("seed was left out",), channel="one")
    assert list(log.warnings) == ["seed was left out"]
    log.attempt(2, "two")
    assert list(log.warnings) == []
    log.cancelled("quorum")
    log.adapted("two", ("top_p was left out",))
    assert types(run) == ["model.started", "model.adapted", "model.cancelled"]


async def test_nothing_is_told_after_the_end() -> None:
    run = start()
    log = model_log(run)
    log.attempt(1, "one")
    log.cancelled("quorum")
    log.attempt(2, "two")
    log.queued("one")
    log.retrying(broken(), delay_s=0, next_attempt=3, same_channel=True)
    log.take([TextDelta("late")])
    log.finished()
    log.failed(broken())
    log.cancelled("client")
    assert types(run) == ["model.started", "model.cancelled"]
