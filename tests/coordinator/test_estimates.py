"""Estimates of tokens: rough, never zero for a text, and marked."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from server.coordinator.estimates import TOKENS_PER_IMAGE, estimate_usage, size_of, tokens_of
from tests.coordinator.panel import request


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_texts_size_is_that_of_its_utf8(text: str) -> None:
    assert size_of(text) == len(text.encode())
    assert (tokens_of(text) > 0) is bool(text)


def test_a_prompt_counts_text_and_images_but_not_the_bytes_of_an_image() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 100_000}}
    usage = estimate_usage(request([{"type": "text", "text": "x" * 400}, image]), 40)
    assert 100 + TOKENS_PER_IMAGE <= usage.prompt_tokens < 500
    assert usage.completion_tokens == 10
    assert usage.total_tokens == usage.prompt_tokens + 10
    assert usage.estimated
