"""What the statuses of upstreams mean, whatever their dialect."""

from __future__ import annotations

import pytest

from server.refusals import by_status, gave_up, refused


@pytest.mark.parametrize(
    ("status", "ours", "code"),
    [
        (401, 502, "upstream_auth"),
        (402, 429, "insufficient_quota"),
        (403, 502, "upstream_auth"),
        (407, 502, "upstream_auth"),
        (408, 504, "upstream_timeout"),
        (409, 502, "upstream_error"),
        (429, 429, "rate_limit_exceeded"),
        (500, 502, "upstream_error"),
        (503, 503, "overloaded"),
        (504, 504, "upstream_timeout"),
        (529, 503, "overloaded"),
    ],
)
def test_a_status_is_one_of_our_errors_and_another_channel_may_do_better(
    status: int, ours: int, code: str
) -> None:
    error = by_status(status)
    assert (error.status, error.code, error.retryable) == (ours, code, True)


def test_a_limit_is_told_in_the_upstreams_words_and_a_failure_never() -> None:
    assert by_status(429, "Ten a minute.").message == "Ten a minute."
    assert by_status(429).message
    assert "Oops" not in by_status(500, "Oops").message


def test_a_refused_request_keeps_its_status_and_what_was_said_of_it() -> None:
    error = refused(413, "Too long by 3.", "request_too_large")
    assert (error.status, error.message, error.code) == (413, "Too long by 3.", "request_too_large")
    bare = refused(422, "", None)
    assert (bare.status, bare.code, bare.retryable) == (422, "invalid_request_error", False)
    assert "422" in bare.message


def test_an_upstream_that_gave_up_may_be_asked_again() -> None:
    error = gave_up("It slept.")
    assert (error.status, error.code, error.message, error.retryable) == (
        504,
        "upstream_timeout",
        "It slept.",
        True,
    )
