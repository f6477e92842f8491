"""The page's fold of events agrees with the server's, and its texts with their cursors; in a browser."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from server.events import decode
from server.run_view import RunView
from server.settings import Settings
from tests.behaviour.running import QUIET
from tests.scripted_runs import site
from tests.web.browser import PATIENCE_S, Visit, visit

DATA = Path(__file__).parents[1] / "data"
LOGS = {path.stem: path.read_text(encoding="utf-8").splitlines() for path in sorted(DATA.glob("run_*.jsonl"))}
FOLD = """({emptyRun, apply}, events) => events.reduce(apply, emptyRun(events[0].run_id))"""
SAME = ("id", "head", "status", "model", "strategy", "level", "usage", "cost", "error", "timings")
LANE = {"ttft_ms": "ttft", "latency_ms": "latency", "finish_reason": "finish"}
LANE |= {name: name for name in ("state", "model", "attempt", "chars", "code", "reason")}


@pytest.fixture
async def seen() -> AsyncIterator[Visit]:
    async with (
        site(Settings(logging=QUIET), patience_s=PATIENCE_S) as shown,
        visit(f"http://127.0.0.1:{shown.port}/") as page,
    ):
        yield page


@pytest.mark.parametrize("name", LOGS)
async def test_at_each_event_page_and_server_see_the_same_run(seen: Visit, name: str) -> None:
    lines = LOGS[name]
    fold = """({emptyRun, apply}, events) => {
        let run = emptyRun(events[0].run_id);
        return events.map((event) => (run = apply(run, event)));
    }"""
    runs = await seen.reads("fold.js", fold, [json.loads(line) for line in lines])
    view = RunView()
    for line, run in zip(lines, runs, strict=True):
        event = decode(line.encode())
        assert event is not None
        view.apply(event)
        told = view.snapshot()
        assert {one: run[one] for one in SAME} == {one: told[one] for one in SAME}
        assert run["answerBy"] == told["answer_by"]
        lanes = {lane["id"]: lane for lane in told["members"]}
        if told["summary"] is not None:
            lanes["summary"] = told["summary"]
        assert list(run["lanes"]) == list(lanes)
        for id, lane in lanes.items():
            for theirs, ours in LANE.items():
                expected = lane.get(theirs, 1 if theirs == "attempt" else None)
                assert run["lanes"][id][ours] == expected, (id, theirs)


@pytest.mark.parametrize("name", LOGS)
async def test_an_event_that_comes_twice_changes_nothing(seen: Visit, name: str) -> None:
    events = [json.loads(line) for line in LOGS[name]]
    once = await seen.reads("fold.js", FOLD, events)
    twice = await seen.reads("fold.js", FOLD, [one for event in events for one in (event, event)] + events)
    assert once == twice


async def test_types_and_fields_of_tomorrow_are_passed_over(seen: Visit) -> None:
    events = [json.loads(line) for line in LOGS["run_healthy"]]
    once = await seen.reads("fold.js", FOLD, events)
    for kind in ("run.thought", "model.sang", "summary.sang", "conversation.began"):
        strange = {**events[3], "type": kind, "sequence_number": events[-1]["sequence_number"] + 1}
        after = await seen.reads("fold.js", FOLD, [*events, {**strange, "data": {"new": [1]}}])
        assert after["status"] == once["status"]
        assert after["usage"] == once["usage"]


def pieces(text: str, chance: random.Random) -> list[dict[str, Any]]:
    """The deltas of a text, some of which overlap the one before, as after a resumption."""
    deltas, at = [], 0
    while at < len(text):
        end = min(len(text), at + chance.randint(1, 9))
        begin = max(1, at - chance.choice((0, 0, 0, 3))) if at else 0
        deltas.append({"text_offset": begin, "text": text[begin:end], "kind": "text"})
        at = end
    return deltas


@pytest.mark.parametrize("seed", range(3))
async def test_a_text_is_whole_whatever_its_pieces(seen: Visit, seed: int) -> None:
    chance = random.Random(seed)
    text = "".join(chance.choices("ab 汉🎈\u0301\n", k=500))
    code = """({append, NO_TEXT, whole}, deltas) => {
        const text = deltas.reduce((text, one) => append(text, one.text_offset, one.text), NO_TEXT);
        return [whole(text), text.start, text.end];
    }"""
    got = await seen.reads("texts.js", code, pieces(text, chance))
    assert got == [text, 0, len(text)]


async def test_after_a_gap_a_text_begins_behind_it(seen: Visit) -> None:
    code = """({append, NO_TEXT, whole}) => {
        const text = append(append(NO_TEXT, 0, "🎈 one"), 100, "two");
        return [whole(text), text.start, text.end];
    }"""
    assert await seen.reads("texts.js", code) == ["two", 100, 103]


async def test_a_long_text_loses_its_head_and_keeps_its_place(seen: Visit) -> None:
    code = """({append, NO_TEXT, MAX_UNITS, whole}) => {
        let text = NO_TEXT;
        for (let at = 0; at < 4000; at++) text = append(text, text.end, "🎈".repeat(250));
        const kept = whole(text).length;
        return [kept <= MAX_UNITS, text.end, text.start + kept / 2, text.pieces.length];
    }"""
    bounded, end, counted, count = await seen.reads("texts.js", code)
    assert bounded
    assert end == counted == 1_000_000
    assert count < 100


async def test_one_piece_that_is_too_long_by_itself_loses_its_head_too(seen: Visit) -> None:
    code = """({append, NO_TEXT, MAX_UNITS, whole}) => {
        const text = append(append(NO_TEXT, 0, "x"), 1, "🎈".repeat(300_000) + "y");
        const kept = whole(text);
        return [kept.length <= MAX_UNITS, kept.isWellFormed(), text.end, text.start + [...kept].length];
    }"""
    assert await seen.reads("texts.js", code) == [True, True, 300_002, 300_002]


async def test_times_are_told_as_shortly_as_they_are_true(seen: Visit) -> None:
    code = "({seconds, axis}) => [4, 99, 100, 2500, 61_000, 720_000].map((ms) => [seconds(ms), axis(ms)])"
    assert await seen.reads("format.js", code) == [
        ["4 ms", "4 ms"],
        ["99 ms", "99 ms"],
        ["0.10 s", "0.1 s"],
        ["2.50 s", "2.5 s"],
        ["61.0 s", "61 s"],
        ["12 min 0 s", "12 min 0 s"],
    ]


async def test_the_page_keeps_so_many_runs_and_lets_the_oldest_ended_go_first(seen: Visit) -> None:
    code = """({initial, hear, MAX_RUNS}) => {
        let state = initial({lang: "en", theme: "auto"});
        const tell = (id, type, data) => {
            const number = type === "run.created" ? 1 : 2;
            const head = {run_id: id, sequence_number: number, elapsed_ms: 1, time: "2026-11-21T00:00:00Z"};
            state = hear(state, {type, data, ...head}, 0);
        };
        const planned = {model: "m", strategy: "direct", members: [{id: "m1", model: "m"}]};
        for (let at = 0; at < MAX_RUNS + 50; at++) {
            tell(`run_${at}`, "run.created", planned);
            if (at > 5) tell(`run_${at}`, "run.cancelled", {by: "client"});
        }
        const {order, runs, extra} = state;
        return [order.length, Object.keys(runs).length, Object.keys(extra).length, order];
    }"""
    order, runs, extra, ids = await seen.reads("board.js", code)
    assert order == runs == extra == 60
    assert {f"run_{at}" for at in range(6)} <= set(ids)  # they have not ended
