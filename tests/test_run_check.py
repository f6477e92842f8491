"""The checker finds each kind of fault, and none in the runs that are documented."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from server.events import Event, ModelDelta, ModelRetrying, RunInProgress, decode
from server.run_check import RunChecker, check_run
from tests.events.test_envelope import DOCUMENTED, documented


def straggler() -> list[Event]:
    return [event for line in documented(DOCUMENTED[1]) if (event := decode(line)) is not None]


def renumbered(events: list[Event]) -> list[Event]:
    return [msgspec.structs.replace(event, sequence_number=at) for at, event in enumerate(events, 1)]


def without(type: str) -> Callable[[list[Event]], list[Event]]:
    def change(events: list[Event]) -> list[Event]:
        at = next(at for at, event in enumerate(events) if event.type == type)
        return renumbered(events[:at] + events[at + 1 :])

    return change


def late_retry(events: list[Event]) -> list[Event]:
    first = next(at for at, event in enumerate(events) if event.type == "model.first_token")
    retry = msgspec.structs.replace(events[first], data=ModelRetrying("x", 500, 1, 2, True))
    return renumbered([*events[: first + 1], retry, *events[first + 1 :]])


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda events: events[:-1], "the run has no end"),
        (lambda events: events[1:], "not number 1"),
        (lambda events: [*events, events[-1]], "follows the run's end"),
        (lambda events: events[:5] + events[6:], "follows number"),
        (without("run.created"), "not run.created"),
        (without("model.finished"), "comes before the end of m1"),
        (without("stage.started"), "not open"),
        (without("stage.quorum_reached"), "of which was not told"),
        (without("stage.finished"), "before the drafts have ended"),
        (without("summary.finished"), "leaves the summary open"),
        (without("run.degraded"), "tells of level"),
        (without("model.started"), "comes before m1 started"),
        (late_retry, "first token"),
        (lambda events: [events[0], msgspec.structs.replace(events[1], run_id="run_y")], "another run"),
        (lambda events: renumbered([events[0], *events]), "comes twice"),
    ],
)
def test_each_fault_is_found(change: Callable[[list[Event]], list[Event]], fault: str) -> None:
    assert any(fault in found for found in check_run(change(straggler()))), check_run(change(straggler()))


@pytest.mark.parametrize("at", range(1, 24))
def test_a_reader_that_joined_late_is_not_told_of_faults(at: int) -> None:
    checker = RunChecker(joined=True)
    for event in straggler()[at:]:
        checker.apply(event)
    assert checker.finish() == []


def test_a_gap_in_a_text_is_found() -> None:
    events = straggler()[:9]
    member = events[8].member
    checker = RunChecker()
    for event in events:
        checker.apply(event)
    for offset in (0, 5):
        delta = msgspec.structs.replace(events[8], data=ModelDelta("text", "four", offset), member=member)
        checker.apply(delta)
    assert checker.faults == ["9 model.delta of m1 is at 5, not at 4"]


def test_the_first_event_that_is_no_creation_is_a_fault() -> None:
    assert check_run([Event(1, 0, 0, "run_x", RunInProgress())])[0].endswith("not run.created")
