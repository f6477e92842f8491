"""The simulated Spark's door, by the vectors that six implementations agree on."""

from __future__ import annotations

import base64
from urllib.parse import quote, urlencode

import pytest

from server.simulators.spark_signature import SparkKey, Unverified, verify
from tests.simulators.spark_asking import authorization, signature

KEY = SparkKey("app", "test-key-0123456789abcdef0123456", "test-secret-ABCDEFGHIJKLMNOPQRST")
NOW = 1714982400.0
GMT, UTC = "Mon, 06 May 2024 08:00:00 GMT", "Mon, 06 May 2024 08:00:00 UTC"
HOST = "spark-api.xf-yun.com"
SIGNED = "5B0I0vdC0HiRpvXEAzNdfkB6zAgvzfIXyZVfMCS4ZHM="
VECTOR_A = (
    "/v3.5/chat?authorization=YXBpX2tleT0idGVzdC1rZXktMDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTYiLCBhbGdvcml0aG09ImhtYWMtc2hhMjU2"
    "IiwgaGVhZGVycz0iaG9zdCBkYXRlIHJlcXVlc3QtbGluZSIsIHNpZ25hdHVyZT0iNUIwSTB2ZEMwSGlScHZYRUF6TmRma0I2ekFndnpmSVh5WlZmT"
    "UNTNFpITT0i&date=Mon%2C+06+May+2024+08%3A00%3A00+GMT&host=spark-api.xf-yun.com"
)
VECTOR_B = (
    "aG1hYyB1c2VybmFtZT0idGVzdC1rZXktMDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTYiLCBhbGdvcml0aG09ImhtYWMtc2hhMjU2IiwgaGVhZGVycz0iaG9z"
    "dCBkYXRlIHJlcXVlc3QtbGluZSIsIHNpZ25hdHVyZT0iU1VmcWJSQWcvS3A3OWgwNG0rMDNzYm5ZYnFxUFZQenhNNU9JTkRDS2hrTT0i"
)


def target(
    date: str = GMT, host: str = HOST, path: str = "/v3.5/chat", signed: str | None = None, **more: str
) -> str:
    signed = signature(KEY.secret, host, date, path) if signed is None else signed
    query = {"authorization": authorization(KEY.key, signed, **more), "date": date, "host": host}
    return f"{path}?{urlencode(query)}"


def admitted(asked: str, now: float = NOW) -> bool:
    return verify("GET", asked, (SparkKey(), KEY), now, observed=False) is KEY


def refusal(asked: str, now: float = NOW, *, observed: bool = False) -> tuple[int, str]:
    with pytest.raises(Unverified) as refused:
        verify("GET", asked, (KEY,), now, observed=observed)
    return refused.value.status, refused.value.message


def test_the_published_vectors_are_admitted() -> None:
    assert signature(KEY.secret, HOST, GMT, "/v3.5/chat") == SIGNED
    assert admitted(VECTOR_A)
    assert admitted(f"/v3.5/chat?{urlencode({'host': HOST, 'date': UTC, 'authorization': VECTOR_B})}")


@pytest.mark.parametrize(
    ("path", "host", "signed"),
    [
        ("/chat/pro-128k", HOST, "FzNDVeVAUWhnDi3gBkgv2bsTmAPUlpSU9bsxj9WIA9w="),
        ("/v2.1/image", "spark-api.cn-huabei-1.xf-yun.com", "EIXcfxFlB7LYZFeJj9s6eksRYoSe6gFwO18U/V2sqAY="),
        ("/v1.1/chat", "127.0.0.1:8765", "BhOp/o5lD3832GnMcpGlszD7yyJK7H5ro/t7QPyfRN0="),
    ],
)
def test_further_signatures_are_admitted(path: str, host: str, signed: str) -> None:
    assert admitted(target(path=path, host=host, signed=signed))


def test_what_clients_were_seen_to_vary_is_admitted() -> None:
    assert admitted(target(comma=",         "))
    assert admitted(target(comma=","))
    assert admitted(target(field="hmac username"))
    raw = authorization(KEY.key, SIGNED)
    assert admitted(f"/v3.5/chat?host={HOST}&date={quote(GMT, safe=':,')}&authorization={raw}")


@pytest.mark.parametrize("ended", ["", "&authorization="])
def test_without_an_authorization_nobody_is_admitted(ended: str) -> None:
    assert refusal(f"/v3.5/chat?date={quote(GMT)}&host={HOST}{ended}") == (401, "Unauthorized")


@pytest.mark.parametrize("garbage", ["!!!", base64.b64encode(b"no fields").decode(), "/w=="])
def test_what_cannot_be_read_cannot_be_verified(garbage: str) -> None:
    asked = f"/v3.5/chat?{urlencode({'authorization': garbage, 'date': GMT, 'host': HOST})}"
    assert refusal(asked) == (401, "HMAC signature cannot be verified")


def test_an_unknown_key_is_refused_as_documented_or_as_seen() -> None:
    asked = target().replace("authorization=", "x=") + "&authorization=" + authorization("nobody", SIGNED)
    assert refusal(asked) == (401, "HMAC signature cannot be verified")
    seen = "HMAC signature cannot be verified: fail to retrieve credential"
    assert refusal(asked, observed=True) == (401, seen)


@pytest.mark.parametrize(
    "asked",
    [
        target().replace("/v3.5/", "/v4.0/"),
        target(signed=signature(KEY.secret, HOST, GMT, "/v3.5/chat?x=1")),
        target(signed=signature(KEY.secret, "elsewhere", GMT, "/v3.5/chat")),
        target(signed=signature(KEY.secret, HOST, GMT, "/v3.5/chat", "POST")),
        target(signed=signature("another", HOST, GMT, "/v3.5/chat")),
        target(signed="é"),
    ],
)
def test_a_signature_of_anything_else_does_not_match(asked: str) -> None:
    assert refusal(asked) == (401, "HMAC signature does not match")


@pytest.mark.parametrize(
    "date",
    ["", "yesterday", "Mon, 6 May 2024 08:00:00 GMT", "Mon, 06 May 2024 10:00:00 +0200",
     "Mo, 06 Mai 2024 08:00:00 GMT",
     "Fri, 31 Feb 2024 08:00:00 GMT"],
)  # fmt: skip
def test_a_date_in_another_form_is_refused(date: str) -> None:
    status, message = refusal(target(date=date))
    assert status == 403
    assert message.endswith("a valid date or x-date header is required for HMAC Authentication")


def test_a_clock_may_be_off_by_five_minutes_and_not_more() -> None:
    assert admitted(target(), NOW + 300)
    assert admitted(target(), NOW - 300)
    assert refusal(target(), NOW + 301)[0] == 403
    assert refusal(target(), NOW - 900)[0] == 403


def test_the_host_must_be_signed() -> None:
    fields = f'api_key="{KEY.key}", algorithm="hmac-sha256", headers="date", signature="{SIGNED}"'
    query = {"authorization": base64.b64encode(fields.encode()).decode(), "date": GMT, "host": HOST}
    assert "enforced header 'host'" in refusal(f"/v3.5/chat?{urlencode(query)}")[1]


def test_a_key_is_not_shown() -> None:
    assert KEY.secret not in repr(KEY)
