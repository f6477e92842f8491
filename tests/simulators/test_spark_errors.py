"""The words and statuses of Spark's codes, as they were documented or seen."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from server.simulators.spark_errors import (
    CODES,
    SparkFault,
    error_frame,
    http_error,
    http_status_of,
    message_of,
)

NOW = datetime(2026, 1, 2, 10, 0, 0, 7000, UTC)


@pytest.mark.parametrize(
    ("code", "detail", "said"),
    [
        (10003, "invalid model domain", "ClientMsgError:(10:00:00.007) invalid model domain"),
        (
            10004,
            "'$.header.uid' length must be less or equal than 32; ",
            "SchemaCheckError:(10:00:00.007) '$.header.uid' length must be less or equal than 32; ",
        ),
        (10010, None, "RecvFromEngineError:Engine Busy"),
        (10110, None, "ServiceIsBusyError:Engine Busy"),
        (
            10163,
            "'$.parameter.cbm.tool_choice' must be a string",
            "RequestParamsError:(10:00:00.007) '$.parameter.cbm.tool_choice' must be a string",
        ),
        (10222, None, "AbnormalNetworkError:(10:00:00.007) engine network abnormal"),
        (11200, "domain.generalv3", "AppIdNoAuthError:(10:00:00.007) domain.generalv3"),
        (11200, None, "AppIdNoAuthError:(10:00:00.007) tokens.total"),
    ],
)
def test_a_code_is_worded_as_it_was_seen(code: int, detail: str | None, said: str) -> None:
    assert message_of(code, detail, NOW) == said


def test_a_code_that_nobody_knows_has_words_too() -> None:
    assert message_of(19999, None, NOW).startswith("UnknownError:(10:00:00.007) ")


@pytest.mark.parametrize("code", sorted(CODES))
def test_an_error_is_one_frame_without_a_payload(code: int) -> None:
    header = error_frame(code, "no", "sid")["header"]
    assert error_frame(code, "no", "sid").keys() == {"header"}
    assert header == {"code": code, "message": "no", "sid": "sid", "status": 2}


@pytest.mark.parametrize(
    ("code", "status"), [(10003, 400), (10005, 400), (10907, 400), (10013, 400), (11200, 500), (11202, 500)]
)
def test_over_http_most_codes_hide_in_a_500(code: int, status: int) -> None:
    assert http_status_of(code) == status
    told = http_error(code, "said", "cha1")["error"]
    assert told["code"] == str(code)
    assert told["type"] == ("invalid_request_error" if status == 400 else "api_error")
    assert "(sid: cha1)" in told["message"]


def test_invalid_data_is_all_that_http_says_of_a_wrong_format() -> None:
    assert http_error(10003, "ClientMsgError: long", "c")["error"]["message"] == "invalid data (sid: c)"


def test_a_fault_tells_its_code_and_detail() -> None:
    fault = SparkFault(10004, "'$.x'")
    assert (fault.code, fault.detail, str(fault)) == (10004, "'$.x'", "'$.x'")
