"""Estimates of tokens: rough, never zero for a text, and marked."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.token_estimates import (
    BYTES_PER_TOKEN,
    MAX_PIECES,
    TOKENS_PER_IMAGE,
    Weighing,
    estimate_usage,
    tokens_of,
    tokens_of_chat,
    weight_of,
)
from tests.coordinator.panel import request

TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@given(TEXT)
def test_a_text_weighs_at_least_its_length(text: str) -> None:
    assert len(text) <= weight_of(text) <= 6 * len(text)
    assert (tokens_of(text) > 0) is bool(text)


@given(TEXT, TEXT)
def test_pieces_weigh_what_they_weigh_together(one: str, other: str) -> None:
    assert 0 <= weight_of(one) + weight_of(other) - weight_of(one + other) <= 1


@pytest.mark.parametrize(
    ("text", "counted"),
    [
        # What o200k, llama-3 and qwen2.5 make of it, in this order.
        ("The committee met on Tuesday to discuss the changes to the library's opening hours.", (16, 16, 16)),
        ("Комитет собрался во вторник, чтобы обсудить изменения в часах работы библиотеки.", (21, 24, 27)),
        ("委员会于星期二开会,讨论图书馆开放时间的修改建议。", (17, 18, 14)),
        ("委員会は火曜日に会合を開き、図書館の開館時間の変更案について話し合いました。", (29, 27, 29)),
    ],
)
def test_an_estimate_is_near_what_tokenizers_count(text: str, counted: tuple[int, ...]) -> None:
    assert min(counted) * 0.6 <= tokens_of(text) <= max(counted) * 1.5


@given(st.lists(TEXT, max_size=5))
def test_a_text_may_come_in_pieces(pieces: list[str]) -> None:
    weighing = Weighing()
    for piece in pieces:
        weighing.add(piece)
    text = "".join(pieces)
    assert weighing.beyond == weight_of(text) - len(text)
    weighing.add("字")
    assert weighing.beyond == weight_of(text) - len(text) + 2


def test_a_long_text_is_not_kept() -> None:
    weighing = Weighing()
    for _ in range(10 * MAX_PIECES):
        weighing.add("字")
    assert weighing.beyond == 20 * MAX_PIECES


def test_what_cannot_be_encoded_weighs_something_too() -> None:
    assert weight_of("\ud800" * 8) == 8


def test_a_prompt_counts_text_and_images_but_not_the_bytes_of_an_image() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 100_000}}
    usage = estimate_usage(request([{"type": "text", "text": "x" * 400}, image]), 10 * BYTES_PER_TOKEN)
    assert 100 + TOKENS_PER_IMAGE <= usage.prompt_tokens < 500
    assert usage.completion_tokens == 10
    assert usage.total_tokens == usage.prompt_tokens + 10
    assert usage.estimated


def test_tools_are_part_of_the_prompt() -> None:
    plain = request("hello")
    tool = {"type": "function", "function": {"name": "f", "description": "x" * 400, "parameters": {}}}
    assert tokens_of_chat(plain.with_values(tools=[tool])) >= tokens_of_chat(plain) + 100
