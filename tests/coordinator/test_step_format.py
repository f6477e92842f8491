"""How steps and the answer look to the client."""

from __future__ import annotations

import pytest

from server.coordinator.step_format import StepWriter
from server.deltas import Batch, Finished, Opening, Original, ReasoningDelta, TextDelta
from server.strategy_settings import Steps


def text(batch: Batch) -> str:
    return "".join(one.text for one in batch if isinstance(one, TextDelta | ReasoningDelta))


def test_a_heading_waits_for_the_whole_title_and_stands_before_the_content() -> None:
    writer = StepWriter(Steps())
    writer.begin()
    assert writer.step([("title", "Lo")]) == []
    assert writer.step([("title", "ok")]) == []
    assert text(writer.step([("content", "a")])) == "Step 1: Look\na"
    assert text(writer.step([("content", "b")])) == "b"
    assert text(writer.end()) == "\n\n"


def test_content_before_any_title_is_held_until_the_step_ends() -> None:
    writer = StepWriter(Steps(format="markdown"))
    writer.begin()
    assert writer.step([("content", "a")]) == []
    assert text(writer.end()) == "## Step 1: …\na"


@pytest.mark.parametrize("title", ["two\nlines", "a </summary> b"])
def test_a_title_cannot_break_its_heading(title: str) -> None:
    writer = StepWriter(Steps(format="details"))
    writer.begin()
    heading = text(writer.step([("title", title), ("content", "x")])).split("</summary>")
    assert len(heading) == 2
    assert heading[0].count("\n") == 1


def test_an_answer_keeps_the_bytes_it_came_in_but_for_its_opening() -> None:
    writer = StepWriter(Steps())
    writer.begin()
    opening = Opening(0, Original("openai.chunk", b"{1}"))
    first = TextDelta("a", 0, Original("openai.chunk", b""))
    second = TextDelta("b", 0, Original("openai.chunk", b"{2}"))
    end = Finished("stop", 0, Original("openai.chunk", b""))
    assert writer.answer([opening, first], 1) == [TextDelta("a")]
    assert writer.answer([second, end], 1) == [second, end]


def test_the_time_of_thought_stands_before_the_end() -> None:
    writer = StepWriter(Steps(show_time=True, format="markdown"))
    writer.begin()
    deltas = writer.answer([TextDelta("a"), Finished("stop")], 1.234)
    assert text(deltas) == "\n\n### Final Answer\na\n\n**Total thinking time: 1.23 seconds**"
    assert deltas[-1] == Finished("stop")
