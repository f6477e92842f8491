"""What a watcher keeps in mind, and what it lets go."""

from __future__ import annotations

import msgspec
import pytest

from server.cli.board import KEPT_TEXT, MAX_FAILURES, Board, Watched, tokens_of
from server.events import Event
from server.run_view import CallView, RunView
from tests.cli.told import RUN, SUMMARY, created, drafting, event, of, whole


def another(run_id: str, like: Event | None = None) -> Event:
    return msgspec.structs.replace(like or created(), run_id=run_id)


def test_a_run_is_followed_from_its_first_event_on() -> None:
    board = Board()
    for one in drafting():
        followed = board.hear(one, 0.0)
    assert followed is not None
    assert followed.view.members["m1"].state == "finished"


def test_a_run_whose_beginning_was_missed_is_not_followed() -> None:
    board = Board()
    assert board.hear(drafting()[4], 0.0) is None
    assert board.runs == {}


def test_of_too_many_runs_the_oldest_are_let_go_and_counted() -> None:
    board = Board(limit=2)
    for name in "abc":
        board.hear(another(name), 0.0)
    assert list(board.runs) == ["b", "c"]
    assert board.let_go == 1
    assert board.hear(another("a", event("run.in_progress", 2, 1)), 0.0) is None


def test_a_new_snapshot_tells_which_runs_are_lost() -> None:
    board = Board()
    board.hear(another("a"), 0.0)
    kept = board.hear(another("b"), 0.0)
    assert kept is not None
    lost = board.reset([kept.view.snapshot()], 0.0)
    assert [run.view.id for run in lost] == ["a"]
    assert list(board.runs) == ["b"]


def test_a_run_that_was_shown_is_removed_and_counted() -> None:
    board = Board()
    run = board.hear(created(), 0.0)
    assert run is not None
    board.remove(run)
    assert (board.runs, board.ended) == ({}, 1)


def test_only_the_end_of_a_long_text_is_kept() -> None:
    run = Watched(RunView(RUN), 0.0)
    run.hear(created(), 0.0)
    run.hear(event("summary.started", 2, 1, {"model": "s"}, stage=SUMMARY), 0.0)
    for at in range(3):
        data = {"kind": "text", "text": "x" * KEPT_TEXT, "text_offset": at * KEPT_TEXT}
        run.hear(event("summary.delta", 2, 2, data, volatile=True, stage=SUMMARY), 0.0)
    assert run.view.summary is not None
    assert len(run.view.summary.text["text"]) == KEPT_TEXT
    assert run.view.summary.chars == 3 * KEPT_TEXT


def test_only_so_many_failures_are_kept() -> None:
    run = Watched(RunView(RUN), 0.0)
    failed = {"code": "c", "http_status": None, "retryable": False, "latency_ms": 1, "message": "m"}
    for number in range(1, 100):
        run.hear(event("model.failed", number, 1, failed, **of("m1")), 0.0)
    assert run.failures == [("m1", "c: m")] * MAX_FAILURES


def test_a_second_summary_has_a_rate_of_its_own() -> None:
    run = Watched(RunView(RUN), 0.0)
    for one in whole()[:-3]:
        run.hear(one, 0.0)
    failed = {"code": "c", "http_status": 500, "retryable": True, "chars": 24}
    run.hear(event("summary.failed", 18, 3600, failed, stage=SUMMARY), 0.0)
    run.hear(event("summary.started", 19, 3600, {"model": "t", "attempt": 2}, stage=SUMMARY), 0.0)
    run.hear(event("summary.first_token", 20, 9000, {"ttft_ms": 400}, stage=SUMMARY), 0.0)
    data = {"kind": "text", "text": "x" * 400, "text_offset": 0}
    run.hear(event("summary.delta", 20, 10_000, data, volatile=True, stage=SUMMARY), 0.0)
    assert run.view.summary is not None
    assert run.rate(run.view.summary) == pytest.approx(100)
    assert run.failures[-1] == ("summary", "500 c")


@pytest.mark.parametrize(
    ("usage", "chars", "tokens"),
    [
        (None, 0, (0, True)),
        (None, 9, (3, True)),
        ({"completion_tokens": 7}, 9, (7, False)),
        ({"completion_tokens": 7, "estimated": True}, 9, (7, True)),
    ],
)
def test_tokens_are_counted_or_estimated(
    usage: dict[str, object] | None, chars: int, tokens: tuple[int, bool]
) -> None:
    call = CallView("m1", "m")
    call.usage, call.chars = usage, chars
    assert tokens_of(call) == tokens
