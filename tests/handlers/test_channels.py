"""``/api/channels``: what an admin sees of the channels, and how one is tried."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from server.settings import AUTO, Access, AccessKey, Breaker, Settings
from server.simulators.openai import OpenAISimulator
from server.simulators.script import Script
from tests.behaviour.asking import chat_request, error_of, exchange, get, post
from tests.behaviour.running import QUIET, Antiphon, antiphon, ask, channel
from tests.raw_http import Answer

BOSS, ME = "boss-key-of-the-tests", "my-key-of-the-tests"
SECRET = "sk-the-upstreams-own-key"
KEYS = Access(keys=(AccessKey(name="boss", key=BOSS, admin=True), AccessKey(name="me", key=ME)))


@asynccontextmanager
async def serving(sim: OpenAISimulator, **more: Any) -> AsyncIterator[Antiphon]:
    channels = (
        channel(sim, "m", "n", name="one", api_key=SECRET, breaker=Breaker(failures=1)),
        channel(sim, "m", name="spare", enabled=False, **more),
    )
    async with antiphon(Settings(access=KEYS, channels=channels, logging=QUIET)) as server:
        yield server


def bearer(key: str) -> str:
    return f"Authorization: Bearer {key}"


async def try_one(server: Antiphon, name: str, body: bytes = b"", key: str = BOSS) -> Answer:
    return await exchange(server, chat_request(body, bearer(key), path=f"/api/channels/{name}/test"))


async def test_channels_are_listed_with_what_is_against_asking_each() -> None:
    async with OpenAISimulator() as sim, serving(sim) as server:
        answer = await get(server, "/api/channels", bearer(BOSS))
        one, spare = answer.json()["data"]
        assert (one["name"], one["kind"], one["enabled"], one["keys"]) == ("one", "openai", True, 1)
        assert one["models"] == {"m": "ready", "n": "ready"}
        assert (spare["enabled"], spare["models"]) == (False, {"m": "disabled"})
        assert SECRET.encode() not in answer.body
        assert b"127.0.0.1" not in answer.body
        assert answer.headers["cache-control"] == "no-store"


async def test_a_test_is_a_real_call_and_tells_what_it_saw() -> None:
    async with OpenAISimulator() as sim, serving(sim) as server:
        answer = await try_one(server, "one")
        assert answer.status == 200, answer.body
        told = answer.json()
        assert (told["object"], told["channel"], told["model"], told["ok"]) == (
            "channel.test",
            "one",
            "m",
            True,
        )
        [call] = told["calls"]
        assert call["text"].startswith("You said:")
        assert 0 < call["first_token_s"] <= call["total_s"]
        assert told["models"] == ["sim"]
        assert told["missing"] == ["m", "n"]
        assert [request.path for request in sim.requests] == ["/v1/models", "/v1/chat/completions"]
        assert SECRET.encode() not in answer.body


async def test_a_failed_test_is_an_answer_too() -> None:
    async with OpenAISimulator(default=Script(status=401)) as sim, serving(sim) as server:
        told = (await try_one(server, "one")).json()
        assert told["ok"] is False
        [call] = told["calls"]
        assert call["code"] == "upstream_auth"
        assert SECRET not in json.dumps(told)


async def test_the_model_can_be_chosen() -> None:
    async with OpenAISimulator() as sim, serving(sim) as server:
        assert (await try_one(server, "one", b'{"model":"n"}')).json()["model"] == "n"
        assert sim.requests[-1].model == "n"


async def test_a_disabled_channel_can_be_tried() -> None:
    async with OpenAISimulator() as sim, serving(sim) as server:
        assert (await try_one(server, "spare")).json()["ok"] is True


async def test_a_channel_that_was_left_alone_is_back_once_its_test_succeeds() -> None:
    async with OpenAISimulator() as sim, serving(sim) as server:
        sim.script(Script(status=500))
        error_of(await post(server, ask(), bearer(ME)), 502)
        error_of(await post(server, ask(), bearer(ME)), 503)
        assert (await try_one(server, "one")).json()["ok"] is True
        assert (await post(server, ask(), bearer(ME))).status == 200


async def test_a_channel_whose_list_never_came_is_asked_for_it_and_told_why_it_does_not_come() -> None:
    async with OpenAISimulator(api_key="another") as sim:
        auto = msgspec.structs.replace(channel(sim, name="auto", api_key=SECRET), models=AUTO)
        async with antiphon(Settings(access=KEYS, channels=(auto,), logging=QUIET)) as server:
            answer = await try_one(server, "auto")
            told = answer.json()
            assert (answer.status, told["ok"], told["models"]) == (200, False, None)
            assert "credentials" in told["models_error"]
            assert [call["code"] for call in told["calls"]] == ["upstream_auth"]
            assert told["calls"][0]["message"] == told["models_error"]
            assert SECRET.encode() not in answer.body
            assert not any(request.path.endswith("completions") for request in sim.requests)
            assert (await try_one(server, "auto", b'{"model":"sim"}')).json()["model"] == "sim"
            assert sim.requests[-1].path.endswith("completions"), "one may be named all the same"


async def test_a_channel_whose_list_comes_only_now_is_tried_with_the_first_model_of_it() -> None:
    async with OpenAISimulator(models={"tts": Script(), "gpt-1": Script()}) as sim:
        auto = msgspec.structs.replace(
            channel(sim, name="auto", enabled=False), models=AUTO, list_only=("gpt-*",)
        )
        async with antiphon(Settings(access=KEYS, channels=(auto,), logging=QUIET)) as server:
            told = (await try_one(server, "auto")).json()
            assert (told["ok"], told["model"], told["models"]) == (True, "gpt-1", ["sim", "tts", "gpt-1"])


async def test_a_client_that_leaves_ends_the_test() -> None:
    async with OpenAISimulator() as sim, serving(sim) as server:
        sim.script(Script(silent=True))
        left = asyncio.ensure_future(try_one(server, "one"))
        await sim.wait_until(lambda: len(sim.requests) == 2)
        left.cancel()
        await sim.wait_until(lambda: sim.stats()["live"] == 0)


@pytest.mark.parametrize("path", ["/api/channels", "/api/channels/one/test"])
async def test_only_an_admins_key_may_see_or_try_them(path: str) -> None:
    async with OpenAISimulator() as sim, serving(sim) as server:
        ask_for = get(server, path, bearer(ME), method="POST" if path.endswith("test") else "GET")
        assert error_of(await ask_for, 403)["code"] == "not_allowed"
        ask_for = get(server, path, method="POST" if path.endswith("test") else "GET")
        assert error_of(await ask_for, 401)["code"] == "missing_api_key"
        assert not sim.requests


@pytest.mark.parametrize(
    ("name", "body", "status", "code"),
    [
        ("nobody", b"", 404, "channel_not_found"),
        ("one", b'{"model":"unknown"}', 404, "model_not_found"),
        ("one", b'{"modl":"m"}', 400, None),
        ("one", b'{"model":1}', 400, None),
        ("one", b"nonsense", 400, None),
        ("one", b"[]", 400, None),
    ],
)
async def test_what_cannot_be_tried_is_refused_and_nothing_is_asked(
    name: str, body: bytes, status: int, code: str | None
) -> None:
    async with OpenAISimulator() as sim, serving(sim) as server:
        error = error_of(await try_one(server, name, body), status)
        assert code is None or error["code"] == code
        assert not sim.requests
