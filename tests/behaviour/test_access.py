"""Who may come in: keys, hosts, origins; and what a browser is told."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from server.settings import Access, AccessKey, Combination, Cors, Logging, Member, Server, Settings, Summary
from server.simulators.openai import OpenAISimulator
from server.simulators.script import Script
from tests.behaviour.asking import CHAT, both, error_of, exchange, get, get_request, post
from tests.behaviour.running import QUIET, ask, channel

KEY = "sk-very-secret-key"
KEYS = (
    AccessKey(name="me", key=KEY),
    AccessKey(name="narrow", key="narrow-key", models=("m", "panel")),
    AccessKey(name="off", key="off-key", disabled=True),
    AccessKey(name="old", key="old-key", expires="2020-01-01T00:00:00Z"),
    AccessKey(name="far", key="far-key", addresses=("203.0.113.0/24",)),
)
EXPOSED = [
    "x-request-id",
    "x-run-id",
    "retry-after",
    "retry-after-ms",
    "x-should-retry",
    "x-antiphon-overhead-ms",
]
ROUTES = [
    ("GET", "/v1/models"),
    ("GET", "/v1/models/m"),
    ("GET", "/v1/runs"),
    ("GET", "/v1/runs/run_x"),
    ("GET", "/v1/runs/run_x/events"),
    ("POST", "/v1/runs/run_x/cancel"),
    ("POST", CHAT),
    ("GET", "/nowhere"),
    ("DELETE", CHAT),
]


def keyed(sim: OpenAISimulator, **more: Any) -> Settings:
    panel = Combination(name="panel", members=(Member(model="m"),), summary=Summary(model="m"), quorum=1)
    access = Access(keys=KEYS, trusted_proxies=("127.0.0.1",))
    given = {"access": access, "logging": QUIET, "combinations": (panel,), **more}
    return Settings(channels=(channel(sim, "m", "other"),), **given)


def opened(sim: OpenAISimulator, **more: Any) -> Settings:
    return Settings(**{"channels": (channel(sim),), "logging": QUIET, **more})


# Keys


@pytest.mark.parametrize(
    "header",
    [
        f"Authorization: Bearer {KEY}",
        f"authorization: bearer {KEY}",
        f"Authorization: BEARER    {KEY}  ",
        f"x-api-key: {KEY}",
        f"api-key:  {KEY} ",
    ],
)
async def test_a_key_is_read_from_every_usual_header(header: str) -> None:
    async with both(keyed) as (server, _sim):
        assert (await post(server, ask(), header)).status == 200


async def test_a_proxys_basic_credentials_do_not_hide_the_key() -> None:
    async with both(keyed) as (server, _sim):
        answer = await post(server, ask(), "Authorization: Basic cHJveHk6eA==", f"x-api-key: {KEY}")
        assert answer.status == 200


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ((), 401, "missing_api_key"),
        (("Authorization: ",), 401, "missing_api_key"),
        (("Authorization: Bearer",), 401, "missing_api_key"),
        (("Authorization: Bearer   ",), 401, "missing_api_key"),
        (("Authorization: Basic c2stdmVyeTpzZWNyZXQ=",), 401, "missing_api_key"),
        (("Authorization: Bearer sk-wrong-key",), 401, "invalid_api_key"),
        (("x-api-key: sk-wrong-key",), 401, "invalid_api_key"),
        ((f"Authorization: Bearer {KEY}x",), 401, "invalid_api_key"),
        (("Authorization: Bearer \xe9\xff",), 401, "invalid_api_key"),
        (("Authorization: Bearer off-key",), 401, "disabled_api_key"),
        (("Authorization: Bearer old-key",), 401, "expired_api_key"),
        (("Authorization: Bearer far-key",), 403, "address_not_allowed"),
    ],
)
async def test_every_bad_key_is_told_why(headers: tuple[str, ...], status: int, code: str) -> None:
    async with both(keyed) as (server, sim):
        answer = await post(server, b"not json at all", *headers)
        assert error_of(answer, status)["code"] == code
        if status == 401:
            assert answer.headers["www-authenticate"] == 'Bearer realm="antiphon"'
        assert not sim.requests


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_a_stranger_learns_nothing_of_any_path(method: str, path: str) -> None:
    async with both(keyed) as (server, _sim):
        answer = await get(server, path, method=method)
        assert error_of(answer, 401)["code"] == "missing_api_key"


async def test_a_stranger_cannot_make_us_read_a_body() -> None:
    async with both(keyed) as (server, _sim):
        head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000000000\r\n".encode()
        answer = await exchange(server, head + b"Expect: 100-continue\r\n\r\n")
        assert error_of(answer, 401)["code"] == "missing_api_key"


@pytest.mark.parametrize("path", [f"{CHAT}?api_key={KEY}", f"{CHAT}?key={KEY}", f"{CHAT}?access_token={KEY}"])
async def test_a_key_in_a_url_is_none(path: str) -> None:
    async with both(keyed) as (server, _sim):
        assert error_of(await post(server, ask(), path=path), 401)["code"] == "missing_api_key"


async def test_a_key_reaches_only_its_models() -> None:
    async with both(keyed) as (server, sim):
        header = "Authorization: Bearer narrow-key"
        error = error_of(await post(server, ask("other"), header), 403)
        assert (error["code"], error["type"], error["param"]) == (
            "model_not_allowed",
            "permission_error",
            "model",
        )
        assert not sim.requests
        assert (await post(server, ask("m"), header)).status == 200
        assert (await post(server, ask("panel"), header)).status == 200
        listed = (await get(server, "/v1/models", header)).json()["data"]
        assert [one["id"] for one in listed] == ["panel", "m"] or {one["id"] for one in listed} == {
            "m",
            "panel",
        }
        everything = (await get(server, "/v1/models", f"x-api-key: {KEY}")).json()["data"]
        assert {one["id"] for one in everything} == {"m", "other", "panel"}
        # A model outside of the scope is neither shown nor told from one that does not exist, but for B6.
        assert (await get(server, "/v1/models/other", header)).status in (403, 404)
        assert "other" not in error_of(await post(server, ask("othe"), header), 404)["message"]


async def test_an_address_told_by_a_trusted_proxy_counts_and_no_other() -> None:
    header = "Authorization: Bearer far-key"
    async with both(keyed) as (server, _sim):
        assert (await post(server, ask(), header, "X-Forwarded-For: 203.0.113.5")).status == 200
        assert (await post(server, ask(), header, "X-Forwarded-For: 203.0.113.5, 198.51.100.1")).status == 403
        assert (await post(server, ask(), header, "X-Forwarded-For: nonsense")).status == 403
    async with both(lambda sim: keyed(sim, access=Access(keys=KEYS))) as (server, _sim):
        assert (await post(server, ask(), header, "X-Forwarded-For: 203.0.113.5")).status == 403


@pytest.mark.parametrize("form", ["text", "json"])
async def test_no_key_stands_in_any_answer_or_log(
    form: Any, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    logs = Logging(level="debug", format=form)
    seen = []
    async with both(lambda sim: keyed(sim, logging=logs)) as (server, sim):
        for key in (KEY, KEY + "x", "off-key", "old-key", "far-key", "narrow-key"):
            for script in (Script(), Script(status=401), Script(status=400, error_message=f"bad {KEY}")):
                sim.script(script)
                for header in (f"Authorization: Bearer {key}", f"x-api-key: {key}"):
                    answer = await post(server, ask("other", stream=True), header, f"Cookie: {key}")
                    seen += [str(answer.headers), answer.body.decode()]
        bad = (await exchange(server, f"POST / HTTP/1.1\r\nx-api-key : {KEY}\r\n\r\n".encode())).body
        metrics = (await get(server, "/metrics")).body
        seen += [bad.decode(), metrics.decode()]
    out, err = capfd.readouterr()
    everything = "\n".join([*seen, out, err, *(str(record.__dict__) for record in caplog.records)])
    assert "invalid_api_key" in everything
    for key in (KEY, "off-key", "old-key", "far-key", "narrow-key"):
        assert key not in everything


# Without keys


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:18888",
        "127.0.0.1",
        "127.0.0.9:80",
        "[::1]",
        "[::1]:18888",
        "a.localhost",
        "box:1",
    ],
)
async def test_an_open_server_is_addressed_by_loopback_names(host: str) -> None:
    async with both(lambda sim: opened(sim, server=Server(allowed_hosts=("box",)))) as (server, _sim):
        assert (await get(server, "/v1/models", host=host)).status == 200
        assert (await post(server, ask(), host=host)).status == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:18888", "localhost.evil.example", "192.168.1.5", "[2001:db8::1]:80", ""],
)
async def test_an_open_server_is_not_addressed_by_another_name(host: str) -> None:
    async with both(opened) as (server, sim):
        assert error_of(await get(server, "/v1/models", host=host), 403)["code"] == "address_not_allowed"
        assert error_of(await post(server, ask(), host=host), 403)["code"] == "address_not_allowed"
        assert not sim.requests


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_an_open_server_wants_a_host(version: str) -> None:
    async with both(opened) as (server, _sim):
        answer = await exchange(server, f"GET /v1/models HTTP/{version}\r\n\r\n".encode())
        assert answer.status in (400, 403)
        error_of(answer, answer.status)


@pytest.mark.parametrize(
    "origin", ["http://localhost:3000", "https://127.0.0.1", "http://[::1]:5173", "http://LocalHost:1"]
)
async def test_pages_of_this_machine_may_call_an_open_server(origin: str) -> None:
    async with both(opened) as (server, _sim):
        answer = await post(server, ask(), f"Origin: {origin}")
        assert answer.status == 200
        assert answer.headers["access-control-allow-origin"] == origin
        assert answer.headers["vary"] == "Origin"


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "null", "http://localhost.evil.example", "http://[::2]", "file://", "x"],
)
async def test_foreign_pages_may_not_call_an_open_server(origin: str) -> None:
    async with both(opened) as (server, sim):
        answer = await post(server, ask(), f"Origin: {origin}", content_type="text/plain")
        assert error_of(answer, 403)["code"] == "origin_not_allowed"
        assert not sim.requests


async def test_a_listed_origin_may_call_an_open_server() -> None:
    page = "https://chat.example"
    async with both(lambda sim: opened(sim, cors=Cors(origins=(page,)))) as (server, _sim):
        assert (await post(server, ask(), f"Origin: {page}")).headers["access-control-allow-origin"] == page


# Browsers


@pytest.mark.parametrize(
    "path", ["/v1/chat/completions", "/", "/nowhere/at/all", "/healthz", "/v1/models/a/b", "*"]
)
async def test_a_preflight_is_answered_anywhere_without_a_key(path: str) -> None:
    wanted = "authorization, x-stainless-os, X-Stainless-Retry-Count, content-type, bad\x01name"
    async with both(keyed) as (server, _sim):
        headers = ("Origin: https://page.example", "Access-Control-Request-Method: POST")
        wish = f"Access-Control-Request-Headers: {wanted}".replace("\x01", "(")
        answer = await get(server, path, *headers, wish, method="OPTIONS")
        assert answer.status == 204
        assert answer.headers["access-control-allow-origin"] == "*"
        assert answer.headers["access-control-allow-methods"] == "GET, POST, DELETE, OPTIONS"
        assert int(answer.headers["access-control-max-age"]) > 0
        allowed = answer.headers["access-control-allow-headers"].split(", ")
        assert {"authorization", "content-type", "x-stainless-os", "x-stainless-retry-count"} <= set(allowed)
        assert not any("(" in name for name in allowed)
        assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (get_request("/v1/models", "Origin: https://p.example"), 401),
        (get_request("/nowhere", "Origin: https://p.example", f"x-api-key: {KEY}"), 404),
        (get_request(CHAT, "Origin: https://p.example", f"x-api-key: {KEY}"), 405),
        (get_request("/v1/models", "Origin: https://p.example", f"x-api-key: {KEY}"), 200),
        (get_request("/healthz", "Origin: https://p.example"), 200),
        (get_request("/metrics", "Origin: https://p.example"), 200),
        (get_request("/v1/models", "Origin: https://p.example", "bad header: x"), 400),
    ],
)
async def test_every_answer_tells_the_page_that_it_may_read_it(request_: bytes, status: int) -> None:
    async with both(keyed) as (server, _sim):
        answer = await exchange(server, request_)
        assert answer.status == status
        assert answer.headers["access-control-allow-origin"] == "*"


@pytest.mark.parametrize("script", [Script(), Script(status=429), Script(status=500)])
@pytest.mark.parametrize("stream", [True, False])
async def test_chat_answers_tell_the_page_what_it_may_read(script: Script, stream: bool) -> None:
    async with both(keyed) as (server, sim):
        sim.script(script, times=3)
        answer = await post(server, ask(stream=stream), "Origin: https://p.example", f"x-api-key: {KEY}")
        assert answer.headers["access-control-allow-origin"] == "*"
        exposed = answer.headers["access-control-expose-headers"].split(", ")
        assert set(EXPOSED) <= set(exposed)
        for kind in ("limit", "remaining", "reset"):
            assert f"x-ratelimit-{kind}-requests" in exposed
            assert f"x-ratelimit-{kind}-tokens" in exposed


async def test_only_listed_origins_are_echoed_once_some_are_listed() -> None:
    page = "https://chat.example"
    async with both(lambda sim: keyed(sim, cors=Cors(origins=(page,)))) as (server, _sim):
        answer = await get(server, "/v1/models", f"Origin: {page}", f"x-api-key: {KEY}")
        assert answer.headers["access-control-allow-origin"] == page
        assert answer.headers["vary"] == "Origin"
        other = await get(server, "/v1/models", "Origin: https://other.example", f"x-api-key: {KEY}")
        assert "access-control-allow-origin" not in other.headers


# Metrics


async def test_metrics_want_a_key_from_elsewhere() -> None:
    async with both(keyed) as (server, _sim):
        assert (await get(server, "/metrics")).status == 200
        assert (await get(server, "/metrics", "X-Forwarded-For: 203.0.113.5")).status == 401
        told = await get(server, "/metrics", "X-Forwarded-For: 203.0.113.5", f"x-api-key: {KEY}")
        assert told.status == 200
