"""A run's log: one writer, any number of readers, one end; and the runs that are kept."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from server.auth import Principal
from server.bus import ALL, topic_of
from server.errors import Conflict, Gone, InvalidRequest, NotFound, RunCancelled, ShuttingDown, UpstreamCut
from server.events import (
    ModelDelta,
    ModelRetrying,
    RunCompleted,
    RunInProgress,
    decode,
)
from server.handlers.status_feed import RunFeed
from server.run_check import check_run
from server.run_log import Run, Runs, new_run_id
from server.run_log.lane import JOIN_AT, MAX_TEXT, Lane
from server.run_log.runs import MAX_KEPT_TEXT, MAX_KEYS
from server.settings import Runs as RunsSettings
from server.spark.callers import CALLER
from tests.scripted_runs import DRAFT, M1, M2, Script

ANN, BOB, ROOT = Principal("ann"), Principal("bob"), Principal("root", admin=True)
NOISE = ModelRetrying("x", 500, 1, 2, True)


class Clock:
    """Time that passes when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def runs_with(**settings: Any) -> tuple[Runs, Clock]:
    clock = Clock()
    wall: Callable[[], float] = lambda: 1795251600.0 + clock.now  # noqa: E731
    return Runs(RunsSettings(**settings), wall=wall, monotonic=clock), clock


def types(run: Run) -> list[str]:
    return [event.type for event in run.events_after(0)]


# The log


def test_events_are_numbered_without_gaps_and_timed_from_the_start() -> None:
    runs, clock = runs_with()
    run = runs.start(model="m", principal=ANN)
    for _ in range(3):
        run.tell(RunInProgress())
        clock.now += 0.25
    events = run.events_after(0)
    assert [event.sequence_number for event in events] == [1, 2, 3]
    assert [event.elapsed_ms for event in events] == [0, 250, 500]
    assert [event.time - events[0].time for event in events] == pytest.approx([0, 0.25, 0.5])
    assert {event.run_id for event in events} == {run.id}


def test_what_is_told_after_the_end_is_logged_and_dropped(caplog: pytest.LogCaptureFixture) -> None:
    runs, _ = runs_with()
    run = Script(runs, ANN).whole()
    head = run.head
    run.tell(RunInProgress())
    run.tell(RunCompleted(answer_by=None, finish_reason="stop"))
    assert run.head == head
    assert run.status == "completed"
    assert "after its end" in caplog.text


def test_a_whole_run_keeps_the_rules_and_both_topics_have_it() -> None:
    runs, _ = runs_with()
    run = Script(runs, ANN).whole()
    assert check_run(run.events_after(0)) == []
    for name in (ALL, topic_of("ann")):
        assert runs.bus.topic(name).after(0, 1000) == run.events_after(0)
    assert runs.bus.topic(topic_of("bob")).head == 0


def test_the_oldest_events_fall_out_and_a_reader_before_them_is_told_where_it_may_begin() -> None:
    runs, _ = runs_with(max_events=4)
    script = Script(runs, ANN)
    run = script.whole()
    assert run.first == run.head - 3
    with pytest.raises(Gone) as gone:
        run.events_after(run.first - 2)
    assert gone.value.details == {"oldest": run.first}
    assert len(run.events_after(run.first - 1)) == 4
    snapshot = run.snapshot()
    assert snapshot["status"] == "completed"
    assert [member["state"] for member in snapshot["members"]] == ["finished", "finished"]


def test_a_page_of_a_long_log_is_where_it_should_be() -> None:
    runs, _ = runs_with()
    run = runs.start(model="m", principal=ANN)
    for _ in range(200):
        run.tell(NOISE, stage=DRAFT, member=M1)
    for after in (0, 100, 150, 199):
        page = run.events_after(after, 10)
        assert [event.sequence_number for event in page] == list(range(after + 1, min(after + 11, 201)))
    assert run.events_after(200) == run.events_after(500) == []


async def read(run: Run, after: int) -> list[int]:
    return [event.sequence_number async for event in run.after(after)]


async def test_readers_who_come_at_any_time_read_the_same_to_the_end() -> None:
    runs, _ = runs_with()
    script = Script(runs, ANN)
    run = script.run
    async with asyncio.TaskGroup() as group, asyncio.timeout(10):
        tasks = [group.create_task(read(run, 0))]
        await asyncio.sleep(0)
        script.begin()
        tasks.append(group.create_task(read(run, 0)))
        for member in (M1, M2):
            script.say(member, "x")
            await asyncio.sleep(0)
            script.finish(member)
        tasks.append(group.create_task(read(run, 3)))
        await asyncio.sleep(0)
        script.begin_summary()
        script.end()
    everything = list(range(1, run.head + 1))
    assert [task.result() for task in tasks] == [everything, everything, everything[3:]]
    assert await read(run, run.head) == []
    assert not run.sleepers.asleep


class ManyReaders(RuleBasedStateMachine):
    """Writers and readers in any order: a reader's sequence has no gap, no double, and the whole text."""

    def __init__(self) -> None:
        super().__init__()
        self.run = Runs(RunsSettings()).start(model="m", principal=ANN)
        self.lane = self.run.lane("m1", stage=DRAFT, member=M1)
        self.lane.keep()
        self.said = ""
        self.now = 0.0
        self.readers: list[tuple[RunFeed, list[int], list[str], int]] = []

    @rule(count=st.integers(1, 5))
    def tell(self, count: int) -> None:
        for _ in range(count):
            self.run.tell(NOISE, stage=DRAFT, member=M1)

    @rule(text=st.text(max_size=5))
    def say(self, text: str) -> None:
        self.lane.add("text", text)
        self.said += text

    @rule(share=st.floats(0, 1))
    def join(self, share: float) -> None:
        place, sent = int(self.run.head * share), int(len(self.said) * share)
        include = frozenset({"drafts"})
        feed = RunFeed(self.run, place, include=include, types=None, cursors={"m1": sent})
        self.readers.append((feed, [place], [self.said[:sent]], sent))

    @rule(at=st.integers(0, 10), limit=st.integers(1, 7), later=st.floats(0, 0.1))
    def pull(self, at: int, limit: int, later: float) -> None:
        self.now += later
        if self.readers:
            self._pull(self.readers[at % len(self.readers)], limit)

    def _pull(self, reader: tuple[RunFeed, list[int], list[str], int], limit: int) -> None:
        feed, numbers, texts, _ = reader
        for item in feed.pull(self.now, limit):
            if item.place is not None:
                numbers.append(item.place)
            else:
                event = decode(item.json)
                assert event is not None
                assert isinstance(event.data, ModelDelta)
                assert event.data.text_offset == sum(map(len, texts))
                texts.append(event.data.text)

    @invariant()
    def no_gap_and_no_double(self) -> None:
        for _, numbers, texts, _ in self.readers:
            assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
            assert self.said.startswith("".join(texts))

    def teardown(self) -> None:
        self.now += 1
        for reader in self.readers:
            for _ in range(2 + self.run.head):
                self._pull(reader, 64)
                self.now += 1
            assert reader[1][-1] == self.run.head
            assert "".join(reader[2]) == self.said
            reader[0].close()


TestManyReaders = ManyReaders.TestCase


# The end


async def test_cancel_interrupts_what_the_run_awaits_and_becomes_run_cancelled() -> None:
    runs, _ = runs_with()
    run = Script(runs, ANN).begin()

    async def work() -> None:
        with run.scope():
            assert run.cancel("watcher")
            assert not run.cancel("shutdown"), "only the first counts"
            await asyncio.Event().wait()

    with pytest.raises(RunCancelled):
        await work()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    assert run.status == "cancelled"
    assert run.cancelled_by == "watcher"
    assert check_run(run.events_after(0)) == []


async def test_a_cancellation_by_somebody_else_passes_through_and_counts_as_the_client_leaving() -> None:
    runs, _ = runs_with()
    run = Script(runs, ANN).begin()
    started = asyncio.Event()

    async def work() -> None:
        with run.scope():
            started.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (run.status, run.cancelled_by) == ("cancelled", None)
    assert check_run(run.events_after(0)) == []


async def test_both_at_once_is_a_cancellation() -> None:
    runs, _ = runs_with()
    run = Script(runs, ANN).begin()
    started = asyncio.Event()

    async def work() -> None:
        with run.scope():
            started.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await started.wait()
    run.cancel("watcher")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_run_cancelled_before_it_is_carried_out_does_not_begin() -> None:
    runs, _ = runs_with()
    run = runs.start(model="m", principal=ANN)
    run.cancel("shutdown")
    with pytest.raises(ShuttingDown), run.scope():
        pytest.fail("it began")
    assert types(run) == ["run.created", "run.cancelled"]


async def test_a_cancel_that_comes_when_the_work_is_done_harms_nobody() -> None:
    runs, _ = runs_with()
    script = Script(runs, ANN)
    with script.run.scope():
        script.run.cancel("watcher")
        script.whole()
    await asyncio.sleep(0)
    assert script.run.status == "completed"


async def test_the_scope_ends_what_its_writer_left_open(caplog: pytest.LogCaptureFixture) -> None:
    runs, _ = runs_with()
    caplog.set_level(logging.ERROR)
    silent = Script(runs, ANN).begin()
    with silent.scope():
        pass
    assert silent.status == "failed"
    assert "without an end" in caplog.text
    assert check_run(silent.events_after(0)) == []
    failed = Script(runs, ANN)
    failed.begin()
    for member in (M1, M2):
        failed.finish(member)
    failed.begin_summary()
    with pytest.raises(UpstreamCut), failed.run.scope():
        raise UpstreamCut("cut")
    events = failed.run.events_after(0)
    assert [event.type for event in events[-3:]] == ["summary.failed", "stage.finished", "run.failed"]
    assert failed.run.snapshot()["error"]["code"] == "upstream_cut"
    assert check_run(events) == []
    broken = Script(runs, ANN).begin()
    with pytest.raises(ZeroDivisionError), broken.scope():
        raise ZeroDivisionError("a secret detail")
    assert broken.snapshot()["error"]["code"] == "internal_error"
    assert "secret" not in str(broken.snapshot())


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
