"""What is kept of runs: their texts while somebody needs them, themselves for a while."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.auth import Principal
from server.bus import ALL, topic_of
from server.errors import Conflict, InvalidRequest, NotFound
from server.run_check import check_run
from server.run_log import new_run_id
from server.run_log.lane import JOIN_AT, MAX_TEXT, Lane
from server.run_log.runs import MAX_KEPT_TEXT, MAX_KEYS
from server.spark.callers import CALLER
from tests.run_clock import ANN, BOB, ROOT, runs_with, types
from tests.scripted_runs import M1, M2, Script

# Text


@given(st.lists(st.text(max_size=6), max_size=3 * JOIN_AT), st.integers(0, 40))
def test_a_text_is_read_from_any_place(pieces: list[str], offset: int) -> None:
    runs, _ = runs_with()
    lane = runs.start(model="m", principal=ANN).lane("m1")
    lane.keep()
    for piece in pieces:
        lane.add("text", piece)
    whole = "".join(pieces)
    assert lane.text() == whole
    assert lane.chars["text"] == len(whole)
    assert lane.since("text", offset) == (offset, whole[offset:])


def test_of_a_very_long_text_the_head_is_dropped() -> None:
    runs, _ = runs_with()
    lane = runs.start(model="m", principal=ANN).lane("m1")
    lane.keep()
    piece = "0123456789" * 7
    for _ in range(MAX_TEXT // 70 + 1000):
        lane.add("text", piece)
    start, text = lane.since("text", 0)
    assert len(text) == MAX_TEXT
    assert start + len(text) == lane.chars["text"]
    assert lane.since("text", lane.chars["text"] - 5)[1] == "56789"
    lane.add("text", "x" * (MAX_TEXT + 5))
    assert lane.since("text", 0) == (lane.chars["text"] - MAX_TEXT, "x" * MAX_TEXT)


def test_a_text_is_kept_only_while_somebody_needs_it() -> None:
    runs, _ = runs_with()
    run = runs.start(model="m", principal=ANN)
    lane = run.lane("m1")
    lane.add("text", "unseen ")
    assert (lane.size, lane.text()) == (0, "")
    run.watch_text()
    lane.add("text", "seen")
    late = run.lane("m2")
    late.add("reasoning", "hm")
    assert lane.since("text", 0) == (7, "seen")
    assert late.text("reasoning") == "hm"
    run.watch_text()
    run.unwatch_text()
    assert lane.size == 4
    run.unwatch_text()
    assert lane.size == late.size == 0
    assert lane.chars == {"text": 11}


def test_snapshots_tell_text_only_to_who_includes_it() -> None:
    runs, _ = runs_with()
    run = Script(runs, ANN).whole()
    assert "draft of" not in str(run.snapshot())
    assert "draft of m1" in str(run.snapshot(frozenset({"drafts"})))
    assert "draft of m1" not in str(run.snapshot(frozenset({"answer"})))


def test_ended_runs_share_a_budget_of_text_and_the_oldest_pay() -> None:
    runs, _ = runs_with()
    lanes: list[Lane] = []
    for _ in range(MAX_KEPT_TEXT // MAX_TEXT + 3):
        script = Script(runs, ANN)
        script.begin()
        lanes.append(script.run.lane("m1"))
        lanes[-1].add("text", "x" * MAX_TEXT)
        script.run.close()
    assert [lane.size for lane in lanes[:4]] == [0, 0, 0, MAX_TEXT]
    assert sum(lane.size for lane in lanes) <= MAX_KEPT_TEXT


# The runs


def test_an_id_is_fresh_or_the_clients_own() -> None:
    runs, _ = runs_with()
    assert runs.start(model="m", principal=ANN).id != runs.start(model="m", principal=ANN).id
    proposed = new_run_id()
    assert runs.start(model="m", principal=ANN, run_id=proposed).id == proposed
    with pytest.raises(Conflict):
        runs.start(model="m", principal=BOB, run_id=proposed)
    for bad in ("", "run_", "run_" + "G" * 32, proposed + "0", proposed.upper()):
        with pytest.raises(InvalidRequest):
            runs.start(model="m", principal=ANN, run_id=bad)


def test_a_foreign_run_is_like_an_absent_one() -> None:
    runs, _ = runs_with()
    run = runs.start(model="m", principal=ANN)
    assert runs.get(run.id, ANN) is runs.get(run.id, ROOT) is run
    messages = set()
    for id in (run.id, new_run_id(), "nonsense"):
        with pytest.raises(NotFound) as error:
            runs.get(id, BOB)
        messages.add(error.value.message)
    assert len(messages) == 1


def test_an_ended_run_is_forgotten_in_time_and_one_under_way_never() -> None:
    runs, clock = runs_with(keep_s=600)
    ended, under_way = Script(runs, ANN).whole(), Script(runs, ANN).begin()
    assert ended.snapshot()["expires_at"] == "2026-11-21T09:11:40.000Z"
    assert under_way.snapshot()["expires_at"] is None
    clock.now += 599
    assert runs.get(ended.id, ANN) is ended
    clock.now += 1
    with pytest.raises(NotFound):
        runs.get(ended.id, ANN)
    assert runs.get(under_way.id, ANN) is under_way
    assert runs.in_progress == 1


def test_of_too_many_runs_the_one_that_ended_first_goes() -> None:
    runs, _ = runs_with(max_runs=3)
    first, second = Script(runs, ANN).begin(), Script(runs, ANN).begin()
    third = Script(runs, ANN).whole()
    first.close()
    Script(runs, ANN).begin()
    with pytest.raises(NotFound):
        runs.get(third.id, ANN)
    assert runs.get(first.id, ANN).ended
    assert not runs.get(second.id, ANN).ended


def test_a_page_is_newest_first_of_ones_own_and_goes_on_behind_a_run() -> None:
    runs, _ = runs_with()
    mine = [Script(runs, ANN).whole() for _ in range(3)]
    other = Script(runs, BOB).begin()
    assert runs.page(ANN) == (mine[::-1], False)
    assert runs.page(ANN, limit=2) == ([mine[2], mine[1]], True)
    assert runs.page(ANN, limit=2, after=mine[1].id) == ([mine[0]], False)
    assert runs.page(ROOT, status="queued")[0] == []
    assert runs.page(ROOT, status="in_progress")[0] == [other]
    assert runs.page(ROOT, model="else")[0] == []
    with pytest.raises(NotFound):
        runs.page(ANN, after=other.id)


async def test_at_the_end_of_the_server_every_run_has_an_end() -> None:
    runs, _ = runs_with()
    run = Script(runs, ANN).begin()
    await runs.aclose()
    assert run.status == "cancelled"
    assert run.view().cancelled_by == "shutdown"
    assert len(runs) == 0


def test_a_summary_left_open_is_told_as_failed() -> None:
    runs, _ = runs_with()
    script = Script(runs, ANN)
    run = script.begin()
    for member in (M1, M2):
        script.finish(member)
    script.begin_summary()
    run.cancel("client")
    run.close()
    assert check_run(run.events_after(0)) == []
    assert "summary.failed" in types(run)


def test_names_that_cost_nothing_do_not_pile_up() -> None:
    runs, _ = runs_with(max_runs=10)
    runs.start(model="m", principal=ANN)
    for number in range(MAX_KEYS + 5):
        runs.start(model="m", principal=Principal(f"{CALLER}{number}"))
    topics = set(runs.bus.topics())
    assert len(topics) == MAX_KEYS + 1
    assert {ALL, topic_of("ann"), topic_of(f"{CALLER}{MAX_KEYS}")} <= topics
    assert topic_of(f"{CALLER}0") not in topics
