"""Every refusal: its status, its body, what it names, and that the next request succeeds."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from server.settings import Combination, Member, Settings, Summary
from server.simulators.openai import OpenAISimulator
from server.simulators.script import Script
from tests.behaviour.asking import (
    CHAT,
    asked,
    assert_nothing_left,
    both,
    error_of,
    get,
    get_request,
    post,
)
from tests.behaviour.running import QUIET, Antiphon, ask, channel

Pair = tuple[Antiphon, OpenAISimulator]


def settings(sim: OpenAISimulator) -> Settings:
    panel = Combination(name="panel", members=(Member(model="m"),), summary=Summary(model="m"), quorum=1)
    return Settings(channels=(channel(sim, "m", "mistral"),), combinations=(panel,), logging=QUIET)


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    async with both(settings) as pair:
        yield pair
        server, _sim = pair
        assert (await post(server, ask())).status == 200, "after any fault the next request succeeds"
        assert_nothing_left(server)


GOOD = b'{"model":"m","messages":[{"role":"user","content":"x"}]'


def deep(depth: int) -> bytes:
    return (
        b'{"model":"m","messages":[{"role":"user","content":"x"}],"x":' + b"[" * depth + b"]" * depth + b"}"
    )


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"  \n",
        b"{",
        b"{]",
        b'{"model":',
        b"\xff\xfe{}",
        GOOD + b',"x":NaN}',
        GOOD + b',"x":Infinity}',
        GOOD + b',"x":-Infinity}',
        GOOD + b',"x":"\\ud800"}',
        GOOD + b',"x":"\xed\xa0\x80"}',
        GOOD + b',"x":"\xff"}',
        GOOD + b',"x":1e}',
        GOOD + b',"x":01}',
        GOOD + b',"x":"\x01"}',
        GOOD + b",}",
        GOOD + b"}{}",
        GOOD + b"} trailing",
        deep(300),
        deep(100_000),
    ],
    ids=range(20),
)
async def test_what_is_no_json_is_a_400(pair: Pair, body: bytes) -> None:
    server, sim = pair
    assert error_of(await post(server, body), 400)["code"] == "invalid_json"
    assert not sim.requests


@pytest.mark.parametrize("body", [b"[]", b'"text"', b"1", b"null", b"true"])
async def test_json_that_is_no_object_is_a_400(pair: Pair, body: bytes) -> None:
    server, _sim = pair
    error_of(await post(server, body), 400)


async def test_a_byte_order_mark_is_skipped_and_nesting_within_reason_passes(pair: Pair) -> None:
    server, _sim = pair
    assert (await post(server, b"\xef\xbb\xbf" + GOOD + b"}")).status == 200
    assert (await post(server, deep(200))).status == 200


@pytest.mark.parametrize("name", ["model", "messages", "x"])
async def test_a_key_given_twice_is_a_400(pair: Pair, name: str) -> None:
    server, sim = pair
    body = GOOD + b',"x":1,"%b":1}' % name.encode() if name == "x" else GOOD + b',"%b":"y"}' % name.encode()
    assert error_of(await post(server, body), 400)["code"] == "duplicate_key"
    assert not sim.requests


USER = {"role": "user", "content": "x"}


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"model": None}, "model", "missing_required_parameter"),
        ({"model": ""}, "model", "missing_required_parameter"),
        ({"model": 5}, "model", "invalid_type"),
        ({"model": ["m"]}, "model", "invalid_type"),
        ({"messages": None}, "messages", "missing_required_parameter"),
        ({"messages": []}, "messages", "missing_required_parameter"),
        ({"messages": "x"}, "messages", "invalid_type"),
        ({"messages": [USER, "x"]}, "messages[1]", "invalid_type"),
        ({"messages": [USER, USER, {"content": "x"}]}, "messages[2].role", "missing_required_parameter"),
        ({"messages": [{"role": 1, "content": "x"}]}, "messages[0].role", "invalid_type"),
        ({"messages": [{"role": "user", "content": 1}]}, "messages[0].content", "invalid_type"),
        ({"messages": [{"role": "user", "content": ["x"]}]}, "messages[0].content[0]", "invalid_type"),
        ({"stream": "yes"}, "stream", "invalid_type"),
        ({"stream": 1}, "stream", "invalid_type"),
        ({"n": 0}, "n", "invalid_value"),
        ({"n": -1}, "n", "invalid_value"),
        ({"n": "2"}, "n", "invalid_type"),
        ({"n": 1.5}, "n", "invalid_type"),
        ({"temperature": "hot"}, "temperature", "invalid_type"),
        ({"stop": 5}, "stop", "invalid_type"),
        ({"stop": [5]}, "stop[0]", "invalid_type"),
        ({"tools": {}}, "tools", "invalid_type"),
        ({"response_format": "json"}, "response_format", "invalid_type"),
        ({"stream_options": True}, "stream_options", "invalid_type"),
    ],
)
async def test_a_wrong_field_is_named(pair: Pair, fields: dict[str, Any], param: str, code: str) -> None:
    server, sim = pair
    error = error_of(await post(server, {**ask(), **fields}), 400)
    assert (error["param"], error["code"], error["type"]) == (param, code, "invalid_request_error")
    assert not sim.requests


@pytest.mark.parametrize("name", ["stream", "n", "temperature", "stop", "tools", "response_format"])
async def test_null_is_as_good_as_absent(pair: Pair, name: str) -> None:
    server, _sim = pair
    assert (await post(server, {**ask(), name: None})).status == 200


async def test_an_unknown_model_is_a_404_with_the_nearest_names(pair: Pair) -> None:
    server, sim = pair
    for stream in (True, False):
        error = error_of(await post(server, ask("mistrall", stream=stream)), 404)
        assert (error["code"], error["param"]) == ("model_not_found", "model")
        assert "mistral" in error["message"]
    assert not sim.requests
    error_of(await post(server, ask("x" * 1_000_000)), 404)


async def test_a_wish_for_the_default_is_answered_by_the_default_combination() -> None:
    def lenient(sim: OpenAISimulator) -> Settings:
        given = settings(sim)
        fields = {name: getattr(given, name) for name in ("channels", "combinations", "logging")}
        return Settings(**fields, unknown_model="default", default_combination="panel")

    async with both(lenient) as (server, _sim):
        assert (await post(server, ask("nonsense"))).json()["model"] == "nonsense"
        body = {"messages": [USER]}
        assert (await post(server, body)).json()["model"] == "panel"


# Paths and methods


@pytest.mark.parametrize(
    "path",
    [
        "/v2/models",
        "//",
        "/../etc/passwd",
        "/%00",
        "/v1/chat",
        "/%e4%b8",
        "/v1/../x",
        "/.env",
        "/x" * 4000,
    ],
)
async def test_odd_paths_are_404_or_400(pair: Pair, path: str) -> None:
    server, _sim = pair
    answer = await get(server, path)
    assert answer.status in (400, 404)
    error_of(answer, answer.status)


async def test_a_path_that_is_too_long_is_refused(pair: Pair) -> None:
    server, _sim = pair
    answer = await get(server, "/" + "x" * 100_000)
    assert answer.status in (400, 414, 431)
    error_of(answer, answer.status)


@pytest.mark.parametrize("path", ["/v1/v1/chat/completions", "/v1/v1/models"])
async def test_a_doubled_v1_is_told(pair: Pair, path: str) -> None:
    server, _sim = pair
    error = error_of(await post(server, ask(), path=path), 404)
    assert "/v1 twice" in error["message"]


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", CHAT, {"POST", "OPTIONS"}),
        ("DELETE", "/v1/models", {"GET", "HEAD", "OPTIONS"}),
        ("PUT", "/healthz", {"GET", "HEAD", "OPTIONS"}),
        ("PATCH", CHAT, {"POST", "OPTIONS"}),
    ],
)
async def test_a_wrong_method_is_a_405_that_lists_the_right_ones(
    pair: Pair, method: str, path: str, allow: set[str]
) -> None:
    server, _sim = pair
    answer = await get(server, path, method=method)
    assert error_of(answer, 405)["code"] == "method_not_allowed"
    assert set(answer.headers["allow"].split(", ")) == allow


async def test_an_error_to_head_has_the_headers_and_no_body(pair: Pair) -> None:
    server, _sim = pair
    request = get_request("/nowhere", method="HEAD") + get_request("/healthz", "Connection: close")
    async with asked(server, request) as raw:
        answer = await raw.answer(to_head=True)
        assert answer.status == 404
        assert int(answer.headers["content-length"]) > 0
        assert (await raw.answer()).json()["status"] == "healthy"


# Upstreams that fail


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("script", "status", "code"),
    [
        (Script(status=400, error_code="odd"), 400, "odd"),
        (Script(status=400, error_code=17), 400, "17"),
        (Script(status=422), 422, None),
        (Script(status=401), 502, "upstream_auth"),
        (Script(status=403), 502, "upstream_auth"),
        (Script(status=402), 429, "insufficient_quota"),
        (Script(status=500), 502, "upstream_error"),
        (Script(status=502, error_form="html"), 502, "upstream_error"),
        (Script(status=503), 503, "overloaded"),
        (Script(status=529), 503, "overloaded"),
        (Script(status=504), 504, None),
        (Script(status=500, error_form="empty"), 502, "upstream_error"),
        (Script(error_after=0), 502, "upstream_error"),
        (Script(cut_after=0), 502, None),
        (Script(cut_head_at=0), 502, None),
        (Script(body="<html>", content_type="text/html"), 502, "upstream_invalid"),
        (Script(body="{}"), 502, "upstream_invalid"),
        (Script(body=""), 502, None),
    ],
)
async def test_an_upstreams_failure_has_its_own_status(
    pair: Pair, script: Script, status: int, code: str | None, stream: bool
) -> None:
    server, sim = pair
    sim.script(script, times=3)
    error = error_of(await post(server, ask(stream=stream)), status)
    if code is not None:
        assert error["code"] == code
    assert "html" not in error["message"]
    async with server.client.delete(f"{sim.url}/sim/script") as cleared:
        assert cleared.status < 300


async def test_a_retry_time_of_the_upstreams_goes_on_to_the_client(pair: Pair) -> None:
    server, sim = pair
    sim.script(Script(status=429, retry_after=77), times=3)
    answer = await post(server, ask("mistral"))
    assert error_of(answer, 429)["code"] == "rate_limit_exceeded"
    assert 70 <= int(answer.headers["retry-after"]) <= 77
    assert 70_000 <= int(answer.headers["retry-after-ms"]) <= 77_000
    async with server.client.delete(f"{sim.url}/sim/script") as cleared:
        assert cleared.status < 300


@pytest.mark.parametrize("stream", [False, True])
async def test_a_retry_time_that_is_none_is_not_told(pair: Pair, stream: bool) -> None:
    """Python takes ``inf`` for a number: made seconds of, it would be a bug of ours, told as a 500."""
    server, sim = pair
    sim.script(Script(status=429, headers={"Retry-After": "inf"}), times=2)
    answer = await post(server, ask(stream=stream))
    error_of(answer, 429)
    assert "retry-after" not in answer.headers


async def test_a_bug_of_ours_is_a_500_that_tells_nothing(
    pair: Pair, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, _sim = pair

    def broken(*_anything: object, **_more: object) -> None:
        raise RuntimeError("the secret inside")

    with monkeypatch.context() as patched:
        patched.setattr("server.handlers.chat.parse_chat", broken)
        answer = await post(server, ask(), "x-request-id: find-me")
    error = error_of(answer, 500)
    assert (error["code"], error["type"]) == ("internal_error", "server_error")
    assert b"secret" not in answer.body
    (told,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert "find-me" in told.getMessage()
    assert told.exc_info is not None


# Fuzz

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
NAMES = """model messages stream n temperature stop tools tool_choice response_format stream_options
max_tokens logprobs user seed metadata logit_bias modalities functions parallel_tool_calls top_p"""
FIELDS = st.sampled_from(NAMES.split())
MESSAGE_FIELDS = st.sampled_from(["role", "content", "name", "tool_calls"])
WHOLE = json.dumps(
    ask(
        "m",
        n=1,
        stop=["x"],
        tools=[{"type": "function", "function": {"name": "f"}}],
        stream_options={"include_usage": True},
    )
).encode()


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A valid request with something wrong in it, mostly."""
    fields = json.loads(WHOLE) | draw(st.dictionaries(FIELDS, JSON, max_size=3))
    if draw(st.booleans()):
        fields["messages"] = [
            draw(st.dictionaries(MESSAGE_FIELDS, JSON, max_size=4)) for _ in range(draw(st.integers(0, 3)))
        ]
    fields["model"] = draw(st.sampled_from(["m", "panel", "m", fields["model"]]))
    body = json.dumps(fields).encode()
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, len(body)))
        body = body[:place] + draw(st.binary(max_size=4)) + body[place + draw(st.integers(0, 4)) :]
    return body


async def test_no_request_however_wrong_is_a_fault_of_ours(pair: Pair) -> None:
    server, sim = pair
    bodies: list[bytes] = []

    @hypothesis_settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
    @given(mutated())
    def gather(body: bytes) -> None:
        bodies.append(body)

    gather()
    for body in bodies:
        asked_before = len(sim.requests)
        answer = await post(server, body)
        if answer.status != 200:
            assert 400 <= answer.status < 500, (body, answer.body)
            error_of(answer, answer.status)
        assert len(sim.requests) - asked_before <= 2, "a refused request is not repeated"
