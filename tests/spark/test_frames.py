"""What one frame of Spark's holds, in every shape that was documented or seen."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.errors import UpstreamInvalid
from server.spark.frames import Frame, Source, UsageText, decode_frame, decode_sources

SID = "cht000c0de0@dx18f0000000000a0001"


def read(header: dict[str, Any] | None = None, **payload: Any) -> Frame:
    head = {"code": 0, "message": "Success", "sid": SID, "status": 0} | (header or {})
    return decode_frame(json.dumps({"header": head, "payload": payload} if payload else {"header": head}))


def item(**fields: Any) -> Any:
    frame = read(choices={"status": 1, "seq": 0, "text": [fields]})
    assert frame.payload is not None
    assert frame.payload.choices is not None
    assert frame.payload.choices.text is not None
    return frame.payload.choices.text[0]


def test_a_frame_as_the_vendor_prints_it_is_read_whole() -> None:
    choices = {"status": 0, "seq": 0, "text": [{"content": "po", "role": "assistant", "index": 0}]}
    frame = read(choices=choices)
    assert (frame.header.code, frame.header.message, frame.header.sid) == (0, "Success", SID)
    assert frame.payload is not None
    assert frame.payload.choices is not None
    assert [one.content for one in frame.payload.choices.text or ()] == ["po"]
    assert not frame.is_last


@pytest.mark.parametrize(
    ("header", "choices", "last"),
    [
        (0, 0, False),
        (1, 1, False),
        (2, 2, True),
        (0, 2, True),
        (2, 0, True),
        (None, 2, True),
        (2, None, True),
    ],
)
def test_either_status_says_that_a_frame_is_the_last(
    header: int | None, choices: int | None, last: bool
) -> None:
    assert read({"status": header}, choices={"status": choices, "text": []}).is_last is last


def test_a_frame_without_choices_is_a_frame() -> None:
    frame = read({"status": 1}, plugins={"text": [{"name": "ifly_search", "content": "[]"}]})
    assert frame.payload is not None
    assert frame.payload.choices is None
    assert not frame.is_last


def test_an_errors_frame_has_no_payload() -> None:
    frame = read({"code": 10013, "status": 2})
    assert (frame.header.code, frame.payload, frame.is_last) == (10013, None, True)


@pytest.mark.parametrize("payload", [7, "no", [1], {"choices": 7}, {"choices": {"text": [7]}}])
def test_an_errors_code_is_read_though_its_payload_makes_no_sense(payload: Any) -> None:
    frame = decode_frame(json.dumps({"header": {"code": 11202}, "payload": payload}))
    assert (frame.header.code, frame.payload) == (11202, None)
    with pytest.raises(UpstreamInvalid):
        decode_frame(json.dumps({"header": {"code": 0}, "payload": payload}))


def test_numbers_may_be_written_as_strings() -> None:
    frame = decode_frame('{"header":{"code":"10013","status":"2"}}')
    assert (frame.header.code, frame.header.status) == (10013, 2)


def test_what_is_not_known_is_passed_over() -> None:
    frame = decode_frame(
        '{"header":{"code":0,"new":[{}]},"payload":{"question_type":"x","new":1},"more":null}'
    )
    assert frame.payload is not None


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"function_call": {"name": "f", "arguments": '{"a": 1}'}}, [("f", '{"a": 1}')]),
        ({"function_call": {"name": "f", "arguments": {"a": "ä"}}}, [("f", '{"a": "ä"}')]),
        ({"function_call": {"name": "f"}}, [("f", "")]),
        ({"function_call": {"name": "f", "arguments": ""}}, [("f", "")]),
        ({"tool_calls": {"type": "function", "function": {"name": "f", "arguments": "{}"}}}, [("f", "{}")]),
        (
            {
                "tool_calls": [
                    {"function": {"name": "f"}},
                    {"function": {"name": "g"}},
                    {"type": "web_search"},
                ]
            },
            [("f", ""), ("g", "")],
        ),
        ({"content": "none"}, []),
    ],
)
def test_calls_are_read_in_every_shape(fields: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    assert [(call.name, call.text) for call in item(**fields).calls] == expected


def test_reasoning_stands_beside_the_content() -> None:
    thought = item(content="", reasoning_content="hm")
    assert (thought.content, thought.reasoning_content) == ("", "hm")


def test_figures_are_flat_and_the_last_questions_own_is_kept_on_demand() -> None:
    figures = UsageText(question_tokens=1, prompt_tokens=3, completion_tokens=2, total_tokens=5)
    usage = figures.usage(legacy=False)
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens, usage.raw) == (3, 2, 5, None)
    legacy = msgspec.json.decode(figures.usage(legacy=True).raw or b"")
    assert legacy == {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5, "question_tokens": 1}


def test_a_sum_that_is_missing_is_made() -> None:
    assert UsageText(prompt_tokens=3, completion_tokens=2).usage(legacy=False).total_tokens == 5
    assert UsageText().usage(legacy=False).total_tokens == 0


@pytest.mark.parametrize("half", ["\\ud83d", "\\ude00"])
def test_half_a_character_does_not_spoil_a_frame(half: str) -> None:
    whole = f'{{"header":{{"code":0}},"payload":{{"choices":{{"text":[{{"content":"a{half}"}}]}}}}}}'
    for frame in (whole, whole.encode()):
        payload = decode_frame(frame).payload
        assert payload is not None
        assert payload.choices is not None
        assert payload.choices.text is not None
        assert payload.choices.text[0].content == "a" + json.loads(f'"{half}"')


@pytest.mark.parametrize(
    ("frame", "why"),
    [
        ("", "not JSON"),
        ("this is none", "not JSON"),
        (b"\x00\xff\xfe", "not JSON"),
        ('{"header":{"code":0}', "not JSON"),
        ("[]", "not in Spark's form"),
        ("null", "not in Spark's form"),
        ("{}", "not in Spark's form"),
        ('{"header":null}', "not in Spark's form"),
        ('{"header":{"message":"no code"}}', "not in Spark's form"),
        ('{"header":{"code":"many"}}', "not in Spark's form"),
        ('{"header":{"code":0},"payload":' + "[" * 100_000, "A frame of Spark's"),
    ],
)
def test_what_is_no_frame_is_an_invalid_answer_that_says_why(frame: str | bytes, why: str) -> None:
    with pytest.raises(UpstreamInvalid, match=why):
        decode_frame(frame)


@given(st.text() | st.binary())
def test_nothing_at_all_gets_anything_but_a_frame_or_an_invalid_answer(data: str | bytes) -> None:
    with suppress(UpstreamInvalid):
        assert isinstance(decode_frame(data), Frame)


def test_sources_are_a_string_of_json_within_the_json() -> None:
    pages = [{"index": 1, "url": "https://a", "title": "A"}, {"index": "2", "url": "https://b"}]
    assert decode_sources(json.dumps(pages)) == [Source("https://a", "A", 1), Source("https://b", "", "2")]


@pytest.mark.parametrize("content", [None, "", "no json", "{}", "7", "[[]]", "[7]", '[{"title": "no url"}]'])
def test_sources_that_cannot_be_read_are_none(content: str | None) -> None:
    assert decode_sources(content) == []


def test_one_bad_source_does_not_hide_the_others() -> None:
    assert decode_sources('[{"url": "https://a"}, {"title": "no url"}]') == [Source("https://a")]
