"""What happens around every handler, as a client sees it; access has its own page in tests/behaviour."""

from __future__ import annotations

import json
import re

import pytest

from server.app import replace_settings
from server.app_keys import METRICS
from server.settings import Access, AccessKey, Logging, Server, Settings
from server.simulators.openai import OpenAISimulator
from server.simulators.script import Script
from tests.behaviour.asking import (
    asked,
    both,
    chat_request,
    error_of,
    exchange,
    get,
    get_request,
    post,
    until,
)
from tests.behaviour.running import QUIET, Antiphon, ask, channel

KEY = "sk-middle-0123456789"
BEARER = f"Authorization: Bearer {KEY}"


def settings(sim: OpenAISimulator) -> Settings:
    return Settings(channels=(channel(sim, "m"),), logging=QUIET)


def keyed(sim: OpenAISimulator) -> Settings:
    access = Access(keys=(AccessKey(name="me", key=KEY),))
    return Settings(access=access, channels=(channel(sim, "m"),), logging=QUIET)


def logged(sim: OpenAISimulator) -> Settings:
    access = Access(keys=(AccessKey(name="me", key=KEY),))
    lines = Logging(access=True, format="json")
    return Settings(access=access, channels=(channel(sim, "m"),), logging=lines)


# ── the id of a request ──


@pytest.mark.parametrize("given", ["mine-1", "A.b_c-9", "x" * 128, "0"])
@pytest.mark.parametrize("path", ["/v1/models", "/nowhere", "/healthz"])
async def test_a_fit_request_id_is_kept(given: str, path: str) -> None:
    async with both(settings) as (server, _sim):
        assert (await get(server, path, f"x-request-id: {given}")).headers["x-request-id"] == given


@pytest.mark.parametrize("given", ["", "x" * 129, "a b", "a,b", "ä", "<script>", "a/b", "a:b"])
async def test_an_unfit_request_id_is_replaced(given: str) -> None:
    async with both(settings) as (server, _sim):
        told = (await get(server, "/v1/models", f"x-request-id: {given}")).headers["x-request-id"]
        assert re.fullmatch(r"req_[0-9a-f]{24}", told)


async def test_no_two_requests_share_an_id() -> None:
    async with both(settings) as (server, _sim):
        told = {(await get(server, "/v1/models")).headers["x-request-id"] for _ in range(50)}
        assert len(told) == 50


async def test_a_streams_head_has_the_id_too() -> None:
    async with both(settings) as (server, _sim):
        answer = await post(server, ask(stream=True), "x-request-id: mine")
        assert answer.headers["x-request-id"] == "mine"


# ── accounts ──


async def lines(server: Antiphon, capsys: pytest.CaptureFixture[str], count: int) -> list[dict[str, object]]:
    """The lines of the requests so far, once there are so many."""
    said = ""

    def enough() -> bool:
        nonlocal said
        said += capsys.readouterr().err
        return said.count("\n") >= count

    await until(enough)
    told = [json.loads(line) for line in said.splitlines()]
    assert len(told) == count
    return told


async def test_each_request_is_one_line_that_names_who_what_and_how_it_ended(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with both(logged) as (server, sim):
        answer = await post(server, ask(text="a very private question"), BEARER, "x-request-id: one")
        streamed = await post(server, ask(stream=True), BEARER, "x-request-id: two")
        error_of(await post(server, ask("unknown"), BEARER, "x-request-id: three"), 404)
        error_of(await post(server, ask(), "x-request-id: four"), 401)
        sim.script(Script(status=400))
        error_of(await post(server, ask(), BEARER, "x-request-id: five"), 400)
        told = {str(line["id"]): line for line in await lines(server, capsys, 5)}
        for name, response in (("one", answer), ("two", streamed)):
            line = told[name]
            assert line["run"] == response.headers["x-run-id"]
            assert (line["key"], line["model"], line["channel"]) == ("me", "m", "sim")
            assert (line["status"], line["attempts"]) == (200, 1)
            assert line["route"] == "/v1/chat/completions"
            assert "code" not in line
        assert (told["three"]["status"], told["three"]["code"]) == (404, "model_not_found")
        assert (told["four"]["status"], told["four"]["code"]) == (401, "missing_api_key")
        assert "key" not in told["four"]
        assert told["five"]["status"] == 400
        everything = json.dumps(list(told.values()))
        assert "private" not in everything
        assert KEY not in everything


async def test_a_client_that_leaves_is_one_line_that_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    async with both(logged) as (server, sim):
        sim.script(Script(silent=True))
        async with asked(server, chat_request(ask(), BEARER)):
            await sim.wait_until(lambda: sim.stats()["live"] == 1)
        (line,) = await lines(server, capsys, 1)
        assert (line["status"], line["code"]) == (499, "client_gone")


async def test_lines_that_are_switched_off_are_none(capsys: pytest.CaptureFixture[str]) -> None:
    async with both(settings) as (server, _sim):
        assert (await post(server, ask())).status == 200
        assert b"antiphon_requests_total" in (await get(server, "/metrics")).body, "written up to here"
        assert capsys.readouterr().err == ""


# ── errors ──


async def test_a_refusal_by_aiohttp_itself_looks_like_all_others() -> None:
    async with both(settings) as (server, _sim):
        error = error_of(await get(server, "/v1/nowhere"), 404)
        assert (error["type"], error["code"]) == ("invalid_request_error", "not_found")
        answer = await exchange(server, get_request("/v1/chat/completions", method="PUT"))
        assert error_of(answer, 405)["code"] == "method_not_allowed"
        assert "POST" in answer.headers["allow"]


@pytest.mark.parametrize(
    ("path", "named"),
    [
        ("/v1/conversations", "Conversations"),
        ("/files/", "Files"),
        ("/v1/threads/thread_1/runs", "Threads"),
    ],
)
async def test_what_clients_look_for_in_vain_is_named_with_the_way_to_ask(path: str, named: str) -> None:
    async with both(settings) as (server, _sim):
        error = error_of(await post(server, ask(), path=path), 404)
        assert error["code"] == "not_found"
        assert error["message"].removeprefix("The ").startswith(named)
        assert "POST /v1/chat/completions" in error["message"]


@pytest.mark.parametrize(
    ("script", "status", "said"),
    [
        (Script(status=401), 502, "false"),
        (Script(status=402), 429, "false"),
        (Script(status=400), 400, None),
        (Script(status=429, retry_after=90), 429, None),
    ],
)
async def test_clients_are_told_where_repeating_is_in_vain(
    script: Script, status: int, said: str | None
) -> None:
    async with both(settings) as (server, sim):
        sim.script(script, times=5)
        answer = await post(server, ask())
        error_of(answer, status)
        assert answer.headers.get("x-should-retry") == said


# ── the order of the guards ──


async def test_a_stranger_is_refused_before_size_type_and_path_are_looked_at() -> None:
    async with both(keyed) as (server, _sim):
        for request in (
            chat_request(b"not json at all"),
            chat_request(b"a=b", content_type="application/x-www-form-urlencoded"),
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n",
            get_request("/nowhere"),
            get_request("/v1/chat/completions", method="PUT"),
        ):
            assert error_of(await exchange(server, request), 401)["code"] == "missing_api_key"


async def test_a_request_keeps_the_limits_that_it_came_under() -> None:
    """A reload in the middle of a body makes the limit smaller: for those that come after it."""
    async with both(settings) as (server, sim):
        request = chat_request(ask(text="x" * 5000))
        async with asked(server, request[:-100]) as raw:
            await until(lambda: server.app[METRICS].in_flight == 1)
            small = Settings(server=Server(body_bytes=100), channels=(channel(sim, "m"),), logging=QUIET)
            replace_settings(server.app, small)
            await raw.send(request[-100:])
            assert (await raw.answer()).status == 200
        error_of(await exchange(server, request), 413)
