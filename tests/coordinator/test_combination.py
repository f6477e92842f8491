"""A run ends exactly once, whoever leaves, and nothing of it stays open."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.coordinator import answer
from server.coordinator.channel import SIZE
from server.deltas import Batch, Finished, Opening, TextDelta, Usage
from server.errors import InvalidRequest, RunCancelled, ServerError, ShuttingDown
from server.events import MEMBER_ENDS
from server.run_log import Run
from server.upstreams.base import Call
from tests.coordinator.panel import (
    PATIENCE_S,
    Panel,
    Scripted,
    Step,
    broken,
    check_log,
    never,
    request,
    says,
    slow,
)

LONG = "word " * 60


async def read(panel: Panel, run: Run, got: list[Batch], **fields: Any) -> None:
    with run.scope():
        async with aclosing(answer(run, panel.find("panel"), request(**fields), Call())) as batches:
            async for batch in batches:
                got += [batch]


async def leave_when(panel: Panel, moment: asyncio.Event, by: str | None = None) -> Run:
    """A client that goes when ``moment`` has come; or somebody else ends the run."""
    run = panel.start()
    task = asyncio.create_task(read(panel, run, []))
    async with asyncio.timeout(PATIENCE_S):
        await moment.wait()
        if by is None:
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        else:
            assert run.cancel(by)
            with pytest.raises(ShuttingDown if by == "shutdown" else RunCancelled):
                await task
    check_log(run)
    panel.check_closed()
    return run


@pytest.mark.parametrize("by", [None, "watcher", "shutdown"])
async def test_who_leaves_while_members_draft_closes_all_of_them(by: str | None) -> None:
    members = [
        Scripted("a", says("one")),
        Scripted("b", [never()]),
        Scripted("c", [[TextDelta("x")], never()]),
    ]
    panel = Panel(members)
    run = await leave_when(panel, members[2].started, by)
    assert panel.writer.asked == []
    ends = [event.data for event in run.events_after(0) if event.type == "model.cancelled"]
    assert {one.reason for one in ends} == {by or "client"}  # type: ignore[attr-defined]
    assert run.events_after(0)[-1].data.by == by or "client"  # type: ignore[attr-defined]


@pytest.mark.parametrize("by", [None, "watcher"])
async def test_who_leaves_while_the_summary_writes_closes_it(by: str | None) -> None:
    panel = Panel(
        [Scripted("a", says("one")), Scripted("b", says("two"))],
        Scripted("writer", [[TextDelta("x")], never()]),
    )
    run = await leave_when(panel, panel.writer.started, by)
    types = [event.type for event in run.events_after(0)]
    assert types[-3:] == ["summary.failed", "stage.finished", "run.cancelled"]


async def test_a_client_that_closes_the_stream_midway_ends_the_run() -> None:
    panel = Panel([Scripted("a", says("one")), Scripted("b", says("two"))])
    run = panel.start()
    with run.scope():
        async with aclosing(answer(run, panel.combination, request(), Call())) as batches:
            async for _ in batches:
                break
    check_log(run)
    panel.check_closed()
    assert run.status == "cancelled"
    assert run.usage is not None


async def test_a_stream_closed_before_it_began_leaves_no_open_run() -> None:
    panel = Panel([Scripted("a", says("one"))])
    run = panel.start()
    with run.scope():
        await answer(run, panel.combination, request(), Call()).aclose()
    check_log(run)
    panel.check_closed()
    assert panel.members[0].asked == []


async def test_the_servers_end_ends_the_runs_task_and_says_so() -> None:
    member = Scripted("a", [never()])
    panel = Panel([member])
    run = panel.start()
    task = asyncio.create_task(read(panel, run, []))
    await member.started.wait()
    await panel.tasks.aclose()
    with pytest.raises(ShuttingDown):
        await task
    check_log(run)
    assert run.events_after(0)[-1].data.by == "shutdown"  # type: ignore[attr-defined]


async def test_a_slow_client_slows_the_summary() -> None:
    pieces = 10 * SIZE
    panel = Panel(
        [Scripted("a", says("one")), Scripted("b", says("two"))],
        Scripted("writer", says(*["x"] * pieces)),
    )
    run = panel.start()
    async with aclosing(answer(run, panel.combination, request(), Call())) as batches:
        await anext(batches)
        for _ in range(100):
            await asyncio.sleep(0)
        assert run.lanes["summary"].chars["text"] <= 2 * SIZE + 2
        text = sum(
            [len(one.text) for b in [b async for b in batches] for one in b if isinstance(one, TextDelta)]
        )
    assert text < pieces
    assert run.status == "completed"


async def test_nothing_leaves_before_the_first_content() -> None:
    gate = asyncio.Event()
    panel = Panel([Scripted("a", [[Opening()], gate, *says("one")])])
    run, got = panel.start(), list[Batch]()
    task = asyncio.create_task(read(panel, run, got))
    await panel.members[0].started.wait()
    for _ in range(20):
        await asyncio.sleep(0)
    assert got == []
    gate.set()
    await task
    assert got


async def test_a_plain_model_is_a_run_with_eight_events_and_its_batches_untouched() -> None:
    steps = says("hel", "lo", usage=Usage(1, 2, 3, raw=b'{"x":1}'))
    panel = Panel([], others=[Scripted("plain", steps)])
    told = await panel.ask(model="plain")
    assert told.deltas == [delta for step in steps for delta in step]  # type: ignore[union-attr]
    assert told.types == [
        "run.created",
        "run.in_progress",
        "stage.started",
        "model.started",
        "model.first_token",
        "model.finished",
        "stage.finished",
        "run.completed",
    ]
    assert told.run.usage is not None
    assert told.run.usage.raw == b'{"x":1}'
    assert told.data("model.finished").chars == 5
    assert told.data("run.completed").answer_by == "m1"


async def test_a_plain_models_failure_is_told_and_raised() -> None:
    panel = Panel([], others=[Scripted("plain", [[TextDelta("half")], broken()])])
    told = await panel.ask(model="plain")
    assert isinstance(told.error, ServerError)
    assert told.types[-3:] == ["model.failed", "stage.finished", "run.failed"]
    assert told.data("run.failed").members[0].code == "upstream_error"
    assert told.run.usage is not None  # what was received is estimated
    assert told.run.usage.estimated


async def test_a_plain_model_whose_client_leaves_is_cancelled() -> None:
    plain = Scripted("plain", [[TextDelta("x")], never()])
    panel = Panel([], others=[plain])
    run = panel.start("plain")
    async with aclosing(answer(run, plain, request(), Call())) as batches:
        await anext(batches)
    check_log(run)
    assert run.status == "cancelled"
    assert plain.open == 0


async def test_direct_asks_the_vision_model_by_the_last_user_turn_and_passes_everything_else() -> None:
    text, eyes = Scripted("text", says("t"), vision=False), Scripted("eyes", says("e"))
    panel = Panel(
        [],
        others=[text, eyes],
        strategy="direct",
        model="text",
        vision_model="eyes",
        summary=None,
        members=(),
    )
    image = {"type": "image_url", "image_url": {"url": "https://x.example/i.png"}}
    told = await panel.ask([image], tools=[{"type": "function"}], n=2, unknown=1.0)
    assert told.text == "e"
    assert eyes.body["unknown"] == 1.0
    assert eyes.body["n"] == 2
    assert told.data("run.created").members[0].model == "eyes"
    before = [{"role": "user", "content": [image]}, {"role": "assistant", "content": "A cat."}]
    told = await panel.ask(messages=[*before, {"role": "user", "content": "Thanks."}])
    assert told.text == "t"
    assert "https://x.example" not in text.asked[-1].body.decode()
    assert panel.combination.relays


async def test_the_antiphon_field_never_reaches_an_upstream() -> None:
    plain = Scripted("plain", says("p"))
    panel = Panel([Scripted("a", says("one"))], others=[plain])
    told = await panel.ask(antiphon={})
    assert "antiphon" not in panel.members[0].body
    told = await panel.ask(model="plain", antiphon={})
    assert told.error is None
    assert "antiphon" not in plain.body
    told = await panel.ask(model="plain", antiphon={"quorum": 1})
    assert isinstance(told.error, InvalidRequest)
    assert told.error.param == "antiphon.quorum"
    assert told.types == ["run.created", "run.failed"]


OUTCOMES: dict[str, list[Step]] = {
    "draft": says("text"),
    "failed": [broken()],
    "slow": [slow()],
    "cut": [[TextDelta(LONG)], slow("idle")],
    "empty": says(),
    "hangs": [],  # an event that is never set is put in by the test, within its loop
    "talks and hangs": [[TextDelta(LONG)]],
}


def play(kinds: list[tuple[int, str, int]]) -> list[Scripted]:
    """Members that wait, begin, wait, and go on; some of them for ever."""
    members = []
    for place, (before, kind, between) in enumerate(kinds):
        steps: list[Step] = [before, *OUTCOMES[kind][:1], between, *OUTCOMES[kind][1:]]
        members.append(Scripted(f"a{place}", [*steps, never()] if "hangs" in kind else steps))
    return members


@given(
    kinds=st.lists(
        st.tuples(st.integers(0, 5), st.sampled_from(sorted(OUTCOMES)), st.integers(0, 5)),
        min_size=1,
        max_size=6,
    ),
    writer=st.sampled_from(["draft", "failed", "cut", "empty"]),
    quorum=st.integers(1, 6),
    min_success=st.integers(1, 3),
    strategy=st.sampled_from(["synthesize", "all"]),
    seed=st.integers(0, 2**16),
)
def test_any_schedule_ends_each_member_and_the_run_exactly_once(
    kinds: list[tuple[int, str, int]], writer: str, quorum: int, min_success: int, strategy: str, seed: int
) -> None:
    async def check() -> None:
        panel = Panel(
            play(kinds),
            Scripted("writer", OUTCOMES[writer]),
            quorum=quorum,
            min_success=min_success,
            strategy=strategy,
            grace_s=0.001,
            deadline_s=0.003,
            seed=seed,
        )
        told = await panel.ask()
        ends = [event.member.id for event in told.events if event.type in MEMBER_ENDS and event.member]
        assert sorted(ends) == [f"m{place + 1}" for place in range(len(kinds))]
        assert told.error is None or isinstance(told.error, ServerError)
        finished = [one for one in told.deltas if isinstance(one, Finished)]
        assert len({one.index for one in finished}) == len(finished)
        stage = next(event.data for event in told.events if event.type == "stage.finished")
        assert stage.drafts + stage.failed + stage.cancelled == len(kinds)  # type: ignore[attr-defined]
        if told.error is None:
            assert told.run.usage == told.deltas[-1].usage  # type: ignore[union-attr]

    asyncio.run(check())


@given(
    kinds=st.lists(
        st.tuples(st.integers(0, 5), st.sampled_from(sorted(OUTCOMES)), st.integers(0, 5)),
        min_size=1,
        max_size=4,
    ),
    turns=st.integers(0, 30),
    strategy=st.sampled_from(["synthesize", "all"]),
)
def test_a_client_may_leave_at_any_turn_and_nothing_stays_open(
    kinds: list[tuple[int, str, int]], turns: int, strategy: str
) -> None:
    async def check() -> None:
        panel = Panel(
            play(kinds), Scripted("writer", [3, *says("a", "b")]), strategy=strategy, quorum=1, grace_s=0.001
        )
        run = panel.start()
        task = asyncio.create_task(read(panel, run, []))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
        if task.cancelled() or task.exception():
            assert run.ended or not run.head  # not even begun
        if run.head:
            check_log(run)
        panel.check_closed()

    asyncio.run(check())


async def test_a_bug_in_a_plain_model_is_a_failed_run_and_surfaces() -> None:
    panel = Panel([], others=[Scripted("plain", [ZeroDivisionError()])])
    told = await panel.ask(model="plain")
    assert isinstance(told.error, ZeroDivisionError)
    assert told.data("run.failed").error.code == "internal_error"


async def test_a_combination_is_never_called_outside_a_run() -> None:
    panel = Panel([Scripted("a", says("one"))])
    with pytest.raises(TypeError):
        await anext(panel.combination.stream(request(), Call()))
