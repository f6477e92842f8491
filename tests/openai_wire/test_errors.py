"""Errors both ways: an upstream's become ours by the table, ours become OpenAI's body, and nothing leaks."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.errors import (
    MAX_WAIT_S,
    AllMembersFailed,
    AuthenticationError,
    InsufficientQuota,
    NoChannel,
    RateLimited,
    UpstreamAuth,
)
from server.openai_wire import (
    clean,
    clean_error,
    error_body,
    error_event,
    error_headers,
    retry_after,
    upstream_error,
)

KEY = "sk-proj-abcdef1234567890"


def body(**fields: object) -> bytes:
    return json.dumps({"error": fields}).encode()


# Of vLLM (three ages of it), SGLang, llama.cpp and LM Studio.
TOO_LONG = (
    "This model's maximum context length is 6048 tokens. However, you requested 6616 tokens.",
    "The decoder prompt (length 9000) is longer than the maximum model length of 8192.",
    "You passed 9001 input tokens. However, the model's context length is only 8192 tokens.",
    "The input (90001 tokens) is longer than the model's context length (32768 tokens).",
    "the request exceeds the available context size. try increasing it",
    "Trying to keep the first 5000 tokens when context the overflows. It is loaded with 4096.",
)


@pytest.mark.parametrize(
    ("status", "data", "ours", "code"),
    [
        (
            400,
            body(message="bad", code="context_length_exceeded", param="messages"),
            400,
            "context_length_exceeded",
        ),
        (
            400,
            body(message="bad", code=400, type="exceed_context_size_error"),
            400,
            "context_length_exceeded",
        ),
        *(
            (400, json.dumps(fault).encode(), 400, "context_length_exceeded")
            for said in TOO_LONG
            for flat in ({"message": said, "type": "BadRequestError", "param": None, "code": 400},)
            for fault in ({"object": "error", **flat}, {"error": flat}, {"error": said})
        ),
        (400, body(message="maximum context length, you say?", code=400), 400, "400"),
        (400, body(message="bad", code="content_filter"), 400, "content_filter"),
        (413, body(message="big"), 413, "invalid_request_error"),
        (422, b'{"detail":"unknown field"}', 422, "invalid_request_error"),
        (404, body(message="no such model", code="model_not_found"), 404, "model_not_found"),
        (404, b"<html>", 502, "upstream_error"),
        (401, body(message="bad key"), 502, "upstream_auth"),
        (403, body(message="no"), 502, "upstream_auth"),
        (403, body(message="no", code="content_policy_violation"), 400, "content_filter"),
        (402, body(message="pay"), 429, "insufficient_quota"),
        (429, body(message="pay", code="insufficient_quota"), 429, "insufficient_quota"),
        (429, body(message="slow", code="rate_limit_exceeded"), 429, "rate_limit_exceeded"),
        (429, b"", 429, "rate_limit_exceeded"),
        (500, body(message="boom"), 502, "upstream_error"),
        (502, b"<html>bad gateway</html>", 502, "upstream_error"),
        (503, b"", 503, "overloaded"),
        (529, body(message="busy"), 503, "overloaded"),
        (408, b"", 504, "upstream_timeout"),
        (504, b"", 504, "upstream_timeout"),
    ],
)
def test_an_upstreams_answer_becomes_ours_by_the_table(
    status: int, data: bytes, ours: int, code: str
) -> None:
    error = upstream_error(status, data)
    assert (error.status, error.code, error.upstream_status) == (ours, code, status)
    assert isinstance(error.code, str)
    assert "<html>" not in error.message


@pytest.mark.parametrize(
    "data",
    [
        b'{"error":"slow down"}',
        b'{"code":1,"msg":"slow down"}',
        b'{"error_code":1,"error_msg":"slow down"}',
        b'[{"error":{"message":"slow down"}}]',
        b'"slow down"',
        b'{"header":{"code":1,"message":"slow down"}}',
        b'{"base_resp":{"status_code":1002,"status_msg":"slow down"}}',
    ],
)
def test_the_message_is_found_in_every_form(data: bytes) -> None:
    assert upstream_error(429, data).message == "slow down"


@pytest.mark.parametrize("form", ['{"detail":%s}', '{"object":"error","message":{"detail":%s},"type":"x"}'])
def test_a_field_at_fault_is_named(form: str) -> None:
    detail = (
        '[{"type":"extra_forbidden","loc":["body","messages",0,"x"],"msg":"Extra inputs are not permitted"}]'
    )
    error = upstream_error(422, (form % detail).encode())
    assert (error.status, error.param) == (422, "messages.0.x")
    assert error.message == "messages.0.x: Extra inputs are not permitted"


@pytest.mark.parametrize("detail", ["[]", "[1]", "[{}]", '[{"loc":3,"msg":{}}]', '[{"loc":[null,["a"]]}]'])
def test_odd_details_do_no_harm(detail: str) -> None:
    error = upstream_error(422, b'{"detail":%b}' % detail.encode())
    assert (error.status, error.message) == (422, "The upstream refused the request with status 422.")


def test_param_and_type_of_a_mistake_of_the_clients_go_on() -> None:
    error = upstream_error(
        400, body(message="too hot", param="temperature", type="invalid_request_error", code="x")
    )
    assert json.loads(error_body(error))["error"] == {
        "message": "too hot",
        "type": "invalid_request_error",
        "param": "temperature",
        "code": "x",
    }


@pytest.mark.parametrize(
    "leak",
    [
        KEY,
        "sk-ab**********cd",
        "Bearer abc.def",
        "https://user:pass@example.com/v1?key=1",
        "wss://spark.example.com/chat?authorization=x",
        "10.1.2.3:8080",
        "fe80:0:0:0:1:2:3:4",
        "channel-secret",
    ],
)
def test_nothing_of_the_operators_leaks(leak: str) -> None:
    assert leak not in clean(f"refused {leak} just so", secrets=("channel-secret",))


@pytest.mark.parametrize(
    "text",
    ["context length 8192 tokens, ratio 1.2.3", "at 12:30:45 today", "the key to it is asking", "a: b, c: d"],
)
def test_ordinary_words_stay(text: str) -> None:
    assert clean(text) == text


def test_the_upstreams_model_name_becomes_the_public_one_and_no_other_word_does() -> None:
    assert clean("gpt-4 and gpt-4-turbo", names={"gpt-4": "ours"}) == "ours and gpt-4-turbo"


def test_an_error_inside_a_200_is_told_with_its_own_status_or_with_none() -> None:
    """A made-up number would send the operator looking for an answer that never was."""
    assert "status" not in upstream_error(200, b'{"error":"kaput"}').message
    assert "status" not in upstream_error(200, b"[]").message
    assert "status 500" in upstream_error(200, body(message="x", code=500)).message
    assert "status 502" in upstream_error(502, b"<html>").message


def test_how_long_to_wait_is_read_in_every_form() -> None:
    def now() -> float:
        return 784111770.0  # 1994-11-06 08:49:30

    assert retry_after({"retry-after": "3"}, now=now) == 3
    assert retry_after({"retry-after": "1.5"}, now=now) == 1.5
    assert retry_after({"retry-after-ms": "250", "retry-after": "9"}, now=now) == 0.25
    assert retry_after({"retry-after": "Sun, 06 Nov 1994 08:49:37 GMT"}, now=now) == 7
    assert retry_after({"retry-after": "Sun, 06 Nov 1994 08:00:00 GMT"}, now=now) == 0
    assert retry_after({"retry-after": "soon"}, now=now) is None
    assert retry_after({"retry-after-ms": "soon", "retry-after": "2"}, now=now) == 2
    assert retry_after({}, now=now) is None


@pytest.mark.parametrize("name", ["retry-after", "retry-after-ms"])
@pytest.mark.parametrize("text", ["inf", "-inf", "nan", "1e999", "1_000", "\u0661", "", "1 2", "0x10"])
def test_what_only_python_takes_for_a_number_is_no_time_to_wait(name: str, text: str) -> None:
    assert retry_after({name: text}, now=lambda: 0.0) is None


@pytest.mark.parametrize("text", ["9" * 20, "9" * 400, "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_a_wait_beyond_all_measure_is_one_of_a_day(text: str) -> None:
    wait_s = retry_after({"retry-after": text}, now=lambda: 0.0)
    assert wait_s == MAX_WAIT_S
    assert error_headers(RateLimited("x", retry_after_s=wait_s))["Retry-After"] == "86400"


@given(st.text(), st.text())
def test_whatever_an_upstream_puts_there_can_be_told_to_the_client(seconds: str, milliseconds: str) -> None:
    wait_s = retry_after({"retry-after": seconds, "retry-after-ms": milliseconds}, now=lambda: 0.0)
    assert wait_s is None or 0 <= wait_s <= MAX_WAIT_S
    assert all(text.isdigit() for text in error_headers(RateLimited("x", retry_after_s=wait_s)).values())


def test_headers_say_when_and_whether_to_come_again() -> None:
    assert error_headers(RateLimited("x", retry_after_s=1.5)) == {
        "Retry-After": "2",
        "Retry-After-Ms": "1500",
    }
    assert error_headers(NoChannel("x")) == {}
    assert error_headers(InsufficientQuota("x")) == {"X-Should-Retry": "false"}
    assert error_headers(UpstreamAuth("x")) == {"X-Should-Retry": "false"}
    assert error_headers(AuthenticationError("x")) == {"WWW-Authenticate": 'Bearer realm="antiphon"'}


def test_the_body_is_openais_and_details_come_last() -> None:
    error = AllMembersFailed("x", details={"members": [{"id": "m1"}]})
    assert error_body(error) == (
        b'{"error":{"message":"x","type":"server_error","param":null,"code":"all_members_failed",'
        b'"details":{"members":[{"id":"m1"}]}}}'
    )
    assert error_event(error) == b"data: " + error_body(error) + b"\n\n"


@given(st.integers(100, 599), st.binary() | st.text().map(lambda text: json.dumps({"error": text}).encode()))
def test_whatever_an_upstream_says_it_becomes_an_error_that_can_be_told(status: int, data: bytes) -> None:
    error = upstream_error(status, data)
    assert 400 <= error.status <= 599
    assert json.loads(error_body(error))["error"]["message"]


def test_a_secret_in_code_type_or_param_is_taken_out_and_others_stay() -> None:
    error = RateLimited("Key sk-one-secret is odd.", code="sk-one-secret", param="x.sk-one-secret")
    clean_error(error, secrets=("sk-one-secret",), names={})
    assert (error.message, error.code, error.param) == ("Key *** is odd.", "rate_limit_exceeded", None)
    error.type = "sk-one-secret_error"
    clean_error(error, secrets=("sk-one-secret",), names={})
    assert error.type == "rate_limit_error"
    other = RateLimited("Wait.", code="too_fast", param="n")
    other.type = "slow_down"
    clean_error(other, secrets=("sk-one-secret",), names={})
    assert (other.message, other.code, other.param) == ("Wait.", "too_fast", "n")
    assert other.type == "slow_down"


@pytest.mark.parametrize("status", [400, 404, 422, 429])
@pytest.mark.parametrize(
    "fields",
    [{"code": "invalid_api_key"}, {"type": "authentication_error"}, {"code": "InvalidApiKey"}],
)
def test_a_bad_key_is_never_taken_for_the_clients_whatever_the_status(
    status: int, fields: dict[str, str]
) -> None:
    body = json.dumps({"error": {"message": "Incorrect API key provided.", **fields}}).encode()
    error = upstream_error(status, body)
    assert (error.status, error.code, error.type) == (502, "upstream_auth", "server_error")
    assert "API key" not in error.message
