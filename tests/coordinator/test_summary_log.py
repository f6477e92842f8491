"""What a call of the summary stage tells."""

from __future__ import annotations

from server.coordinator.summary_log import SummaryLog
from server.events import StageRef, SummaryAdapted, SummaryChannel, SummaryStarted
from server.run_log import Run
from tests.coordinator.panel import broken, request
from tests.coordinator.test_call_log import start, types


def summary_log(run: Run) -> SummaryLog:
    stage = StageRef("summary.1", "summary")
    return SummaryLog(run, stage, SummaryStarted("w", order=("m2", "m1")), request())


async def test_each_attempt_of_a_summary_has_a_start_and_an_end() -> None:
    run = start()
    log = summary_log(run)
    log.attempt(1, "one")
    log.retrying(broken(), delay_s=0, next_attempt=2, same_channel=False)
    log.attempt(2, "two")
    log.retrying(broken(), delay_s=1, next_attempt=3, same_channel=True)
    log.cancelled()  # while it waits: the attempt has ended already
    assert types(run) == ["summary.started", "summary.failed"] * 2
    assert [event.data.attempt for event in run.events_after(0) if event.type == "summary.started"] == [1, 2]  # type: ignore[attr-defined]


async def test_what_was_decided_about_a_channel_is_told_in_its_stage() -> None:
    run = start()
    summary_log(run).noted("one", "open", for_s=10)
    last = run.events_after(0)[-1]
    assert (last.data, last.member) == (SummaryChannel("open", for_ms=10_000, channel="one"), None)
    assert last.stage == StageRef("summary.1", "summary")


async def test_what_an_attempt_adapted_is_told_and_kept_until_another_attempt() -> None:
    run = start()
    log = summary_log(run)
    log.adapted("one", ("seed was left out",))
    last = run.events_after(0)[-1]
    assert (last.data, last.member) == (SummaryAdapted(("seed was left out",), channel="one"), None)
    assert list(log.warnings) == ["seed was left out"]
    log.retrying(broken(), delay_s=0, next_attempt=2, same_channel=False)
    log.attempt(2, "two")
    assert list(log.warnings) == []
