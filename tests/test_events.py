"""Events on the wire: two whole runs as they are documented, and what the envelope promises."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from server.deltas import Usage
from server.events import (
    DATA_TYPES,
    RUN_ENDS,
    DecisionMade,
    Event,
    MemberRef,
    ModelStarted,
    RunInProgress,
    StageRef,
    SummaryDelta,
    TokenUsage,
    decode,
    encode,
    number,
    timestamp,
    token_usage,
)
from server.run_check import check_run

DATA = Path(__file__).parent / "data"
DOCUMENTED = ["run_healthy.jsonl", "run_straggler.jsonl"]


def documented(name: str) -> list[bytes]:
    return (DATA / name).read_bytes().splitlines()


@pytest.mark.parametrize("name", DOCUMENTED)
def test_the_documented_runs_are_read_and_written_byte_for_byte(name: str) -> None:
    for line in documented(name):
        event = decode(line)
        assert event is not None
        assert encode(event) == line


@pytest.mark.parametrize("name", DOCUMENTED)
def test_the_documented_runs_keep_the_rules(name: str) -> None:
    events = [event for line in documented(name) if (event := decode(line)) is not None]
    assert check_run(events) == []


def test_a_volatile_event_says_so_behind_its_type() -> None:
    event = Event(
        17, 1795251603.831, 3831, "run_x", SummaryDelta("text", "Both ", 0), StageRef("summary.1", "summary")
    )
    assert encode(event) == (
        b'{"v":1,"type":"summary.delta","volatile":true,"sequence_number":17,"time":"2026-11-21T09:00:03.831Z",'
        b'"elapsed_ms":3831,"run_id":"run_x","stage":{"id":"summary.1","name":"summary","round":1},'
        b'"data":{"kind":"text","text":"Both ","text_offset":0}}'
    )


def test_what_is_behind_a_gate_is_told_only_to_who_opened_it() -> None:
    started = Event(1, 0, 0, "run_x", ModelStarted(channel="c1"), member=MemberRef("m1", "m"))
    assert b"c1" not in encode(started)
    assert b'"channel":"c1"' in encode(started, frozenset({"channels"}))
    assert b"c1" not in encode(started, frozenset({"drafts"}))
    decided = Event(1, 0, 0, "run_x", DecisionMade(method="lone", winner="m1", analysis={"gaps": "secret"}))
    assert b"secret" not in encode(decided)
    assert b"secret" in encode(decided, frozenset({"drafts"}))
    assert b"secret" not in encode(decided), "the kept form is the closed one"


def test_an_event_without_gates_is_encoded_once() -> None:
    event = Event(1, 0, 0, "run_x", RunInProgress())
    assert encode(event) is encode(event, frozenset({"drafts", "channels"}))


def test_an_unknown_type_is_none_and_unknown_fields_are_ignored() -> None:
    line = documented(DOCUMENTED[0])[1]
    told = json.loads(line)
    assert decode(json.dumps({**told, "type": "run.teleported"}).encode()) is None
    known = decode(json.dumps({**told, "shape": "round", "data": {"mood": "good"}}).encode())
    assert known is not None
    assert known.data == RunInProgress()


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b'{"type":1}', b'"run.created"', b"\xff"])
def test_what_is_no_event_is_a_value_error(text: bytes) -> None:
    with pytest.raises(ValueError, match="not an event"):
        decode(text)


def test_usage_is_openais_object_and_marked_when_estimated() -> None:
    assert token_usage(None) is None
    assert token_usage(Usage(1, 2, 3)) == TokenUsage(1, 2, 3)
    estimated = token_usage(Usage(1, 2, 3, estimated=True))
    assert estimated is not None
    assert estimated.estimated is True


def test_times_and_numbers_are_written_as_people_expect_them() -> None:
    assert timestamp(1795251602.14) == "2026-11-21T09:00:02.140Z"
    assert timestamp(0) == "1970-01-01T00:00:00.000Z"
    assert (number(5.0), number(2.5)) == (5, 2.5)
    assert isinstance(number(5.0), int)


def test_each_type_is_named_as_the_table_names_it() -> None:
    assert {name.partition(".")[0] for name in DATA_TYPES} == {"run", "stage", "model", "decision", "summary"}
    assert {"run.completed", "run.incomplete", "run.failed", "run.cancelled"} == RUN_ENDS
    assert {name for name, kind in DATA_TYPES.items() if kind.volatile} == {
        "model.progress",
        "model.delta",
        "summary.delta",
    }
