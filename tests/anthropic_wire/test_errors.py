"""Anthropic's errors as ours."""

from __future__ import annotations

import json

import pytest

from server.anthropic_wire import anthropic_error, limit_reset
from server.anthropic_wire.errors import Fault, fault_error
from server.errors import MAX_WAIT_S

NOW = 1_750_000_000.0  # 2025-06-15T15:06:40Z
SOON = {
    "anthropic-ratelimit-requests-remaining": "0",
    "anthropic-ratelimit-requests-reset": "2025-06-15T15:07:10Z",
}
LATER = {
    "anthropic-ratelimit-tokens-remaining": "0",
    "anthropic-ratelimit-tokens-reset": "2025-06-15T15:08:40Z",
}


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({}, None),
        (SOON, 30),
        (SOON | LATER, 120),
        (SOON | LATER | {"anthropic-ratelimit-tokens-remaining": "9"}, 30),
        (SOON | {"anthropic-ratelimit-requests-reset": "2025-06-15T15:06:00Z"}, 0),
        (SOON | {"anthropic-ratelimit-requests-reset": "2099-06-15T15:06:00Z"}, MAX_WAIT_S),
        (SOON | {"anthropic-ratelimit-requests-reset": "soon"}, None),
    ],
)
def test_a_limit_that_is_used_up_tells_when_it_is_there_again(
    headers: dict[str, str], wait_s: float | None
) -> None:
    assert limit_reset(headers, now=lambda: NOW) == wait_s


def body(kind: str, message: str) -> bytes:
    return json.dumps(
        {"type": "error", "error": {"type": kind, "message": message}, "request_id": "r"}
    ).encode()


@pytest.mark.parametrize(
    ("status", "kind", "message", "ours", "code", "retryable"),
    [
        (400, "invalid_request_error", "max_tokens: must be above 0", 400, "invalid_request_error", False),
        (
            400,
            "invalid_request_error",
            "prompt is too long: 9 tokens > 8 maximum",
            400,
            "context_length_exceeded",
            False,
        ),
        (400, "invalid_request_error", "Your credit balance is too low", 429, "insufficient_quota", True),
        (401, "authentication_error", "invalid x-api-key", 502, "upstream_auth", True),
        (402, "billing_error", "pay", 429, "insufficient_quota", True),
        (403, "permission_error", "no", 502, "upstream_auth", True),
        (404, "not_found_error", "model: claude-x", 404, "model_not_found", False),
        (404, "not_found_error", "Not Found", 502, "upstream_error", True),
        (409, "conflict_error", "again", 502, "upstream_error", True),
        (413, "request_too_large", "Request exceeds the maximum size", 413, "request_too_large", False),
        (429, "rate_limit_error", "slow down", 429, "rate_limit_exceeded", True),
        (500, "api_error", "oops", 502, "upstream_error", True),
        (504, "timeout_error", "late", 504, "upstream_timeout", True),
        (529, "overloaded_error", "Overloaded", 503, "overloaded", True),
    ],
)
def test_each_error_is_one_of_ours_as_a_status_and_within_a_stream(
    status: int, kind: str, message: str, ours: int, code: str, retryable: bool
) -> None:
    for error in (anthropic_error(status, body(kind, message)), fault_error(Fault(kind, message))):
        assert (error.status, error.code, error.retryable) == (ours, code, retryable)
        assert error.upstream_status == status
        if ours in (400, 404, 413) or code == "rate_limit_exceeded":
            assert error.message == message


def test_a_wait_goes_along_where_waiting_helps() -> None:
    assert anthropic_error(429, body("rate_limit_error", "x"), wait_s=3).retry_after_s == 3
    assert anthropic_error(529, body("overloaded_error", "x"), wait_s=3).retry_after_s == 3
    assert anthropic_error(400, body("invalid_request_error", "x"), wait_s=3).retry_after_s is None


@pytest.mark.parametrize("garbage", [b"", b"<html>", b'{"error": "x"}', b"\xff"])
def test_a_body_that_cannot_be_read_leaves_the_status(garbage: bytes) -> None:
    assert anthropic_error(529, garbage).code == "overloaded"
    assert anthropic_error(400, garbage).code == "invalid_request_error"


@pytest.mark.parametrize("status", [400, 404, 422, 429])
def test_a_bad_key_is_never_taken_for_the_clients_whatever_the_status(status: int) -> None:
    error = anthropic_error(status, body("authentication_error", "invalid x-api-key"))
    assert (error.status, error.code) == (502, "upstream_auth")
    assert "x-api-key" not in error.message
