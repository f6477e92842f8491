"""The signature is the vendor's, byte for byte; the clock is told by the refusal."""

from __future__ import annotations

import base64
import locale
import re
from datetime import UTC, datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.spark.signing import Credentials, clock_offset, signature, signed_url
from tests.spark.spark_chats import CREDENTIALS

AT = datetime(2024, 5, 6, 8, 0, 0, tzinfo=UTC)
VECTOR_A = (
    "wss://spark-api.xf-yun.com/v3.5/chat?authorization=YXBpX2tleT0idGVzdC1rZXktMDEyMzQ1Njc4OWFiY2RlZjAxMj"
    "M0NTYiLCBhbGdvcml0aG09ImhtYWMtc2hhMjU2IiwgaGVhZGVycz0iaG9zdCBkYXRlIHJlcXVlc3QtbGluZSIsIHNpZ25hdHVyZT0"
    "iNUIwSTB2ZEMwSGlScHZYRUF6TmRma0I2ekFndnpmSVh5WlZmTUNTNFpITT0i&date=Mon%2C+06+May+2024+08%3A00%3A00+GMT"
    "&host=spark-api.xf-yun.com"
)


def signature_in(url: str) -> str:
    authorization = base64.b64decode(parse_qs(urlsplit(url).query)["authorization"][0]).decode()
    found = re.search('signature="([^"]*)"', authorization)
    assert found is not None
    return found[1]


def test_vector_a_comes_out_byte_for_byte() -> None:
    assert signed_url("wss://spark-api.xf-yun.com/v3.5/chat", CREDENTIALS, AT) == VECTOR_A


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [
        ("wss://spark-api.xf-yun.com/v3.5/chat", "5B0I0vdC0HiRpvXEAzNdfkB6zAgvzfIXyZVfMCS4ZHM="),
        ("wss://spark-api.xf-yun.com/chat/pro-128k", "FzNDVeVAUWhnDi3gBkgv2bsTmAPUlpSU9bsxj9WIA9w="),
        (
            "wss://spark-api.cn-huabei-1.xf-yun.com/v2.1/image",
            "EIXcfxFlB7LYZFeJj9s6eksRYoSe6gFwO18U/V2sqAY=",
        ),
        ("ws://127.0.0.1:8765/v1.1/chat", "BhOp/o5lD3832GnMcpGlszD7yyJK7H5ro/t7QPyfRN0="),
    ],
)
def test_the_further_vectors_come_out(endpoint: str, expected: str) -> None:
    assert signature_in(signed_url(endpoint, CREDENTIALS, AT)) == expected


@pytest.mark.parametrize(
    ("secret", "host", "date", "line", "expected"),
    [
        (
            CREDENTIALS.api_secret,
            "spark-api.xf-yun.com",
            "Mon, 06 May 2024 08:00:00 UTC",
            "GET /v3.5/chat HTTP/1.1",
            "SUfqbRAg/Kp79h04m+03sbnYbqqPVPzxM5OINDCKhkM=",
        ),
        (
            "apisecretXXXXXXXXXXXXXXXXXXXXXXX",
            "api.xf-yun.com",
            "Fri, 23 Apr 2021 02:35:47 GMT",
            "POST /v1/private/s782b4996 HTTP/1.1",
            "1jwQbIAKmQE7JwIH0IDxiC1pejrlN+VpHXDWOFVy5NM=",
        ),
    ],
    ids=["vector b", "the vendor's example"],
)
def test_the_bare_signature_is_that_of_others(
    secret: str, host: str, date: str, line: str, expected: str
) -> None:
    assert signature(secret, host=host, date=date, request_line=line) == expected


def test_a_time_elsewhere_is_signed_as_utc() -> None:
    shanghai = AT.astimezone(timezone(timedelta(hours=8)))
    assert signed_url("wss://spark-api.xf-yun.com/v3.5/chat", CREDENTIALS, shanghai) == VECTOR_A


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="time zone"):
        signed_url("wss://spark-api.xf-yun.com/v3.5/chat", CREDENTIALS, AT.replace(tzinfo=None))


def test_the_date_is_english_and_has_a_day_of_two_digits_in_every_locale() -> None:
    before = locale.setlocale(locale.LC_TIME)
    try:
        for name in ("zh_CN.UTF-8", "de_DE.UTF-8", "C"):
            try:
                locale.setlocale(locale.LC_TIME, name)
            except locale.Error:
                continue  # not every machine has it
            assert "date=Mon%2C+06+May+2024" in signed_url("wss://h/p", CREDENTIALS, AT)
    finally:
        locale.setlocale(locale.LC_TIME, before)


def test_a_query_of_the_endpoint_is_not_signed_nor_sent() -> None:
    assert signed_url("wss://spark-api.xf-yun.com/v3.5/chat?a=b", CREDENTIALS, AT) == VECTOR_A


@given(st.integers(0, 2**33).map(lambda at: datetime.fromtimestamp(at, UTC)), st.text("ab=/+", min_size=1))
def test_what_is_signed_can_be_read_back(at: datetime, secret: str) -> None:
    url = signed_url("wss://h.example/x", Credentials("a", "k", secret), at)
    query = parse_qs(urlsplit(url).query, strict_parsing=True)
    assert query["host"] == ["h.example"]
    assert parsedate_to_datetime(query["date"][0]) == at.replace(microsecond=0)
    assert len(signature_in(url)) == 44


def test_credentials_never_show_in_a_repr() -> None:
    assert "test" not in repr(CREDENTIALS)
    assert "a1b2" not in f"{[CREDENTIALS]}"


def test_the_skew_is_learned_from_a_date_header() -> None:
    assert clock_offset("Mon, 06 May 2024 08:15:00 GMT", AT) == timedelta(minutes=15)
    assert clock_offset("Mon, 06 May 2024 07:45:00 GMT", AT) == timedelta(minutes=-15)


@pytest.mark.parametrize("date", [None, "", "yesterday", "Mon, 99 May 2024 08:15:00 GMT"])
def test_a_date_header_that_cannot_be_read_teaches_nothing(date: str | None) -> None:
    assert clock_offset(date, AT) is None
