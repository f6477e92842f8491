"""The one hierarchy of failures: what each kind is on the wire, and which may be tried again."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from server import errors
from server.errors import (
    ImagesBusy,
    InsufficientQuota,
    InvalidRequest,
    Overloaded,
    ServerError,
    SurfaceNotOffered,
    UpstreamError,
    UpstreamTimeout,
)
from server.openai_wire import error_body, error_headers

# B31 to B39: status and type of each code; what is not here is no code of ours.
TABLE = {
    "internal_error": (500, "server_error"),
    "invalid_value": (400, "invalid_request_error"),
    "invalid_api_key": (401, "authentication_error"),
    "model_not_allowed": (403, "permission_error"),
    "model_not_found": (404, "invalid_request_error"),
    "not_found": (404, "invalid_request_error"),
    "method_not_allowed": (405, "invalid_request_error"),
    "request_timeout": (408, "invalid_request_error"),
    "conflict": (409, "invalid_request_error"),
    "events_expired": (410, "invalid_request_error"),
    "run_cancelled": (410, "invalid_request_error"),
    "request_too_large": (413, "invalid_request_error"),
    "unsupported_media_type": (415, "invalid_request_error"),
    "rate_limit_exceeded": (429, "rate_limit_error"),
    "insufficient_quota": (429, "insufficient_quota"),
    "invalid_request_error": (400, "invalid_request_error"),
    "surface_not_offered": (400, "invalid_request_error"),
    "content_filter": (400, "invalid_request_error"),
    "upstream_error": (502, "server_error"),
    "upstream_auth": (502, "server_error"),
    "upstream_unreachable": (502, "server_error"),
    "upstream_cut": (502, "server_error"),
    "upstream_empty": (502, "server_error"),
    "upstream_invalid": (502, "server_error"),
    "all_members_failed": (502, "server_error"),
    "overloaded": (503, "server_error"),
    "no_channel": (503, "server_error"),
    "shutting_down": (503, "server_error"),
    "upstream_timeout_total": (504, "server_error"),
}


def kinds(above: type[ServerError] = ServerError) -> Iterator[type[ServerError]]:
    """A kind of failure, and every kind below it in ``server.errors``."""
    yield above
    for kind in above.__subclasses__():
        if kind.__module__ == errors.__name__:
            yield from kinds(kind)


KINDS = list(kinds())


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_each_kind_has_the_status_and_type_of_its_code(kind: type[ServerError]) -> None:
    assert (kind.status, kind.type) == TABLE[kind.code]


def test_no_two_kinds_share_a_code_but_the_two_that_are_busy() -> None:
    """To a client they are one; to the router a full queue of our own is no reason to ask elsewhere."""
    codes = [kind.code for kind in KINDS if kind is not ImagesBusy]
    assert len(codes) == len(set(codes))
    assert ImagesBusy.code == Overloaded.code
    assert not ImagesBusy.retryable


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_mistake_of_the_client_is_never_tried_again(kind: type[ServerError]) -> None:
    if kind.status < 500 and kind.status != 429 and kind is not SurfaceNotOffered:
        assert not kind.retryable


def test_what_one_channel_does_not_offer_is_asked_of_another() -> None:
    assert SurfaceNotOffered.retryable


def test_upstreams_are_tried_again_whatever_their_fault() -> None:
    assert all(kind.retryable for kind in kinds(UpstreamError) if kind.code != "all_members_failed")


def test_a_spent_quota_is_not_repeated_by_the_client_but_may_be_by_another_channel() -> None:
    assert InsufficientQuota.retryable
    assert InsufficientQuota.should_retry is False


def test_what_is_given_counts_for_this_one_error_only() -> None:
    error = InvalidRequest("Say it better.", param="n", code="unsupported_parameter", status=422)
    assert (error.status, error.code, error.param, str(error)) == (
        422,
        "unsupported_parameter",
        "n",
        "Say it better.",
    )
    assert (InvalidRequest.status, InvalidRequest.code) == (400, "invalid_value")
    assert InvalidRequest("x").code == "invalid_value"


@pytest.mark.parametrize("clock", ["connect", "first_token", "idle", "total"])
def test_a_clock_that_ran_out_is_named_with_its_setting(clock: str) -> None:
    error = UpstreamTimeout(clock, 2.5)
    assert (error.status, error.code) == (504, f"upstream_timeout_{clock}")
    assert "2.5 s" in error.message
    assert f"{clock}_s" in error.message


def test_after_the_total_time_there_is_none_left_for_another_try() -> None:
    assert not UpstreamTimeout("total", 1).retryable
    assert UpstreamTimeout("first_token", 1).retryable


def test_an_unknown_clock_is_a_bug() -> None:
    with pytest.raises(KeyError):
        UpstreamTimeout("lunch", 1)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_on_the_wire_each_has_four_fields_and_no_name_of_ours(kind: type[ServerError]) -> None:
    if kind is UpstreamTimeout:
        error: ServerError = UpstreamTimeout("idle", 1)
    elif kind is errors.MethodNotAllowed:
        error = errors.MethodNotAllowed("No.", allow="GET")
    else:
        error = kind("No.")
    told = json.loads(error_body(error))["error"]
    assert set(told) == {"message", "type", "param", "code"}
    assert (told["type"], told["code"], told["param"]) == (kind.type, error.code, None)
    assert kind.__name__ not in json.dumps(told)
    assert re.fullmatch(r"[a-z][a-z_]*", told["code"])


def test_details_and_times_go_along() -> None:
    error = errors.Overloaded("No.", details={"members": [1]}, retry_after_s=1.25)
    assert json.loads(error_body(error))["error"]["details"] == {"members": [1]}
    headers = {name.lower(): value for name, value in error_headers(error).items()}
    assert (headers["retry-after"], headers["retry-after-ms"]) == ("2", "1250")
