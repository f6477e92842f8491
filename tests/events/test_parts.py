"""What the data of events is made of."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.deltas import Usage
from server.events import Data, MemberRef, StageRef, Timings, TokenUsage, number, token_usage
from server.events.parts import ErrorInfo, MemberFailure, Part, PlannedMember


def test_usage_is_openais_object_and_marked_when_estimated() -> None:
    assert token_usage(None) is None
    assert token_usage(Usage(1, 2, 3)) == TokenUsage(1, 2, 3)
    assert msgspec.to_builtins(token_usage(Usage(1, 2, 3))) == {
        "prompt_tokens": 1,
        "completion_tokens": 2,
        "total_tokens": 3,
    }
    estimated = token_usage(Usage(1, 2, 3, estimated=True))
    assert estimated is not None
    assert msgspec.to_builtins(estimated)["estimated"] is True


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_keeps_its_value_and_a_whole_one_loses_its_point(value: float) -> None:
    told = number(value)
    assert told == value
    assert isinstance(told, int) == value.is_integer()


def test_of_timings_only_what_came_about_is_told() -> None:
    assert msgspec.to_builtins(Timings()) == {}
    assert msgspec.to_builtins(Timings(total_ms=5)) == {"total_ms": 5}


def test_what_is_not_known_of_an_error_is_null_and_not_absent() -> None:
    told = msgspec.to_builtins(ErrorInfo("It broke.", "server_error", None, None))
    assert told == {"message": "It broke.", "type": "server_error", "param": None, "code": None}
    failure = msgspec.to_builtins(MemberFailure("m1", "timeout", None, True))
    assert failure == {"id": "m1", "code": "timeout", "http_status": None, "retryable": True}


@pytest.mark.parametrize(
    "part", [StageRef("draft.1", "draft"), MemberRef("m1", "m"), PlannedMember("m1", "m"), Timings()]
)
def test_a_part_cannot_be_changed_since_many_events_share_it(part: Part) -> None:
    with pytest.raises(AttributeError):
        part.id = "another"  # type: ignore[attr-defined]
    assert hash(part) == hash(msgspec.structs.replace(part))


def test_data_says_nothing_of_itself_unless_its_type_does() -> None:
    assert (Data.status, Data.volatile, Data.terminal, dict(Data.gated)) == (None, False, False, {})
