"""Spark's frames become deltas, in whatever pieces they come; what is no frame is an error."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.deltas import (
    Extra,
    Finished,
    Opening,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    Usage,
    UsageDelta,
)
from server.errors import RateLimited, ServerError, UpstreamError, UpstreamInvalid
from server.openai_wire import ChunkEncoder
from server.spark_ws import MODELS, SparkOptions, SparkProtocol, request_frame
from tests.spark.spark_chats import CREDENTIALS, chat
from tests.spark.spark_frames import (
    LAST,
    PLUGIN,
    SID,
    USAGE,
    USED,
    completion,
    error,
    frame,
    protocol,
    said,
    text,
)


def test_an_answer_of_several_frames_is_opened_told_finished_and_counted() -> None:
    assert said(text("po", 0), text("ng", 1), LAST) == [
        Opening(),
        TextDelta("po"),
        TextDelta("ng"),
        Finished("stop"),
        USED,
    ]


def test_the_last_frame_may_carry_text() -> None:
    assert said(text("po", 0), text("ng", 2, usage=USAGE))[1:] == [
        TextDelta("po"),
        TextDelta("ng"),
        Finished("stop"),
        USED,
    ]


@pytest.mark.parametrize(("header", "choices"), [(2, 2), (0, 2), (2, 0), (2, None)])
def test_either_status_ends_an_answer_of_one_frame(header: int, choices: int | None) -> None:
    whole = frame({"content": "pong"}, status=choices, own_status=header, usage=USAGE)
    assert said(whole) == [Opening(), TextDelta("pong"), Finished("stop"), USED]


def test_a_binary_frame_with_json_is_read_like_a_text_frame() -> None:
    assert said(text("pong", 2).encode()) == [Opening(), TextDelta("pong"), Finished("stop")]


def test_the_session_is_kept() -> None:
    wire = protocol()
    wire.receive(text("a", 0))
    assert wire.sid == SID


def test_the_figures_are_flat_and_question_tokens_stand_beside_them_on_demand() -> None:
    wire = protocol(options=SparkOptions(legacy_fields=True))
    usage = next(
        delta
        for delta in [*wire.receive(text("a", 2, usage=USAGE)), *wire.closed()]
        if isinstance(delta, UsageDelta)
    )
    assert wire.question_tokens == 1
    assert usage.usage.total_tokens == 5
    assert json.loads(usage.usage.raw or b"") == USAGE


def test_version_and_domain_stand_in_the_answer_on_demand() -> None:
    request = request_frame(chat(), MODELS["spark-pro"], CREDENTIALS)
    whole = text("a", 2, usage=USAGE)
    wire = SparkProtocol.answering(request, answer_id="a", options=SparkOptions(legacy_fields=True))
    deltas = [*wire.receive(whole), *wire.closed()]
    body = completion(deltas)
    assert (body["version"], body["domain"]) == ("v3.1", "generalv3")
    assert body["usage"] == USAGE
    assert body["choices"][0]["message"] == {"role": "assistant", "content": "a"}
    encoder = ChunkEncoder(model="m", id="i", created=1)
    chunks = [json.loads(line[6:]) for line in encoder.encode(deltas).decode().split("\n\n") if line]
    assert [chunk.get("domain") for chunk in chunks] == [None, "generalv3", None, None]
    assert "version" not in completion(SparkProtocol.answering(request, answer_id="a").receive(whole))


def test_missing_figures_are_not_an_error() -> None:
    assert said(text("a", 2))[-1] == Finished("stop")
    assert said(text("a", 2, usage={"completion_tokens": 7}))[-1] == UsageDelta(Usage(0, 7, 7))


def test_as_many_tokens_as_were_allowed_is_a_length() -> None:
    assert Finished("length") in said(text("a", 2, usage=USAGE), max_tokens=2)
    assert Finished("stop") in said(text("a", 2, usage=USAGE), max_tokens=3)


def test_reasoning_comes_before_text_and_stays_apart() -> None:
    thought = frame({"content": "", "reasoning_content": "hm"}, status=0)
    assert said(thought, text("a", 2))[1:3] == [ReasoningDelta("hm"), TextDelta("a")]


CALL = {"name": "weather", "arguments": '{"city":"合肥"}'}


@pytest.mark.parametrize(
    "item",
    [
        {"content": "", "content_type": "text", "function_call": CALL},
        {"content": None, "function_call": {"name": "weather", "arguments": {"city": "合肥"}}},
        {"tool_calls": {"type": "function", "function": CALL}},
        {"tool_calls": [{"type": "function", "function": CALL}]},
    ],
)
def test_a_function_call_is_one_tool_call_with_an_id_of_ours(item: dict[str, Any]) -> None:
    opening, call, finished = said(frame(item, status=2))
    assert isinstance(call, ToolCallDelta)
    assert (call.position, call.id, call.name) == (0, "call_a1_0", "weather")
    assert json.loads(call.arguments) == {"city": "合肥"}
    assert (opening, finished) == (Opening(), Finished("tool_calls"))


def test_a_call_in_pieces_is_one_call() -> None:
    first = frame({"function_call": {"name": "f", "arguments": '{"a"'}}, status=0)
    rest = frame({"function_call": {"arguments": ":1}"}}, status=2)
    message = completion(said(first, rest))["choices"][0]["message"]
    assert message["tool_calls"][0]["function"] == {"name": "f", "arguments": '{"a":1}'}
    assert message["content"] is None


def test_a_plugin_frame_without_choices_brings_sources_and_is_no_first_delta() -> None:
    wire = protocol()
    first = wire.receive(PLUGIN)
    assert [type(delta) for delta in first] == [Opening, Extra]
    assert [(one.url, one.title, one.index) for one in wire.sources] == [("https://a", "甲", 1)]
    body = completion([*first, *wire.receive(text("a", 2))])
    cited = {"index": 0, "type": "url_citation", "url_citation": {"url": "https://a", "title": "甲"}}
    assert body["choices"][0]["message"]["annotations"] == [cited]
    assert body["choices"][0]["message"]["content"] == "a"


def test_sources_reach_a_stream_too() -> None:
    encoder = ChunkEncoder(model="m", id="i", created=1)
    events = encoder.encode(said(PLUGIN, text("a", 2)))
    chunks = [json.loads(line[6:]) for line in events.decode().split("\n\n") if line]
    assert chunks[1]["choices"][0]["delta"]["annotations"][0]["url_citation"]["url"] == "https://a"
    assert {chunk["model"] for chunk in chunks} == {"m"}


@pytest.mark.parametrize("content", ["", None, "no json", "{}", "[[]]"])
def test_sources_that_cannot_be_read_do_not_spoil_the_answer(content: str | None) -> None:
    bad = json.loads(PLUGIN)
    bad["payload"]["plugins"]["text"][0]["content"] = content
    assert said(json.dumps(bad), text("a", 2)) == [Opening(), TextDelta("a"), Finished("stop")]


@pytest.mark.parametrize(
    "garbage",
    [
        "",
        "no",
        "[]",
        "null",
        "{}",
        '{"header":null}',
        '{"header":{}}',
        '{"header":{"code":"x"}}',
        '{"header":{"code":0},"payload":7}',
        '{"header":{"code":0},"payload":{"choices":{"text":{}}}}',
        '{"header":{"code":0},"payload":{"choices":{"text":[{"content":7}]}}}',
        '{"header":{"code":0}',
        '{"message":"Unauthorized"}',
        b"\x00\x01\x02",
        b"\xff\xfe{",
        "\ud800",
        '{"header":{"code":0},"payload":' + "[" * 100_000,
    ],
)
def test_what_is_no_frame_of_sparks_is_an_invalid_answer(garbage: str | bytes) -> None:
    wire = protocol()
    with pytest.raises(UpstreamInvalid, match="frame of Spark's"):
        wire.receive(garbage)
    assert wire.done


def test_numbers_as_strings_and_nulls_are_understood() -> None:
    body = {
        "header": {"code": "0", "message": None, "sid": None, "status": "2"},
        "payload": {"choices": {"status": None, "text": [{"content": "a"}]}, "usage": None, "plugins": None},
    }
    assert said(json.dumps(body)) == [Opening(), TextDelta("a"), Finished("stop")]
    with pytest.raises(UpstreamError, match="10009"):
        protocol().receive(json.dumps({"header": {"code": "10009"}}))


def test_a_character_split_between_frames_is_whole() -> None:
    deltas = said(text("a\ud83d", 0), text("\ude00", 1), text("\ud83d", 2))
    assert completion(deltas)["choices"][0]["message"]["content"] == "a😀\ufffd"


def test_half_a_character_in_an_errors_words_does_not_hide_the_error() -> None:
    with pytest.raises(RateLimited) as caught:
        protocol().receive(error(11202, "x\ud800"))
    caught.value.message.encode()


def test_text_ends_before_a_stop_word_and_the_answer_with_it() -> None:
    wire = protocol(stops=["END"])
    assert wire.receive(text("one E", 0)) == [Opening(), TextDelta("one ")]
    assert wire.receive(text("ND two", 1)) == [Finished("stop")]
    assert wire.done
    assert wire.closed() == ()


def test_a_stop_words_beginning_at_the_end_is_said() -> None:
    assert said(text("one E", 0), LAST, stops=["END"])[1:3] == [TextDelta("one "), TextDelta("E")]


def test_the_protocol_takes_its_measures_from_the_request() -> None:
    request = request_frame(chat(max_tokens=2, stop="x"), MODELS["spark-lite"], CREDENTIALS)
    wire = SparkProtocol.answering(request, answer_id="a")
    assert [*wire.receive(text("a", 2, usage=USAGE)), *wire.closed()][2] == Finished("length")


WHOLE = "合肥 😀 is\u2028 a city\n\nEND of it"


@given(
    st.lists(st.integers(0, len(WHOLE)), max_size=8),
    st.booleans(),
    st.sampled_from([(), ("END",), ("city",), ("absent", "d of it!")]),
)
def test_any_split_of_an_answer_into_frames_is_the_same_completion(
    cuts: list[int], own_last: bool, stops: tuple[str, ...]
) -> None:
    places = sorted({0, len(WHOLE), *cuts})
    pieces = [WHOLE[start:end] for start, end in itertools.pairwise(places)]
    frames = [frame({"reasoning_content": one, "content": ""}, status=0) for one in pieces]
    frames += [text(one, 1) for one in pieces[:-1]]
    frames += [text(pieces[-1], 1), LAST] if own_last else [text(pieces[-1], 2, usage=USAGE)]
    made = completion(said(*frames, stops=stops))
    one = frame({"reasoning_content": WHOLE, "content": WHOLE}, status=2, usage=USAGE)
    expected = completion(said(one, stops=stops))
    if "END" in stops or "city" in stops:  # cut before the figures came
        made["usage"] = expected["usage"]
    assert made == expected


@given(st.lists(st.text() | st.binary(), max_size=4))
def test_no_frame_at_all_gets_anything_but_a_server_error(frames: list[str | bytes]) -> None:
    with pytest.raises(ServerError):
        said(*frames)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.floats(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["choices", "text", "content", "status", "usage", "plugins"]), inner
        )
    ),
)


@given(JSON, st.sampled_from([0, 10014, 10019, 11200]))
def test_a_strange_payload_gives_deltas_or_a_server_error(payload: Any, code: int) -> None:
    wire = protocol()
    try:
        wire.receive(json.dumps({"header": {"code": code}, "payload": payload}))
        wire.closed()
    except ServerError:
        return
    assert wire.done
