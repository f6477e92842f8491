"""Every row of Spark's error table, and every refusal of its handshake."""

from __future__ import annotations

import pytest

from server.errors import AuthenticationError, InsufficientQuota, UpstreamAuth
from server.spark.codes import CODES, WAIT_S, frame_error, handshake_error, is_clock_refusal, kind_of

NO = "invalid_request_error"
ROWS = [
    (10000, "", 502, "server_error", "upstream_error", True),
    (10001, "", 502, "server_error", "upstream_error", True),
    (10002, "", 502, "server_error", "upstream_error", True),
    (10003, "ClientMsgError:(10:00:00.000) bad format", 400, NO, "invalid_request", False),
    (10003, "ClientMsgError:(10:00:00.000) invalid model domain", 404, NO, "model_not_found", False),
    (10004, "SchemaCheckError:(10:00:00.000) '$.header.uid' length", 400, NO, "invalid_request", False),
    (10004, "SchemaCheckError: '$.parameter.chat.domain'", 404, NO, "model_not_found", False),
    (10005, "wrong value", 400, NO, "invalid_parameter", False),
    (10005, "invalid param model:x", 404, NO, "model_not_found", False),
    (10006, "", 429, "rate_limit_error", "rate_limit_exceeded", True),
    (10007, "", 429, "rate_limit_error", "rate_limit_exceeded", True),
    (10008, "", 503, "server_error", "overloaded", True),
    (10009, "", 502, "server_error", "upstream_error", True),
    (10010, "RecvFromEngineError:Engine Busy", 503, "server_error", "overloaded", True),
    (10011, "", 502, "server_error", "upstream_error", True),
    (10012, "EngineInternalError:(10:00:00.403) oops", 500, "server_error", "upstream_error", True),
    (10012, "engine busy", 503, "server_error", "overloaded", True),
    (10012, "engine error 1105", 503, "server_error", "overloaded", True),
    (10012, "bad param", 400, NO, "invalid_request", False),
    (10012, "engine said 400", 400, NO, "invalid_request", False),
    (10012, "model_context_window_exceeded", 400, NO, "context_length_exceeded", False),
    (10012, "engine said 403", 403, "permission_error", "permission_denied", False),
    (10013, "", 400, NO, "content_filter", False),
    (10014, "", 400, NO, "content_filter", False),
    (10015, "", 403, "permission_error", "account_blocked", False),
    (10016, "", 403, "permission_error", "permission_denied", False),
    (10016, "concurrency above licence", 429, "rate_limit_error", "rate_limit_exceeded", True),
    (10017, "", 500, "server_error", "upstream_error", True),
    (10018, "", 504, "server_error", "upstream_timeout", True),
    (10019, "", 400, NO, "content_filter", False),
    (10021, "", 400, NO, "content_filter", False),
    (10022, "", 400, NO, "content_filter", False),
    (10029, "", 400, NO, "invalid_image", False),
    (10041, "", 400, NO, "invalid_image", False),
    (10110, "ServiceIsBusyError:Engine Busy", 503, "server_error", "overloaded", True),
    (10163, "'$.parameter.cbm.max_tokens'", 400, NO, "invalid_parameter", False),
    (10222, "AbnormalNetworkError", 502, "server_error", "upstream_error", True),
    (10223, "", 503, "server_error", "overloaded", True),
    (10300, "mom expired", 504, "server_error", "upstream_timeout", True),
    (10313, "invalid appid", 502, "server_error", "upstream_auth", True),
    (10404, "", 404, NO, "model_not_found", False),
    (10907, "", 400, NO, "context_length_exceeded", False),
    (11200, "AppIdNoAuthError:(10:00:00.000) domain.x", 403, "permission_error", "model_not_enabled", False),
    (11200, "AppIdNoAuthError: tokens.total", 429, "insufficient_quota", "insufficient_quota", True),
    (11201, "", 429, "rate_limit_error", "insufficient_quota", True),
    (11202, "AppIdQpsOverFlowError", 429, "rate_limit_error", "rate_limit_exceeded", True),
    (11203, "", 429, "rate_limit_error", "rate_limit_exceeded", True),
    (11210, "NotEnoughCvError", 429, "rate_limit_error", "rate_limit_exceeded", True),
    (11221, "", 403, "permission_error", "permission_denied", False),
    (10999, "new", 502, "server_error", "upstream_error", False),
    (18000, "", 502, "server_error", "upstream_error", False),
    (-1, "", 502, "server_error", "upstream_error", False),
    (10250, "", 502, "server_error", "upstream_error", True),
]


@pytest.mark.parametrize(("code", "said", "status", "type_", "name", "retryable"), ROWS)
def test_a_code_is_told_by_the_table(
    code: int, said: str, status: int, type_: str, name: str, retryable: bool
) -> None:
    error = frame_error(code, said, "cht1@dx2")
    assert (error.status, error.type, error.code) == (status, type_, name)
    assert error.retryable is retryable
    assert f"code {code}" in error.message
    assert said in error.message
    assert error.details == {"upstream_code": code, "sid": "cht1@dx2"}


def test_every_known_code_has_its_row() -> None:
    assert set(CODES) <= {row[0] for row in ROWS}


@pytest.mark.parametrize("code", [10006, 10007, 11202, 11203, 11210])
def test_limits_by_time_ask_for_a_second(code: int) -> None:
    assert kind_of(code).wait_s == 1
    assert frame_error(code, "", "").retry_after_s == 1


@pytest.mark.parametrize("code", [11200, 11201])
def test_a_spent_quota_is_one_that_sdks_must_not_repeat(code: int) -> None:
    error = frame_error(code, "tokens.total", "")
    assert isinstance(error, InsufficientQuota)
    assert error.should_retry is False


def test_a_code_without_a_session_tells_of_none() -> None:
    assert frame_error(10009, "", "").details == {"upstream_code": 10009}


def test_a_long_message_is_cut() -> None:
    assert len(frame_error(10009, "x" * 100_000, "").message) < 1000


def test_an_app_id_that_is_refused_is_the_callers_401_if_it_is_theirs() -> None:
    assert frame_error(10313, "", "", callers_own=True).status == 401
    assert frame_error(10313, "", "").status == 502


MISMATCH = b'{"message":"HMAC signature does not match"}'
CLOCK = (
    b'{"message":"HMAC signature cannot be verified, a valid date or x-date header is required for HMAC'
    b' Authentication"}'
)


@pytest.mark.parametrize(
    "body",
    [
        b'{"message":"Unauthorized"}',
        b'{"message":"HMAC signature cannot be verified"}',
        b'{"message":"HMAC signature cannot be verified: fail to retrieve credential"}',
        b'{"message":"HMAC signature cannot be verified: apikey not found"}',
        MISMATCH,
        b"",
        b"<html>",
    ],
)
def test_a_401_is_the_operators_trouble_or_the_callers_own(body: bytes) -> None:
    ours = handshake_error(401, body)
    assert isinstance(ours, UpstreamAuth)
    assert (ours.status, ours.code, ours.upstream_status) == (502, "upstream_auth", 401)
    theirs = handshake_error(401, body, callers_own=True)
    assert isinstance(theirs, AuthenticationError)
    assert (theirs.status, theirs.code) == (401, "invalid_api_key")


@pytest.mark.parametrize("body", [CLOCK, b"a valid date or x-date header is required", b"[1] date"])
def test_a_wrong_clock_is_never_the_callers_fault(body: bytes) -> None:
    assert is_clock_refusal(403, body)
    error = handshake_error(403, body, callers_own=True)
    assert (error.status, error.code) == (502, "upstream_auth")
    assert "clock" in error.message


@pytest.mark.parametrize(
    ("status", "body"),
    [(401, CLOCK), (403, MISMATCH), (403, b"\xff"), (403, b"{}"), (403, b"<p>Update your browser</p>")],
)
def test_another_refusal_is_none_of_the_clock(status: int, body: bytes) -> None:
    assert not is_clock_refusal(status, body)


@pytest.mark.parametrize(
    ("status", "told", "code", "retryable"),
    [
        (403, 502, "upstream_auth", True),
        (404, 502, "upstream_error", True),
        (429, 429, "rate_limit_exceeded", True),
        (500, 502, "upstream_error", True),
        (503, 503, "overloaded", True),
        (302, 502, "upstream_error", True),
    ],
)
def test_other_refusals_have_their_status(status: int, told: int, code: str, retryable: bool) -> None:
    error = handshake_error(status, b"<html>secret</html>", wait_s=7 if status == 503 else None)
    assert (error.status, error.code, error.retryable) == (told, code, retryable)
    assert "secret" not in error.message
    assert error.retry_after_s == {429: WAIT_S, 503: 7}.get(status)


def test_a_refusal_that_says_how_long_to_wait_is_heeded() -> None:
    assert handshake_error(429, b"", wait_s=7).retry_after_s == 7
