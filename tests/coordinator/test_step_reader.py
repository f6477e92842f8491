"""One step, read while it arrives, however sloppy the model is."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.coordinator.step_reader import StepReader, same_words


def read(*texts: str) -> StepReader:
    reader = StepReader()
    for text in texts:
        reader.feed(text)
    reader.finish()
    return reader


@pytest.mark.parametrize(
    ("text", "title", "content", "last"),
    [
        ('{"title": "A", "content": "b", "next_action": "continue"}', "A", "b", False),
        ('{"title": "A", "content": "b", "next_action": "final_answer"}', "A", "b", True),
        ('{"title": "A", "content": "b"}', "A", "b", False),
        ('```json\n{"title": "A", "content": "b"}\n```', "A", "b", False),
        ('I {think}: {"title": "A", "content": "b"} so.', "A", "b", False),
        ('{"title": "A", "content": "cut he', "A", "cut he", False),
        (
            '{"title": "A", "content": "raw\nline \\n \\d \\"q\\" \\u4e2d \\ud83d\\ude00"}',
            "A",
            'raw\nline \n \\d "q" 中 😀',
            False,
        ),
        ('{"content": ["a", "b"], "title": 3, "next_action": null}', "3", '["a", "b"]', False),
        ('{"extra": {"title": "no"}, "title": "A" "content": "b"}', "A", "b", False),
        ("Plain words, no JSON.", "", "Plain words, no JSON.", False),
        ('{"other": 1}', "", '{"other": 1}', False),
        ("", "", "", False),
        ('{"title": "\\ud83d!", "content": "\\ude00"}', "\ufffd!", "\ufffd", False),
    ],
)
def test_what_is_readable_counts(text: str, title: str, content: str, last: bool) -> None:
    reader = read(text)
    assert (reader.title, reader.content, reader.is_last) == (title, content, last)


STEP = st.fixed_dictionaries(
    {
        "title": st.text(min_size=1),
        "content": st.text(min_size=1),
        "next_action": st.sampled_from(["continue", "final_answer"]),
    }
)


@given(STEP, st.booleans(), st.lists(st.integers(1, 40)))
def test_a_step_reads_alike_however_it_is_split(step: dict[str, str], ascii: bool, cuts: list[int]) -> None:
    text = json.dumps(step, ensure_ascii=ascii)
    reader = StepReader()
    pieces = []
    at = 0
    for size in [*cuts, len(text)]:
        pieces += reader.feed(text[at : at + size])
        at += size
    pieces += reader.finish()
    assert reader.title == step["title"]
    assert reader.content == step["content"]
    assert "".join(piece for field, piece in pieces if field == "content") == step["content"]
    assert reader.is_last == (step["next_action"] == "final_answer")


@given(st.lists(st.text()))
def test_any_text_is_a_step(texts: list[str]) -> None:
    reader = StepReader()
    told = [piece for text in texts for piece in reader.feed(text)] + reader.finish()
    assert "".join(text for field, text in told if field == "content") == reader.content
    if "".join(texts).strip():
        assert reader.content or reader.title


def test_content_comes_word_by_word() -> None:
    reader = StepReader()
    assert reader.feed('{"title": "A", "content": "on') == [("title", "A"), ("content", "on")]
    assert reader.feed("e") == [("content", "e")]


def test_the_same_words_are_the_same_step() -> None:
    assert same_words("Add 2 and 2.") == same_words("  add 2, and 2")
