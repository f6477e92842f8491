"""Ollama's refusals as ours."""

from __future__ import annotations

import json

import pytest

from server.errors import (
    InsufficientQuota,
    Overloaded,
    RateLimited,
    UpstreamAuth,
    UpstreamError,
    UpstreamRefused,
    UpstreamTimeout,
)
from server.ollama_wire import ollama_error
from server.ollama_wire.errors import NOT_PULLED


@pytest.mark.parametrize(
    ("status", "said", "kind", "code"),
    [
        (400, "model is required", UpstreamRefused, "invalid_request_error"),
        (
            400,
            "registry.ollama.ai/library/m does not support tools",
            UpstreamRefused,
            "unsupported_parameter",
        ),
        (400, "the prompt exceeds the context window", UpstreamRefused, "context_length_exceeded"),
        (404, "model 'm' not found", UpstreamRefused, "model_not_found"),
        (500, "pull model manifest: file does not exist", UpstreamRefused, "model_not_found"),
        (401, "unauthorized", UpstreamAuth, "upstream_auth"),
        (429, "slow down", RateLimited, "rate_limit_exceeded"),
        (503, "server busy, please try again.  maximum pending requests exceeded", Overloaded, "overloaded"),
        (529, "", Overloaded, "overloaded"),
        (402, "", InsufficientQuota, "insufficient_quota"),
        (504, "", UpstreamTimeout, "upstream_timeout"),
        (500, "llama runner process has terminated", UpstreamError, "upstream_error"),
    ],
)
def test_each_is_what_it_means(status: int, said: str, kind: type, code: str) -> None:
    error = ollama_error(status, json.dumps({"error": said}).encode(), wait_s=3)
    assert (type(error), error.code, error.upstream_status, error.upstream_said) == (kind, code, status, said)
    assert error.retry_after_s == (3 if status in (402, 429, 503, 529) else None)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"error": {"message": "x"}}', b"\xff"])
def test_words_that_cannot_be_read_leave_the_status(body: bytes) -> None:
    assert type(ollama_error(500, body)) is UpstreamError
    assert ollama_error(400, body).message == "The upstream refused the request with status 400."


def test_a_model_that_is_not_pulled_has_a_mark() -> None:
    assert ollama_error(404, b'{"error": "model \'m\' not found"}').upstream_code == NOT_PULLED
