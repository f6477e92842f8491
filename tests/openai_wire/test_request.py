"""A client's bytes are taken in whole, or refused with the place of the fault."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.errors import InvalidRequest
from server.openai_wire import parse_chat

GOOD = b'{"model":"m","messages":[{"role":"user","content":"hi"}]}'


def refused(body: bytes) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        parse_chat(body)
    assert caught.value.status == 400
    return caught.value


def with_field(field: bytes) -> bytes:
    return GOOD[:-1] + b"," + field + b"}"


def test_the_bytes_are_kept_and_the_fields_read() -> None:
    body = b' {"model" : "m",\n"messages":[{"role":"developer","content":null,"x":1}],'
    body += b' "seed":12345678901234567890123, "y":1.0}'
    chat = parse_chat(body)
    assert chat.body == body
    assert chat.model == "m"
    assert chat.messages[0].role == "developer"


def test_a_byte_order_mark_is_passed_over() -> None:
    assert parse_chat(b"\xef\xbb\xbf" + GOOD).model == "m"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"  ",
        b"{",
        b"nonsense",
        GOOD + b"x",
        with_field(b'"x":NaN'),
        with_field(b'"x":-Infinity'),
        with_field(b'"x":"\xff"'),
        with_field(b'"x":"\\ud800"'),
        with_field(b'"x":"\\udc00\\ud800"'),
        with_field(b'"x":"a\nb"'),
        with_field(b'"x":' + b"[" * 300 + b"]" * 300),
        b"[" * 100_000,
    ],
)
def test_what_is_no_json_is_refused_as_such(body: bytes) -> None:
    assert refused(body).code == "invalid_json"


@pytest.mark.parametrize("body", [b"[]", b"3", b'"x"', b"null"])
def test_json_that_is_no_object_is_refused(body: bytes) -> None:
    assert "object" in refused(body).message


@pytest.mark.parametrize(
    "field", [b'"model":"other"', b'"mod\\u0065l":"other"', b'"messages":[]', b'"x":1,"x":1', b'"":1,"":2']
)
def test_a_key_that_stands_twice_is_refused(field: bytes) -> None:
    assert refused(with_field(field)).code == "duplicate_key"


def test_a_key_that_stands_twice_further_in_is_the_upstreams_to_judge() -> None:
    assert parse_chat(with_field(b'"x":{"a":1,"a":2}')).model == "m"


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        (b'{"messages":[{"role":"user"}]}', "model", "missing_required_parameter"),
        (b'{"model":null,"messages":[{"role":"user"}]}', "model", "missing_required_parameter"),
        (b'{"model":"","messages":[{"role":"user"}]}', "model", "missing_required_parameter"),
        (b'{"model":3,"messages":[{"role":"user"}]}', "model", "invalid_type"),
        (b'{"model":"m"}', "messages", "missing_required_parameter"),
        (b'{"model":"m","messages":[]}', "messages", "missing_required_parameter"),
        (b'{"model":"m","messages":{}}', "messages", "invalid_type"),
        (b'{"model":"m","messages":[3]}', "messages[0]", "invalid_type"),
        (b'{"model":"m","messages":[{"content":"x"}]}', "messages[0].role", "missing_required_parameter"),
        (b'{"model":"m","messages":[{"role":"u","content":3}]}', "messages[0].content", "invalid_type"),
        (
            b'{"model":"m","messages":[{"role":"u"},{"role":"u","content":[{"text":"x"}]}]}',
            "messages[1].content[0].type",
            "missing_required_parameter",
        ),
        (
            b'{"model":"m","messages":[{"role":"u","content":[{"type":"image_url","image_url":"http://x"}]}]}',
            "messages[0].content[0].image_url",
            "invalid_type",
        ),
        (
            b'{"model":"m","messages":[{"role":"u","content":[{"type":"image_url","image_url":{"url":"file:///x"}}]}]}',
            "messages[0].content[0].image_url.url",
            "invalid_value",
        ),
        (with_field(b'"stream":"yes"'), "stream", "invalid_type"),
        (with_field(b'"n":0'), "n", "invalid_value"),
        (with_field(b'"n":1.5'), "n", "invalid_type"),
        (with_field(b'"temperature":"hot"'), "temperature", "invalid_type"),
        (with_field(b'"stop":[1]'), "stop[0]", "invalid_type"),
        (with_field(b'"tools":{}'), "tools", "invalid_type"),
        (with_field(b'"response_format":[]'), "response_format", "invalid_type"),
        (with_field(b'"stream_options":true'), "stream_options", "invalid_type"),
    ],
)
def test_a_fault_names_its_place(body: bytes, param: str, code: str) -> None:
    error = refused(body)
    assert (error.param, error.code) == (param, code)


@pytest.mark.parametrize(
    "field",
    [
        b'"temperature":0',
        b'"seed":0',
        b'"max_tokens":0',
        b'"stop":null',
        b'"stream":null',
        b'"tools":[]',
        b'"x":{"deep":[{"y":null}]}',
        b'"thinking":{"type":"enabled"}',
    ],
)
def test_zeros_nulls_and_unknown_fields_are_welcome(field: bytes) -> None:
    assert parse_chat(with_field(field)).body == with_field(field)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(
    st.binary()
    | st.dictionaries(st.sampled_from(["model", "messages", "stream", "n", "tools", "stop"]), JSON).map(
        lambda value: json.dumps(value).encode()
    )
)
def test_whatever_comes_it_is_taken_in_or_the_clients_mistake(body: bytes) -> None:
    try:
        taken = parse_chat(body).messages
    except InvalidRequest:
        return  # a 400; anything else fails the test
    assert taken


@pytest.mark.parametrize("wrapper", ["body", "payload"])
def test_a_request_within_another_object_is_told_so(wrapper: str) -> None:
    inner = b'{"model": "m", "messages": [{"role": "user", "content": "hi"}]}'
    with pytest.raises(InvalidRequest, match=f"not an object with {wrapper} around it"):
        parse_chat(b'{"' + wrapper.encode() + b'": ' + inner + b"}")
