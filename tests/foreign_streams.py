"""What the streams of other dialects are tested with: answers in any split, and events that bear names."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

from server.deltas import (
    Delta,
    Extra,
    Finished,
    Opening,
    Original,
    TextDelta,
    ToolCallDelta,
    Usage,
    UsageDelta,
)

Values = st.dictionaries(st.text(max_size=5), st.text(max_size=8) | st.integers(-9, 9), max_size=3)


def events_of(data: bytes) -> list[dict[str, Any]]:
    """The events of a stream, each under the name that its type is."""
    told = []
    for event in data.split(b"\n\n")[:-1]:
        name, _, line = event.partition(b"\n")
        fields = json.loads(line.removeprefix(b"data: "))
        assert name == b"event: " + fields["type"].encode()
        told.append(fields)
    return told


@st.composite
def call_pieces(draw: st.DrawFn) -> tuple[list[Delta], list[dict[str, Any]]]:
    """Calls whose arguments are split anywhere and come in any order, and what they say."""
    inputs = draw(st.lists(Values, min_size=1, max_size=3))
    queues: list[list[Delta]] = []
    for position, value in enumerate(inputs):
        text = json.dumps(value, ensure_ascii=draw(st.booleans()))
        cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=4)))
        parts = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        queues.append([ToolCallDelta(position, arguments=part) for part in parts])
    heads: list[Delta] = [ToolCallDelta(at, f"call_{at}", f"f{at}") for at in range(len(inputs))]
    if draw(st.booleans()):  # one after the other
        deltas = [d for head, queue in zip(heads, queues, strict=True) for d in (head, *queue)]
    else:
        deltas = list(heads)
        while queues := [queue for queue in queues if queue]:
            deltas.append(draw(st.sampled_from(queues)).pop(0))
    return deltas, inputs


def of_words_and_calls(words: list[str], calls: list[Delta]) -> list[Delta]:
    """A whole answer."""
    return [
        Opening(),
        *map(TextDelta, words),
        *calls,
        Finished("tool_calls"),
        UsageDelta(Usage(3, 2, 5)),
    ]


def beside(form: Any = "openai.chunk", **fields: Any) -> Delta:
    """What a chat has fields for and no delta a word."""
    where = "delta" if form == "openai.chunk" else "message"
    chunk = {"choices": [{"index": 0, where: fields}]}
    return Extra(Original(form, json.dumps(chunk).encode()))
