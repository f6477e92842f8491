"""A run's log: one writer, any number of readers, one end."""

from __future__ import annotations

import asyncio
import logging

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from server.bus import ALL, topic_of
from server.errors import Gone, RunCancelled, ShuttingDown, UpstreamCut
from server.events import ModelDelta, RunCompleted, RunInProgress, decode
from server.handlers.status_feed import RunFeed
from server.run_check import check_run
from server.run_log import Run, Runs
from server.settings import Runs as RunsSettings
from tests.run_clock import ANN, NOISE, runs_with, types
from tests.scripted_runs import DRAFT, M1, M2, Script

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
