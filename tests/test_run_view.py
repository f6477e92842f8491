"""The fold of a run's events is the same from whatever snapshot it goes on."""

from __future__ import annotations

import json

import pytest

from server.events import Event, ModelDelta, ModelProgress, RunFailed, SummaryDelta, decode
from server.run_view import RunView
from tests.events.test_envelope import DOCUMENTED, documented


def events_of(name: str) -> list[Event]:
    return [event for line in documented(name) if (event := decode(line)) is not None]


def folded(events: list[Event]) -> RunView:
    view = RunView()
    for event in events:
        view.apply(event)
    return view


def test_the_documented_snapshot_is_the_fold_of_the_first_sixteen_events() -> None:
    told = folded(events_of(DOCUMENTED[0])[:16]).snapshot()
    assert (told["head"], told["status"], told["stage"], told["level"]) == (
        16,
        "in_progress",
        "summary.1",
        "none",
    )
    assert told["created_at"] == "2026-11-21T09:00:00.000Z"
    first = told["members"][0]
    assert first == {
        "id": "m1",
        "model": "deepseek-flash",
        "state": "finished",
        "attempt": 1,
        "chars": 804,
        "ttft_ms": 410,
        "latency_ms": 2138,
        "finish_reason": "stop",
    }
    assert (told["summary"]["state"], told["summary"]["model"]) == ("started", "spark-ultra")
    assert told["usage"] is told["error"] is None


def test_failures_cancellations_and_the_end_are_seen() -> None:
    told = folded(events_of(DOCUMENTED[1])).snapshot()
    states = {
        member["id"]: (member["state"], member.get("code"), member.get("reason"))
        for member in told["members"]
    }
    assert states == {
        "m1": ("finished", None, None),
        "m2": ("failed", "rate_limit_exceeded", None),
        "m3": ("finished", None, None),
        "m4": ("cancelled", None, "quorum"),
    }
    assert (told["status"], told["level"], told["answer_by"], told["stage"]) == (
        "completed",
        "partial",
        "summary",
        None,
    )
    assert told["usage"]["estimated"] is True
    assert told["timings"]["total_ms"] == 10801


@pytest.mark.parametrize("name", DOCUMENTED)
def test_a_view_goes_on_from_any_snapshot_to_the_same_end(name: str) -> None:
    events = events_of(name)
    whole = folded(events).snapshot()
    for at in range(1, len(events)):
        view = RunView.from_snapshot(json.loads(json.dumps(folded(events[:at]).snapshot())))
        for event in events:  # those before the snapshot are passed over
            view.apply(event)
        assert view.snapshot() == whole


def test_volatile_events_bring_text_and_progress_and_no_number() -> None:
    events = events_of(DOCUMENTED[0])
    view = folded(events[:9])
    member = events[8].member
    view.apply(Event(9, 0, 990, "run_x", ModelDelta("text", "Hello", 0), member=member))
    view.apply(Event(9, 0, 991, "run_x", ModelDelta("text", " world", 5), member=member))
    view.apply(Event(9, 0, 992, "run_x", ModelProgress(40, 10), member=member))
    assert view.members["m2"].text == {"text": "Hello world"}
    assert (view.members["m2"].chars, view.members["m2"].tokens_estimated) == (40, 10)
    assert view.head == 9
    summary = folded(events[:17])
    summary.apply(Event(17, 0, 4000, "run_x", SummaryDelta("text", "Both", 0)))
    assert summary.summary is not None
    assert summary.summary.text == {"text": "Both"}


def test_text_in_a_snapshot_is_gone_on_with() -> None:
    view = RunView.from_snapshot(
        {"id": "run_x", "members": [{"id": "m1", "model": "m", "text": "Hel", "chars": 3}], "colour": "blue"}
    )
    member = events_of(DOCUMENTED[0])[3].member
    view.apply(Event(1, 0, 0, "run_x", ModelDelta("text", "lo", 3), member=member))
    assert view.members["m1"].text == {"text": "Hello"}


def test_a_failed_run_tells_its_error() -> None:
    event = decode(
        b'{"type":"run.failed","sequence_number":1,"time":"2026-11-21T09:00:00.000Z","elapsed_ms":1,"run_id":"run_x",'
        b'"data":{"error":{"message":"No.","type":"server_error","param":null,"code":"overloaded"}}}'
    )
    assert event is not None
    assert isinstance(event.data, RunFailed)
    view = folded([event])
    assert view.ended
    assert view.snapshot()["error"]["code"] == "overloaded"
