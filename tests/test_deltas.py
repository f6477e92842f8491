"""What a model says, piece by piece."""

from __future__ import annotations

import gc

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.deltas import (
    Delta,
    Extra,
    Finished,
    Opening,
    Original,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
    Usage,
    UsageDelta,
    has_content,
)

SAYS_SOMETHING: list[Delta] = [
    TextDelta("a"),
    TextDelta(" "),
    ReasoningDelta("a"),
    RefusalDelta("a"),
    ToolCallDelta(0, id="c", name="f"),
    Finished("stop"),
]
SAYS_NOTHING: list[Delta] = [Opening(), UsageDelta(Usage(1, 2, 3)), Extra(), Extra(bare=True)]


@pytest.mark.parametrize("delta", SAYS_SOMETHING)
def test_text_thought_refusal_call_and_finish_are_first_deltas(delta: Delta) -> None:
    assert has_content([delta])
    assert has_content([*SAYS_NOTHING, delta, *SAYS_NOTHING])


@pytest.mark.parametrize("delta", SAYS_NOTHING)
def test_a_lone_role_usage_or_unknown_chunk_is_none(delta: Delta) -> None:
    assert not has_content([delta])


def test_a_batch_of_nothing_says_nothing() -> None:
    assert not has_content([])
    assert not has_content(SAYS_NOTHING)


@pytest.mark.parametrize("delta", [*SAYS_SOMETHING, *SAYS_NOTHING, Original("openai.chunk", b"{}")])
def test_a_delta_is_shared_and_cannot_be_changed(delta: msgspec.Struct) -> None:
    for name in delta.__struct_fields__:
        with pytest.raises(AttributeError):
            setattr(delta, name, None)


@pytest.mark.parametrize("delta", [*SAYS_SOMETHING, *SAYS_NOTHING])
def test_a_delta_costs_the_collector_nothing(delta: Delta) -> None:
    assert not gc.is_tracked(delta)


figures = st.builds(
    Usage,
    st.integers(0, 10**9),
    st.integers(0, 10**9),
    st.integers(0, 10**9),
    st.booleans(),
)


@given(figures, figures, figures)
def test_usage_adds_up_in_any_order_and_one_estimate_makes_the_sum_one(a: Usage, b: Usage, c: Usage) -> None:
    assert (a + b) + c == a + (b + c)
    assert a + b == b + a
    assert (a + b).estimated is (a.estimated or b.estimated)
    assert (a + b).total_tokens == a.total_tokens + b.total_tokens


def test_a_sum_is_nobodys_own_words() -> None:
    assert (Usage(1, 1, 2, raw=b"{}") + Usage(1, 1, 2, raw=b"{}")).raw is None
