"""What an upstream says reaches a client of streamed chats whole, however its bytes were split on the way."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.anthropic_wire import MessagesReader
from server.gemini_wire import GeminiReader
from server.ollama_wire import OllamaReader
from server.openai_wire import AnswerReader, ChunkEncoder
from server.simulators import anthropic_said, gemini_said, ollama_said
from server.simulators.asked import Asked
from server.simulators.said import Chunk, chunks, say
from server.simulators.script import Script, ToolCall
from server.simulators.steps import EventForm, Piece, event_steps
from server.upstreams.http_upstream import Reader
from tests.behaviour.asking import chunks_of, post
from tests.behaviour.kinds import kind_of
from tests.behaviour.running import ask

ASKED = Asked("m", True, False, 1, False, 3, "hi", frozenset())
LETTERS = st.characters(exclude_categories=["Cs"]) | st.sampled_from("\u2028\r\n\t\\\"'{}[]:🎶é日\x00\ufeff")
TEXTS = st.text(LETTERS, min_size=1, max_size=12)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
ARGUMENTS = st.dictionaries(TEXTS, VALUES, max_size=4)


def streamed(script: Script, form: EventForm, told: Iterator[Chunk]) -> bytes:
    steps = event_steps(script, form, told, lambda: Piece(b""))
    return b"".join(step.data for step in steps if isinstance(step, Piece))


def openai(**fields: Any) -> tuple[bytes, Reader]:
    script = Script(**fields)
    data = streamed(script, EventForm(script), chunks(script, ASKED, say(script, ASKED, 1)))
    return data, AnswerReader(stream=True)


def anthropic(**fields: Any) -> tuple[bytes, Reader]:
    script = anthropic_said.AnthropicScript(**fields)
    wire = anthropic_said.Wire(script, anthropic_said.say_anthropic(script, ASKED, 1), 1)
    return streamed(script, anthropic_said.NamedEvents(script), wire.events()), MessagesReader()


def gemini(**fields: Any) -> tuple[bytes, Reader]:
    script = gemini_said.GeminiScript(**fields)
    wire = gemini_said.Wire(script, gemini_said.told_in_all(say(script, ASKED, 1)), 1)
    return streamed(script, EventForm(script), wire.events()), GeminiReader("a1")


def ollama(**fields: Any) -> tuple[bytes, Reader]:
    script = ollama_said.OllamaScript(**fields)
    wire = ollama_said.Wire(script, say(script, ASKED, 1))
    return streamed(script, ollama_said.LineForm(script), wire.lines()), OllamaReader("a1")


def heard(body: bytes) -> tuple[str, str, list[tuple[str, Any]], str]:
    """Thoughts, text, calls and the finish reason, as a client puts them together."""
    thought = text = ""
    calls: dict[int, list[str]] = {}
    finish = []
    for chunk in chunks_of(body):
        for choice in chunk["choices"]:
            delta = choice["delta"]
            thought += delta.get("reasoning_content") or ""
            text += delta.get("content") or ""
            for call in delta.get("tool_calls") or ():
                known = calls.setdefault(call["index"], ["", ""])
                known[0] += call["function"].get("name") or ""
                known[1] += call["function"].get("arguments") or ""
            if choice["finish_reason"]:
                finish.append(choice["finish_reason"])
    (end,) = finish
    return thought, text, [(name, json.loads(arguments)) for name, arguments in calls.values()], end


@pytest.mark.parametrize("upstream", [openai, anthropic, gemini, ollama])
@given(
    thoughts=st.lists(TEXTS, max_size=3),
    texts=st.lists(TEXTS, max_size=4),
    arguments=st.lists(ARGUMENTS, max_size=3),
    pieces=st.integers(1, 9),
    data=st.data(),
)
@settings(max_examples=60, deadline=None)
def test_text_and_calls_survive_any_split(
    upstream: Callable[..., tuple[bytes, Reader]],
    thoughts: list[str],
    texts: list[str],
    arguments: list[dict[str, Any]],
    pieces: int,
    data: st.DataObject,
) -> None:
    if not texts and not arguments:
        texts = ["."]
    calls = tuple(
        ToolCall(name=f"f{at}", arguments=json.dumps(one, ensure_ascii=at % 2 == 0))
        for at, one in enumerate(arguments)
    )
    said, reader = upstream(reasoning=tuple(thoughts), pieces=tuple(texts), tools=calls, tool_pieces=pieces)
    cuts = data.draw(
        st.lists(st.integers(0, len(said)), max_size=20).map(sorted) | st.just([*range(len(said))])
    )
    encoder = ChunkEncoder(model="m", id="i", created=1)
    out = b""
    for begin, end in pairwise([0, *cuts, len(said)]):
        out += encoder.encode(reader.feed(said[begin:end]))
    out += encoder.encode(reader.eof()) + encoder.finish(None)
    assert heard(out) == (
        "".join(thoughts),
        "".join(texts),
        [(call.name, one) for call, one in zip(calls, arguments, strict=True)],
        "tool_calls" if calls else "stop",
    )


@pytest.mark.parametrize("size", [1, 3, 7])
async def test_text_and_calls_of_spark_survive_any_split_of_its_frames(size: int) -> None:
    arguments = {"city": "Paris – 巴黎 🎶", "deep": [{"\\": '"'}]}
    call = ToolCall(name="look", arguments=json.dumps(arguments, ensure_ascii=False))
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
    async with kind_of("spark") as kind:
        kind.say(text="日本 🎶\u2028é", chunks=5, fragment=size)
        answer = await post(kind.server, ask(kind.model, stream=True))
        assert heard(answer.body)[1:] == ("日本 🎶\u2028é", [], "stop")
        kind.say(text="", tools=(call,), fragment=size)
        answer = await post(kind.server, ask("spark-ultra", stream=True, tools=[tool]))
        assert heard(answer.body)[1:] == ("", [("look", arguments)], "tool_calls")
