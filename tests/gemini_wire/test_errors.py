"""Gemini's refusals as our errors."""

from __future__ import annotations

import json
from typing import Any

import pytest

from server.errors import MAX_WAIT_S, RateLimited
from server.gemini_wire import gemini_error
from server.gemini_wire.errors import Fault, fault_error


def body(status: str, message: str = "No.", details: Any = None, code: int = 400) -> bytes:
    error = {"code": code, "message": message, "status": status}
    return json.dumps({"error": error | ({"details": details} if details is not None else {})}).encode()


def reason(word: str) -> list[dict[str, Any]]:
    info = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": word, "domain": "googleapis.com"}
    return [{"@type": "type.googleapis.com/google.rpc.Help"}, info]


TOO_LONG = "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576)."


@pytest.mark.parametrize(
    ("status", "data", "ours", "code"),
    [
        (400, body("INVALID_ARGUMENT"), 400, "invalid_request_error"),
        (400, body("INVALID_ARGUMENT", TOO_LONG), 400, "context_length_exceeded"),
        (
            400,
            body("INVALID_ARGUMENT", "API key not valid.", reason("API_KEY_INVALID")),
            502,
            "upstream_auth",
        ),
        (400, body("FAILED_PRECONDITION", "User location is not supported"), 502, "upstream_auth"),
        (
            400,
            body("INVALID_ARGUMENT", "Request payload size exceeds the limit: 1"),
            413,
            "request_too_large",
        ),
        (401, body("UNAUTHENTICATED"), 502, "upstream_auth"),
        (403, body("PERMISSION_DENIED"), 502, "upstream_auth"),
        (404, body("NOT_FOUND", "models/x is not found for API version v1beta"), 404, "model_not_found"),
        (404, body("NOT_FOUND", "Requested entity was not found."), 502, "upstream_error"),
        (413, b"", 413, "request_too_large"),
        (429, body("RESOURCE_EXHAUSTED"), 429, "rate_limit_exceeded"),
        (429, body("RESOURCE_EXHAUSTED", "Your prepayment credits are depleted."), 429, "insufficient_quota"),
        (499, body("CANCELLED"), 502, "upstream_error"),
        (500, body("INTERNAL"), 502, "upstream_error"),
        (503, body("UNAVAILABLE"), 503, "overloaded"),
        (504, body("DEADLINE_EXCEEDED"), 504, "upstream_timeout"),
        (502, b"<html>Bad gateway</html>", 502, "upstream_error"),
        (400, b"[" + body("INVALID_ARGUMENT", TOO_LONG) + b"]", 400, "context_length_exceeded"),
        (400, b"[]", 400, "invalid_request_error"),
        (400, b'{"error": {"details": {"odd": 1}, "message": "No."}}', 400, "invalid_request_error"),
    ],
)
def test_each_refusal_has_a_status_and_a_code(status: int, data: bytes, ours: int, code: str) -> None:
    error = gemini_error(status, data)
    assert (error.status, error.code, error.upstream_status) == (ours, code, status)


@pytest.mark.parametrize(
    ("delay", "seconds"), [("34s", 34.0), ("34.074824224s", 34.075), ("0s", 0.0), ("soon", None), (7, None)]
)
def test_the_details_tell_when_to_come_again(delay: Any, seconds: float | None) -> None:
    details = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay}]
    error = gemini_error(429, body("RESOURCE_EXHAUSTED", details=details))
    assert isinstance(error, RateLimited)
    assert error.retry_after_s == seconds


def test_a_header_that_tells_it_goes_before_the_details() -> None:
    details = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34s"}]
    assert gemini_error(429, body("RESOURCE_EXHAUSTED", details=details), wait_s=2).retry_after_s == 2


@pytest.mark.parametrize(
    ("fault", "ours"),
    [
        (Fault(503, "busy", "UNAVAILABLE"), 503),
        (Fault(None, "busy", "RESOURCE_EXHAUSTED"), 429),
        (Fault(429, "busy"), 429),
        (Fault("odd", "odd", "ODD"), 502),
    ],
)
def test_within_an_answer_the_name_or_the_code_tells_all(fault: Fault, ours: int) -> None:
    assert fault_error(fault).status == ours


@pytest.mark.parametrize("status", [400, 404, 429])
def test_a_bad_key_is_never_taken_for_the_clients_whatever_the_status(status: int) -> None:
    error = gemini_error(status, body("UNAUTHENTICATED", "Request had invalid authentication credentials."))
    assert (error.status, error.code) == (502, "upstream_auth")
    assert "credentials." not in error.message


def test_a_wait_of_years_is_taken_for_a_day() -> None:
    details = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "999999999s"}]
    error = gemini_error(429, body("RESOURCE_EXHAUSTED", details=details))
    assert error.retry_after_s == MAX_WAIT_S
