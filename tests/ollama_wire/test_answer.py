"""Ollama's answers as deltas: whole, in lines split anywhere, cut, broken."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.deltas import (
    Delta,
    Extra,
    Finished,
    Opening,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    UsageDelta,
)
from server.errors import (
    ServerError,
    UpstreamCut,
    UpstreamEmpty,
    UpstreamError,
    UpstreamInvalid,
    UpstreamRefused,
)
from server.ollama_wire import MAX_ANSWER_BYTES, OllamaReader

FIGURES = {"prompt_eval_count": 26, "eval_count": 282, "total_duration": 4883583458, "load_duration": 7}


def line(done: bool = False, **fields: Any) -> bytes:
    message = {"role": "assistant", "content": fields.pop("content", ""), **fields.pop("message", {})}
    told = {"model": "m", "created_at": "2023", "message": message, "done": done, **fields}
    return json.dumps(told, ensure_ascii=False).encode() + b"\n"


CALL = {"function": {"name": "f", "arguments": {"a": "é\u2028", "b": [1]}}}
OTHER = {"id": "own", "function": {"name": "g", "arguments": {}}}
LINES = [
    line(message={"thinking": "hm "}),
    line(message={"thinking": "🙂"}),
    line(content="Hé}\u2028llo "),
    line(content="日本"),
    line(message={"tool_calls": [CALL, OTHER]}),
    line(done=True, done_reason="stop", **FIGURES),
]
WHOLE = b"".join(LINES)


def read(*pieces: bytes) -> list[Delta]:
    reader = OllamaReader("x")
    deltas: list[Delta] = []
    for piece in pieces:
        deltas += reader.feed(piece)
        if reader.done:
            break
    return [*deltas, *reader.eof()]


def said(deltas: Sequence[Delta]) -> tuple[str, str, list[tuple[Any, ...]], list[str]]:
    return (
        "".join(one.text for one in deltas if type(one) is TextDelta),
        "".join(one.text for one in deltas if type(one) is ReasoningDelta),
        [(one.position, one.id, one.name, one.arguments) for one in deltas if type(one) is ToolCallDelta],
        [one.reason for one in deltas if type(one) is Finished],
    )


EXPECTED = said(read(WHOLE))


def test_a_stream_says_what_its_lines_say() -> None:
    deltas = read(*LINES)
    assert deltas[0] == Opening()
    text, thought, calls, reasons = said(deltas)
    assert (text, thought, reasons) == ("Hé}\u2028llo 日本", "hm 🙂", ["tool_calls"])
    assert [(position, id, name) for position, id, name, _ in calls] == [
        (0, "call_x_0", "f"),
        (1, "own", "g"),
    ]
    assert json.loads(calls[0][3]) == {"a": "é\u2028", "b": [1]}
    last = deltas[-1]
    assert isinstance(last, UsageDelta)
    usage = last.usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (26, 282, 308)
    assert usage.raw is not None
    assert json.loads(usage.raw)["native_usage"] == FIGURES


@given(st.lists(st.integers(0, len(WHOLE)), max_size=8))
def test_however_it_is_split_it_says_the_same(at: list[int]) -> None:
    edges = sorted({0, *at, len(WHOLE)})
    assert said(read(*(WHOLE[start:end] for start, end in pairwise(edges)))) == EXPECTED


@pytest.mark.parametrize("at", range(0, len(WHOLE) - 2, 7))
def test_cut_anywhere_it_is_never_whole(at: int) -> None:
    with pytest.raises((UpstreamCut, UpstreamEmpty)):
        read(WHOLE[:at])


def test_a_whole_answer_is_a_line_without_its_end() -> None:
    whole = line(done=True, content="Hi", done_reason="length", message={"thinking": "hm"}, **FIGURES).strip()
    assert said(read(whole)) == ("Hi", "hm", [], ["length"])
    assert said(read(*(bytes([one]) for one in whole))) == ("Hi", "hm", [], ["length"])


def test_without_figures_there_is_no_usage() -> None:
    deltas = read(line(content="Hi"), line(done=True, done_reason="odd"))
    assert deltas[-1] == Finished("stop")
    cached = read(line(content="Hi"), line(done=True, eval_count=3))[-1]
    assert isinstance(cached, UsageDelta)
    assert cached.usage.prompt_tokens == 0


def test_a_reason_that_nobody_knows_is_told_in_its_own_word() -> None:
    *_, told, finished = read(line(content="Hi"), line(done=True, done_reason="odd"))
    assert finished == Finished("stop")
    assert isinstance(told, Extra)
    assert told.original is not None
    delta = json.loads(told.original.data)["choices"][0]["delta"]
    assert delta == {"native_fields": {"done_reason": "odd"}}


def test_figures_that_are_none_are_left_out() -> None:
    deltas = read(line(content="Hi"), line(done=True, eval_count=True, prompt_eval_count=-1))
    assert deltas[-1] == Finished("stop")


def test_an_error_in_midstream_comes_behind_what_was_said() -> None:
    reader = OllamaReader("x")
    deltas = reader.feed(line(content="Hi") + b'{"error": "an error was encountered"}\n')
    assert (said(deltas)[0], reader.done) == ("Hi", True)
    with pytest.raises(UpstreamError):
        reader.eof()


def test_an_error_alone_is_raised_at_once() -> None:
    with pytest.raises(UpstreamRefused) as raised:
        OllamaReader("x").feed(b'{"error": "model \'m\' not found"}\n')
    assert "not pulled" in raised.value.message


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", UpstreamEmpty),
        (b"\n\n", UpstreamEmpty),
        (line(done=True, done_reason="load"), UpstreamEmpty),
        (line(done=True, done_reason="stop", eval_count=0), UpstreamEmpty),
        (b"<html>\n", UpstreamInvalid),
        (b"garbage\n", UpstreamInvalid),
        (b"[1]\n", UpstreamInvalid),
        (b'{"choices": []}\n', UpstreamInvalid),
        (b'{"message": {"content": 7}}\n', UpstreamInvalid),
        (b'{"message": {"content": "Hi"', UpstreamCut),
        (b"data: {}", UpstreamInvalid),
        (line(content="Hi"), UpstreamCut),
    ],
)
def test_what_is_no_answer_is_told(body: bytes, kind: type[ServerError]) -> None:
    with pytest.raises(kind) as raised:
        read(body)
    assert type(raised.value) is kind


def test_nothing_but_a_length_is_an_answer() -> None:
    assert said(read(line(done=True, done_reason="length")))[3] == ["length"]


def test_blank_lines_are_quiet() -> None:
    reader = OllamaReader("x")
    assert (list(reader.feed(b"\n")), reader.quiet) == ([], True)
    reader.feed(b'{"mess')
    assert reader.quiet is False


def test_a_line_without_an_end_is_bounded() -> None:
    reader = OllamaReader("x")
    reader.feed(b" " * (MAX_ANSWER_BYTES // 2))
    with pytest.raises(UpstreamInvalid, match="too long"):
        reader.feed(b" " * (MAX_ANSWER_BYTES // 2 + 1))
    with pytest.raises(UpstreamInvalid):
        OllamaReader("x", line_bytes=3).feed(b"    ")


def test_a_line_that_is_no_json_is_passed_over_and_counted() -> None:
    reader = OllamaReader("x")
    end = line(done=True, done_reason="stop")
    pieces = (line(content="Hi"), b"{not json\n", b"\xff\n", end)
    deltas = [one for piece in pieces for one in reader.feed(piece)]
    assert said([*deltas, *reader.eof()])[0] == "Hi"
    assert reader.skipped == 2


def extras(deltas: Sequence[Delta]) -> list[dict[str, Any]]:
    return [
        json.loads(one.original.data)["choices"][0]["delta"]
        for one in deltas
        if type(one) is Extra and one.original is not None
    ]


def test_pictures_are_told_as_data_uris_by_their_first_bytes() -> None:
    deltas = read(
        line(message={"images": ["iVBORw0KGgoA", "/9j/4AAQ"]}),
        line(message={"images": ["UklGRkoA", "R0lGODlh", "AAAA"]}),
        line(done=True, done_reason="stop"),
    )
    first, second = extras(deltas)
    told = [*first["images"], *second["images"]]
    assert [one["index"] for one in told] == [0, 1, 2, 3, 4]
    kinds = [one["image_url"]["url"].partition(";")[0].removeprefix("data:image/") for one in told]
    assert kinds == ["png", "jpeg", "webp", "gif", "png"]


def test_fields_that_nobody_knows_are_told_once_at_the_end_as_they_came_last() -> None:
    known = {"model": "m", "remote_model": "far", "total_duration": 7}
    deltas = read(
        line(content="a", smell=["tea"], message={"mood": "good"}, odd=None),
        line(done=True, done_reason="stop", smell=["rose"], **known),
    )
    assert extras(deltas) == [{"native_fields": {"smell": ["rose"], "mood": "good"}}]
    assert [type(one) for one in deltas[-3:]] == [Extra, Finished, UsageDelta]
