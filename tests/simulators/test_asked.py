from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.simulators.asked import read_chat, read_object, refuse, text_of
from server.simulators.errors import Refused
from server.simulators.script import Script

USER = {"role": "user", "content": "hi"}


def body(**fields: Any) -> bytes:
    return orjson.dumps({"model": "m", "messages": [USER], **fields})


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"model": None}, None, None),
        ({"model": ""}, None, None),
        ({"model": 3}, "model", "invalid_type"),
        ({"messages": None}, "messages", "missing_required_parameter"),
        ({"messages": []}, "messages", "empty_array"),
        ({"messages": "hi"}, "messages", "invalid_type"),
        ({"messages": [USER, "hi"]}, "messages[1]", "invalid_type"),
        ({"messages": [{"content": "hi"}]}, "messages[0].role", "missing_required_parameter"),
        ({"messages": [{"role": 1}]}, "messages[0].role", "invalid_type"),
        ({"messages": [{"role": "user", "content": {}}]}, "messages[0].content", "invalid_type"),
        ({"stream": "yes"}, "stream", "invalid_type"),
        ({"stream_options": {"include_usage": True}}, "stream_options", None),
        ({"stream": True, "stream_options": True}, "stream_options", "invalid_type"),
        ({"n": 0}, "n", "integer_below_min_value"),
        ({"n": 129}, "n", "integer_above_max_value"),
        ({"n": True}, "n", "invalid_type"),
        ({"temperature": -1}, "temperature", "decimal_below_min_value"),
        ({"temperature": 2.1}, "temperature", "decimal_above_max_value"),
        ({"temperature": "hot"}, "temperature", "invalid_type"),
        ({"tools": {}}, "tools", "invalid_type"),
        ({"logprobs": 1}, "logprobs", "invalid_type"),
    ],
)
def test_what_openai_refuses_is_refused(fields: dict[str, Any], param: str | None, code: str | None) -> None:
    with pytest.raises(Refused) as refused:
        read_chat(body(**fields))
    fault = refused.value.fault
    assert (fault.status, fault.type, fault.param, fault.code) == (400, "invalid_request_error", param, code)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"3", b'{"a": NaN}', b'"\xff"'])
def test_what_is_no_json_object_is_refused(data: bytes) -> None:
    with pytest.raises(Refused, match="JSON body"):
        read_object(data)


NAMES = st.sampled_from(["model", "messages", "role", "content", "stream", "n", "text"])
ATOMS = st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3)
ANY_JSON = st.recursive(
    ATOMS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4)
)


@given(ANY_JSON)
def test_any_json_is_read_or_refused(data: Any) -> None:
    try:
        read_chat(orjson.dumps(data))
    except Refused:
        pass  # the other allowed end


def test_null_is_as_good_as_absent() -> None:
    asked = read_chat(
        body(stream=None, n=None, temperature=None, tools=None, stream_options=None, logprobs=None)
    )
    assert (asked.stream, asked.n, asked.include_usage, asked.logprobs) == (False, 1, False, False)


def test_the_last_user_message_and_all_words_are_taken() -> None:
    parts = [
        {"type": "text", "text": "see"},
        {"type": "image_url", "image_url": {"url": "data:"}},
        {"text": "this"},
    ]
    messages = [
        {"role": "developer", "content": "be kind"},
        {"role": "user", "content": parts},
        {"role": "assistant", "content": None},
        {"role": "tool", "content": "a b c"},
    ]
    asked = read_chat(body(messages=messages, stream=True, stream_options={"include_usage": True}))
    assert asked.last_user == "see\nthis"
    assert asked.prompt_tokens == 7
    assert asked.include_usage


def test_content_of_no_known_kind_has_no_text() -> None:
    assert text_of([1, {"text": 2}, None]) == ""


def test_a_script_may_refuse_fields_and_plain_requests() -> None:
    asked = read_chat(body(seed=1))
    refuse(Script(refuse_fields=("stream_options",)), asked)
    with pytest.raises(Refused, match="Unrecognized request argument supplied: seed"):
        refuse(Script(refuse_fields=("seed",)), asked)
    with pytest.raises(Refused, match="only supports stream mode"):
        refuse(Script(needs_stream=True), asked)
