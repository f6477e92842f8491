"""The answer inside a draft: taken out, and written in one way."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.coordinator.values import value_of
from server.strategy_settings import Vote


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("number", "It is so.\nAnswer: 1,234.50 km", "1234.5"),
        ("number", "\\boxed{42}", "42"),
        ("number", "答案：４２。", "42"),
        ("number", "x = −7", "-7"),
        ("number", "0.0", "0"),
        ("number", "-0", "0"),
        ("number", "first 3 then 5", "5"),
        ("number", "none at all", None),
        ("number", "1e999999999", "1E999999999"),
        ("number", "-2.50e-999999999", "-25E-1000000000"),
        ("number", "0e999999999", "0"),
        ("number", "1e99999999999999999999", None),
        ("number", "1" + "0" * 200, "1E200"),
        ("number", "1e200", "1E200"),
        ("number", "7" * 150, "7" * 150 + "E0"),
        ("choice", "thus\n**Answer: (B)**", "B"),
        ("choice", "The answer is C.", "C"),
        ("choice", "b", "B"),
        ("choice", "Answer: I think D", "D"),
        ("date", "on 3 May 2024.", "2024-05-03"),
        ("date", "May 3rd, 2024", "2024-05-03"),
        ("date", "2024年5月3日", "2024-05-03"),
        ("date", "03.05.2024", "2024-05-03"),
        ("date", "2024/02/31", None),
        ("string", "Answer:  *Paris*.", "paris"),
        ("string", "final answer: Paris", "paris"),
        ("string", "...", None),
        ("json", 'so:\n```json\n{"b": 1.0, "a": [2]}\n```', '{"a":[2],"b":1}'),
        ("json", "no json", None),
        ("number", "", None),
    ],
)
def test_equal_answers_have_equal_values(kind: str, text: str, value: str | None) -> None:
    assert value_of(text, Vote(type=kind)) == value  # type: ignore[arg-type]


def test_a_regular_expression_finds_its_last_match_and_its_group() -> None:
    vote = Vote(type="number", extract=r"total: (\d+)")
    assert value_of("total: 3 or total: 12, of 99", vote) == "12"
    assert value_of("nothing", vote) is None


def test_a_json_path_leads_into_the_drafts_json() -> None:
    vote = Vote(type="string", extract="$.answers[0].name")
    assert value_of('Sure: {"answers": [{"name": "Ada"}]}', vote) == "ada"
    assert value_of('{"answers": []}', vote) is None
    assert value_of("no json", vote) is None


NUMBERS = st.from_regex(r"[-+]?[0-9]{0,40}[.,]?[0-9]{1,40}([eE][-+]?[0-9]{1,25})?", fullmatch=True)


@given(st.text() | NUMBERS, st.sampled_from(["number", "choice", "date", "string", "json"]))
def test_any_text_has_a_value_or_none_and_never_breaks(text: str, kind: str) -> None:
    value = value_of(text, Vote(type=kind))  # type: ignore[arg-type]
    assert value is None or value
