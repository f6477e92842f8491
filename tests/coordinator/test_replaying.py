"""A recorded run is carried out again in no time: the same answer and the same events, byte for byte."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from server.coordinator.recording import Recordings
from server.coordinator.replaying import BadRecording, Replayed, replay
from server.deltas import TextDelta, Usage
from server.errors import RateLimited
from server.events import encode
from server.handlers import control
from server.price_settings import Price
from server.settings import Member, Summary
from tests.coordinator.panel import (
    Panel,
    Scripted,
    Step,
    Told,
    broken,
    check_log,
    never,
    reasoning,
    says,
    slow,
)
from tests.coordinator.test_steering import ME, asked

USED = Usage(10, 20, 30, raw=b'{"prompt_tokens":10,"completion_tokens":20}')
PRICE = Price(input=1, output=2)
LONG = "A draft that is long enough. " * 10


class Faulty(Scripted):
    """An upstream that retries once, and notes something, before it plays its script."""

    async def stream(self, chat: Any, call: Any) -> Any:
        if call.observer is not None:
            call.observer.queued("slots")
            call.observer.attempt(1, "first")
            call.observer.retrying(
                RateLimited("Wait.", upstream_status=429), delay_s=0.1, next_attempt=2, same_channel=False
            )
            call.observer.noted("second", "asked")
            call.adapted("second", ("seed was left out",))
        async for batch in super().stream(chat, call):
            yield batch


PANELS: dict[str, tuple[list[list[Step]], dict[str, Any]]] = {
    "synthesize": ([says("one"), [reasoning("hm"), *says("two")], says("three")], {}),
    "failures": ([says("one"), [slow()], says("three"), [broken()]], {"quorum": 2}),
    "a straggler": ([says("one"), [*says(LONG)[:-1], never()]], {"quorum": 1, "grace_s": 0.01}),
    "race": ([[3, *says("x" * 30)], says("y" * 30)], {"strategy": "race"}),
    "fallback": ([[broken()], says("plan b")], {"strategy": "fallback"}),
    "all": ([says("one"), says("two")], {"strategy": "all"}),
    "moa": ([says("one"), says("two")], {"strategy": "moa"}),
    "council": ([says("one"), says("two"), says("three")], {"strategy": "council"}),
    "nobody": ([[broken()], [slow()]], {}),
    "the writer fails": (
        [says("one"), says("two")],
        {"summary": Summary(model="absent", fallback=("best_draft",))},
    ),
    "a budget": ([says("one", usage=USED), says("two"), says("three")], {"max_cost": 0.0025}),
}


async def recorded(name: str, folder: Path, **fields: Any) -> tuple[Told, bytes]:
    scripts, settings = PANELS[name]
    kinds = [Faulty, *([Scripted] * len(scripts))]
    members = [
        kind(f"m{number}", steps, price=PRICE)
        for number, (kind, steps) in enumerate(zip(kinds, scripts, strict=False), start=1)
    ]
    made = Panel(members, Scripted("writer", says("The ", "end.", usage=USED), price=PRICE), **settings)
    made.combination._recordings = Recordings(folder, 1000)
    told = await made.ask(**({"max_tokens": 200} | fields))
    return told, (folder / f"{told.run.id}.jsonl").read_bytes()


def told_by(result: Replayed) -> list[bytes]:
    return [encode(event) for event in result.run.events_after(0)]


@pytest.mark.parametrize("name", PANELS)
async def test_a_recording_gives_the_same_answer_and_events_byte_for_byte(name: str, tmp_path: Path) -> None:
    live, data = await recorded(name, tmp_path)
    first = await asyncio.to_thread(replay, data)
    again = await asyncio.to_thread(replay, data)
    check_log(first.run)
    assert told_by(first) == told_by(again)
    assert first.deltas == again.deltas
    assert first.run.id == live.run.id
    # And it is what happened, but for the turns that calls took within a moment.
    assert text_of(first) == "".join(one.text for one in live.deltas if isinstance(one, TextDelta))
    assert (first.error and first.error.code) == getattr(live.error, "code", None)
    assert (first.run.status, first.run.level) == (live.run.status, live.run.level)


def text_of(result: Replayed) -> str:
    return "".join(one.text for one in result.deltas if isinstance(one, TextDelta))


async def test_what_takes_minutes_is_replayed_at_once_with_its_times(tmp_path: Path) -> None:
    _, data = await recorded("synthesize", tmp_path)
    lines = [msgspec.json.decode(line) for line in data.splitlines()]
    for line in lines:
        if line.get("call") == 2 and "begins" not in line:
            line["t"] += 30.0
    del lines[-1]["sha256_before"]
    late = b"".join(msgspec.json.encode(line) + b"\n" for line in lines)
    result = await asyncio.to_thread(replay, late)
    finished = next(event for event in result.run.events_after(0) if event.type == "stage.finished")
    assert finished.data.ended_by == "quorum"  # type: ignore[attr-defined]
    assert 5000 <= finished.elapsed_ms < 6000


async def test_a_run_that_was_left_ends_where_it_was_left(tmp_path: Path) -> None:
    made = Panel([Scripted("m1", says("one")), Scripted("m2", [never()])], quorum=2)
    made.combination._recordings = Recordings(tmp_path, 10)
    asking = asyncio.create_task(made.ask())
    await made.members[1].started.wait()
    (run,) = made.runs._runs.values()
    run.cancel("watcher")
    await asking
    result = await asyncio.to_thread(replay, (tmp_path / f"{run.id}.jsonl").read_bytes())
    assert result.run.status == "cancelled"
    assert result.run.events_after(0)[-1].data.by == "watcher"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "data", [b"", b"no JSON", b"{}", b"[]", b'{"recording": 1}', b"\xff\xfe\n", b"{}\n{}"]
)
def test_what_is_no_recording_is_told(data: bytes) -> None:
    with pytest.raises(BadRecording):
        replay(data)


async def test_a_recording_of_another_version_is_told(tmp_path: Path) -> None:
    _, data = await recorded("race", tmp_path)
    with pytest.raises(BadRecording, match="version 99"):
        await asyncio.to_thread(replay, data.replace(b'"recording":1', b'"recording":99', 1))


async def test_of_another_version_nothing_else_need_be_readable() -> None:
    with pytest.raises(BadRecording, match="version 2"):
        replay(b'{"recording": 2, "of": "another shape"}\n')


async def test_a_cut_or_damaged_recording_never_looks_whole(tmp_path: Path) -> None:
    _, data = await recorded("failures", tmp_path)
    lines = data.splitlines(keepends=True)
    for end in range(1, len(lines)):
        with pytest.raises(BadRecording, match="cut"):
            replay(b"".join(lines[:end]))
    for at in range(1, len(lines) - 1):
        with pytest.raises(BadRecording, match="damaged"):
            replay(b"".join(lines[:at] + lines[at + 1 :]))
    for at in range(0, len(data), 97):
        with pytest.raises(BadRecording):
            replay(data[:at] + b"\xff" + data[at + 1 :])


async def test_a_recording_may_be_edited_by_who_says_so(tmp_path: Path) -> None:
    _, data = await recorded("synthesize", tmp_path)
    edited = re.sub(rb',"sha256_before":"\w+"', b"", data).replace(b"The ", b"Our ")
    assert text_of(await asyncio.to_thread(replay, edited)) == "Our end."
    said = re.compile(rb'"call":4,(?!"begins")')
    broken_off = b"".join(line for line in edited.splitlines(keepends=True) if not said.search(line))
    with pytest.raises(BadRecording, match="waits for"):
        await asyncio.to_thread(replay, broken_off)
    odd = edited.replace(b'"text":"Our "', b'"text":1')
    with pytest.raises(BadRecording, match="delta"):
        await asyncio.to_thread(replay, odd)


async def test_a_run_with_an_image_is_replayed_without_it(tmp_path: Path) -> None:
    made = Panel(
        [Scripted("m1", says("one"), vision=True), Scripted("m2", says("two"), vision=True)],
        vision_members=(Member(model="m1"), Member(model="m2")),
    )
    made.combination._recordings = Recordings(tmp_path, 10)
    url = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUg=="
    part = {"type": "image_url", "image_url": {"url": url}}
    live = await made.ask(messages=[{"role": "user", "content": [part]}])
    data = (tmp_path / f"{live.run.id}.jsonl").read_bytes()
    assert b"iVBOR" not in data
    first, again = [await asyncio.to_thread(replay, data) for _ in range(2)]
    assert told_by(first) == told_by(again)
    assert (first.run.status, text_of(first)) == ("completed", live.text)


LONG = "A long beginning of an answer. " * 10


async def test_what_a_watcher_did_is_done_again(tmp_path: Path) -> None:
    made = Panel([Scripted("m1", says("one")), Scripted("m2", [[TextDelta(LONG)], never()])], quorum=2)
    made.combination._recordings = Recordings(tmp_path, 10)
    async with asked(made) as under_way:
        await under_way.when(lambda: under_way.told("model.first_token", "m2"))
        await under_way.when(lambda: under_way.told("model.finished", "m1"))
        assert await control.answer_now(under_way.run, ME)
        live = await under_way.task
    result = await asyncio.to_thread(replay, (tmp_path / f"{live.run.id}.jsonl").read_bytes())
    types = [event.type for event in result.run.events_after(0)]
    assert types.count("run.control") == 1
    assert (result.run.status, result.run.level) == ("completed", live.run.level)
    assert text_of(result) == live.text


async def test_a_run_whose_client_left_ends_so_again(tmp_path: Path) -> None:
    made = Panel([Scripted("m1", says("one")), Scripted("m2", [never()])], quorum=2)
    made.combination._recordings = Recordings(tmp_path, 10)
    asking = asyncio.create_task(made.ask())
    await made.members[1].started.wait()
    (run,) = made.runs.active(ME, everyone=True, limit=2)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    result = await asyncio.to_thread(replay, (tmp_path / f"{run.id}.jsonl").read_bytes())
    assert (result.run.status, run.status) == ("cancelled", "cancelled")
    assert result.run.events_after(0)[-1].data.by == "client"  # type: ignore[attr-defined]
