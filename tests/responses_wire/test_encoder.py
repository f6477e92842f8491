"""The beginning of a stream, and how one ends that failed."""

from __future__ import annotations

import json

from server.deltas import Opening, Original, TextDelta, ToolCallDelta
from server.errors import RunCancelled, UpstreamCut
from server.responses_wire import Head, ResponseEncoder, Whole
from tests.responses_wire.spoken import events_of, joined

HEAD = Head("resp_1", "m", 5, {"store": True, "metadata": {"a": "b"}})


def encoder(kept: list[Whole] | None = None) -> ResponseEncoder:
    return ResponseEncoder(HEAD, summaries=False, keep=([] if kept is None else kept).append)


def test_a_stream_begins_with_the_response_as_it_stands() -> None:
    made = encoder()
    created, progress = events_of(made.encode([Opening()]))
    assert created["response"] == progress["response"]
    assert created["response"] | {"status": 0} == {
        "id": "resp_1",
        "object": "response",
        "created_at": 5,
        "status": 0,
        "error": None,
        "incomplete_details": None,
        "model": "m",
        "output": [],
        "usage": None,
        "store": True,
        "metadata": {"a": "b"},
    }
    assert b"response.created" not in made.encode([TextDelta("a")])


def test_an_answer_without_a_word_is_whole_all_the_same() -> None:
    told = joined(encoder().finish(None, b'{"level":"none"}'))
    assert (told["status"], told["output"], told["antiphon"]) == ("completed", [], {"level": "none"})
    assert told["usage"]["estimated"] is True


def test_a_failure_tells_what_there_is_and_is_kept() -> None:
    kept: list[Whole] = []
    made = encoder(kept)
    sent = made.encode([TextDelta("ab"), ToolCallDelta(0, "c", "f", '{"x')]) + made.fail(UpstreamCut("cut"))
    last = events_of(sent)[-1]
    assert last["type"] == "response.failed"
    response = last["response"]
    assert (response["status"], response["error"]) == ("failed", {"code": "upstream_cut", "message": "cut"})
    assert [item["status"] for item in response["output"]] == ["completed", "incomplete"]
    assert json.loads(kept[0].body) == response
    assert kept[0].output == [], "what was cut is nothing to go on from"


def test_a_failure_tells_what_of_its_answer_had_no_place() -> None:
    chunk = b'{"choices":[{"index":0,"delta":{"content":"a","odd":{"x":1}}}]}'
    made = encoder()
    said = made.encode([TextDelta("a", original=Original("openai.chunk", chunk))])
    response = events_of(said + made.fail(UpstreamCut("cut")))[-1]["response"]
    assert response["antiphon"] == {"warnings": ["odd was left out"]}


def test_a_failure_before_the_first_word_has_its_beginning_too() -> None:
    told = events_of(encoder().fail(RunCancelled("cancelled")))
    assert [event["type"] for event in told] == [
        "response.created",
        "response.in_progress",
        "response.failed",
    ]
    assert told[-1]["response"]["status"] == "cancelled"
