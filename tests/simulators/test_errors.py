from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from server.simulators.errors import error_body, fault_of, retry_headers
from server.simulators.openai import OpenAISimulator
from server.simulators.script import Script
from tests.simulators.asking import answer

NOW = datetime(2026, 11, 21, 7, 0, 0, 900_000, tzinfo=UTC)


def shaped(form: Any, **fields: Any) -> Any:
    script = Script(status=429, error_form=form, error_message="Slow down", **fields)
    media, body = error_body(fault_of(script), script)
    assert media == "application/json"
    return orjson.loads(body)


@pytest.mark.parametrize(
    ("form", "shape"),
    [
        ("text", {"error": "Slow down"}),
        ("flat", {"code": 429, "message": "Slow down", "data": None}),
        ("msg", {"code": 429, "msg": "Slow down"}),
        ("codes", {"error_code": 429, "error_msg": "Slow down"}),
        ("header", {"header": {"code": 429, "message": "Slow down", "sid": "sim0001"}}),
        ("base_resp", {"base_resp": {"status_code": 429, "status_msg": "Slow down"}, "choices": None}),
        ("array", [{"error": {"code": 429, "message": "Slow down", "status": "UNAVAILABLE"}}]),
        ("string", "Slow down"),
    ],
)
def test_an_error_takes_a_vendors_shape(form: str, shape: Any) -> None:
    assert shaped(form) == shape


def test_an_error_takes_openais_shape() -> None:
    error = {"message": "Slow down", "type": "requests", "param": None, "code": "rate_limit_exceeded"}
    assert shaped("openai") == {"error": error}
    assert shaped("integer") == {"error": {**error, "code": 429}}
    assert shaped("vllm") == {"object": "error", **error, "code": 429}
    assert shaped("detail")["detail"][0]["msg"] == "Slow down"
    assert shaped("chunk")["choices"][0]["finish_reason"] == "error"
    assert shaped("openai", extras=True)["error"]["x_error"]


def test_an_errors_words_are_the_scripts() -> None:
    error = shaped("openai", error_type="t", error_code=1302, error_param="messages")["error"]
    assert (error["type"], error["code"], error["param"]) == ("t", 1302, "messages")
    assert shaped("base_resp", error_code=1008)["base_resp"]["status_code"] == 1008


def test_an_error_may_be_a_page_or_nothing() -> None:
    script = Script(status=502, error_form="html")
    media, body = error_body(fault_of(script), script)
    assert media == "text/html"
    assert body.startswith(b"<html>")
    assert error_body(fault_of(script), Script(error_form="empty"))[1] == b""


def test_retry_after_is_told_in_each_form() -> None:
    assert retry_headers(Script(), NOW) == []
    assert retry_headers(Script(retry_after=1.5), NOW) == [("retry-after", "1.5")]
    assert retry_headers(Script(retry_after=0.25, retry_after_form="ms"), NOW) == [("retry-after-ms", "250")]
    assert retry_headers(Script(retry_after=90, retry_after_form="date"), NOW) == [
        ("retry-after", "Sat, 21 Nov 2026 07:01:30 GMT")
    ]
    assert [name for name, _ in retry_headers(Script(retry_after=2, retry_after_form="both"), NOW)] == [
        "retry-after",
        "retry-after-ms",
    ]


@pytest.mark.parametrize(
    "status", [400, 401, 402, 403, 404, 408, 409, 413, 422, 429, 498, 500, 502, 503, 504, 529]
)
@pytest.mark.parametrize("stream", [True, False])
async def test_any_status_can_be_answered(sim: OpenAISimulator, status: int, stream: bool) -> None:
    got = await answer(sim, Script(status=status, retry_after=3), stream=stream)
    assert got.status == status
    assert got.headers["content-type"] == "application/json"
    assert got.headers["retry-after"] == "3"
    assert got.json()["error"]["message"]


async def test_an_error_may_come_with_status_200(sim: OpenAISimulator) -> None:
    got = await answer(sim, Script(error_after=0, error_form="msg", error_message="no"), stream=False)
    assert (got.status, got.json()) == (200, {"code": 500, "msg": "no"})
    got = await answer(sim, Script(error_after=0, answer_as="json"))
    assert (got.status, list(got.json())) == (200, ["error"])
    got = await answer(sim, Script(error_after=0))
    assert (got.status, got.body[:16]) == (200, b'data: {"error":{')
