"""The envelope: what an event looks like on the wire, both ways."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import UNSET, UnsetType

from server.events import (
    DATA_TYPES,
    DecisionMade,
    Event,
    MemberRef,
    ModelQueued,
    ModelStarted,
    RunInProgress,
    StageRef,
    SummaryDelta,
    decode,
    encode,
    timestamp,
)
from server.run_check import check_run

DATA = Path(__file__).parent.parent / "data"
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


def test_times_are_written_in_utc_with_milliseconds() -> None:
    assert timestamp(1795251602.14) == "2026-11-21T09:00:02.140Z"
    assert timestamp(0) == "1970-01-01T00:00:00.000Z"


def test_what_a_client_may_not_read_is_not_even_named() -> None:
    queued = Event(2, 0, 0, "run_x", ModelQueued("channel", "secret"), member=MemberRef("m1", "m"))
    assert json.loads(encode(queued))["data"] == {"waiting_for": "channel"}
    assert json.loads(encode(queued, frozenset({"channels"})))["data"]["channel"] == "secret"


def test_what_is_absent_is_left_out_and_not_null() -> None:
    told = json.loads(encode(Event(1, 0, 0, "run_x", RunInProgress())))
    assert set(told) == {"v", "type", "sequence_number", "time", "elapsed_ms", "run_id", "data"}
    whose = Event(1, 0, 0, "run_x", RunInProgress(), conversation_id="c1")
    assert json.loads(encode(whose))["conversation_id"] == "c1"


@cache
def value_of(hint: Any) -> st.SearchStrategy[Any]:
    """Values of a field's type that JSON brings back as they were."""
    parts = get_args(hint)
    if hint in (None, type(None)):
        return st.none()
    if hint is UnsetType:
        return st.just(UNSET)
    if isinstance(hint, UnionType) or get_origin(hint) is Union:
        return st.one_of([value_of(part) for part in parts])
    if get_origin(hint) is tuple:
        return st.lists(value_of(parts[0]), max_size=3).map(tuple)
    if get_origin(hint) is dict:
        return st.dictionaries(st.text(max_size=5), value_of(parts[1]), max_size=3)
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        fields = get_type_hints(hint)
        return st.builds(
            hint, **{one.name: value_of(fields[one.name]) for one in msgspec.structs.fields(hint)}
        )
    return PLAIN[hint]


PLAIN: dict[Any, st.SearchStrategy[Any]] = {
    str: st.text(max_size=20),
    bool: st.booleans(),
    int: st.integers(0, 2**53),
    float: st.floats(0, 1e6).filter(lambda value: not value.is_integer()),
    Any: st.none() | st.booleans() | st.text(max_size=5) | st.lists(st.integers(), max_size=3),
}
EVERYTHING = frozenset({"answer", "drafts", "reasoning", "progress", "channels"})


@pytest.mark.parametrize("name", list(DATA_TYPES))
@settings(max_examples=30)
@given(given_data=st.data())
def test_whatever_a_type_may_hold_comes_back_as_it_was(name: str, given_data: st.DataObject) -> None:
    kind = DATA_TYPES[name]
    data = given_data.draw(value_of(kind))
    event = Event(3, 1795251602.14, 7, "run_x", data, StageRef("draft.1", "draft"), MemberRef("m1", "m"))
    back = decode(encode(event, EVERYTHING))
    assert back is not None
    assert (back.type, back.sequence_number, back.time, back.data) == (name, 3, event.time, data)
    assert b"\n" not in encode(event), "an event is one line"
