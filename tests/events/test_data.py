"""The types of events, and what their classes say of them."""

from __future__ import annotations

import msgspec

from server.events import DATA_TYPES, MEMBER_ENDS, RUN_ENDS, SUMMARY_ENDS, TEXT_TYPES

INCLUDES = {"answer", "drafts", "reasoning", "progress", "channels"}


def test_each_type_is_named_as_the_table_names_it() -> None:
    assert {name.partition(".")[0] for name in DATA_TYPES} == {"run", "stage", "model", "decision", "summary"}
    assert {"run.completed", "run.incomplete", "run.failed", "run.cancelled"} == RUN_ENDS
    assert {name for name, kind in DATA_TYPES.items() if kind.volatile} == {
        "model.progress",
        "model.delta",
        "summary.delta",
    }


def test_the_sets_hold_types_that_there_are() -> None:
    assert set(DATA_TYPES) >= MEMBER_ENDS | SUMMARY_ENDS | TEXT_TYPES | RUN_ENDS
    assert all(DATA_TYPES[name].volatile for name in TEXT_TYPES)
    assert not any(DATA_TYPES[name].volatile for name in MEMBER_ENDS | SUMMARY_ENDS | RUN_ENDS)


def test_a_run_s_end_names_its_status_and_nothing_else_is_an_end() -> None:
    assert {DATA_TYPES[name].status for name in RUN_ENDS} == {
        "completed",
        "incomplete",
        "failed",
        "cancelled",
    }
    assert {kind.status for kind in DATA_TYPES.values() if not kind.terminal} == {
        None,
        "queued",
        "in_progress",
    }


def test_every_gate_stands_before_a_field_that_there_is_and_is_one_that_may_be_opened() -> None:
    for kind in DATA_TYPES.values():
        fields = {field.name: field for field in msgspec.structs.fields(kind)}
        for name, gate in kind.gated.items():
            assert gate in INCLUDES
            assert fields[name].default is msgspec.UNSET, "what is shut is left out"


def test_names_of_channels_are_behind_their_gate_everywhere() -> None:
    for kind in DATA_TYPES.values():
        if "channel" in (field.name for field in msgspec.structs.fields(kind)):
            assert kind.gated.get("channel") == "channels"
