"""Thoughts as OpenRouter tells them: pieces that are joined, and what of them must come back."""

from __future__ import annotations

from typing import Any

import pytest

from server.openai_wire import Details, details_in
from server.openai_wire.details import MAX_WORDS, words_of

TEXT = {"type": "reasoning.text", "index": 0, "format": "anthropic-claude-v1"}
SEALED = {"type": "reasoning.encrypted", "data": "gAAA", "index": 1}


def joined(*pieces: dict[str, Any]) -> list[dict[str, Any]]:
    details = Details()
    for piece in pieces:
        details.add([piece])
    return details.take()


def test_the_pieces_of_a_text_are_joined_and_its_signature_comes_with_the_last() -> None:
    assert joined(
        TEXT | {"text": "I ", "signature": None},
        TEXT | {"text": "think."},
        TEXT | {"signature": "Eo"},
        SEALED,
    ) == [TEXT | {"text": "I think.", "signature": "Eo"}, SEALED]


def test_what_is_encrypted_is_never_joined_nor_are_texts_of_other_places() -> None:
    other = TEXT | {"index": 2, "text": "b", "signature": "s"}
    assert joined(SEALED, SEALED, TEXT | {"text": "a"}, other) == [
        SEALED,
        SEALED,
        TEXT | {"text": "a"},
        other,
    ]


@pytest.mark.parametrize("piece", [TEXT | {"text": "a"}, {"type": "reasoning.summary", "summary": "a"}, {}])
def test_what_nobody_has_signed_need_not_come_back(piece: dict[str, Any]) -> None:
    assert joined(piece) == []


def test_thoughts_without_end_are_not_kept() -> None:
    details = Details()
    for _ in range(3):
        details.add([TEXT | {"text": "x" * (MAX_WORDS // 2), "signature": "s"}])
    assert (details.lost, details.take()) == (True, [])


def test_the_words_are_texts_and_summaries() -> None:
    odd: list[dict[str, Any]] = [{"type": "reasoning.text", "text": 5}, {"type": ["odd"]}, {}]
    summary = {"type": "reasoning.summary", "summary": "b"}
    assert words_of([TEXT | {"text": "a"}, summary, SEALED, *odd]) == "ab"


def test_those_that_were_sealed_are_found_among_other_things() -> None:
    assert details_in([{"extra_content": {}}, {"reasoning_details": [1, 2]}, {"reasoning_details": 3}]) == [
        1,
        2,
    ]
