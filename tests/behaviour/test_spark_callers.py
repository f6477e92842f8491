"""Callers with Spark credentials of their own: let in, kept apart, and never told of."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from server.app_keys import ACCOUNTS, CURRENT
from server.settings import Access, AccessKey, Channel, Combination, Logging, Settings
from server.simulators.openai import OpenAISimulator
from server.simulators.spark import SparkSimulator
from server.simulators.spark_script import SparkScript
from server.simulators.spark_signature import SparkKey
from server.spark_settings import Spark as SparkSettings
from tests.behaviour.asking import assert_nothing_left, error_of, get, post
from tests.behaviour.running import QUIET, antiphon, ask, channel

OWN = ("X_APP_ID: simulate", "X_API_KEY: sim-key", "X_API_SECRET: sim-secret")
HYPHENS = ("X-App-Id: simulate", "X-Api-Key: sim-key", "X-Api-Secret: sim-secret")
BEARER = ("Authorization: Bearer simulate:sim-key:sim-secret",)
WRONG = ("X_APP_ID: simulate", "X_API_KEY: sim-key", "X_API_SECRET: not-the-secret")
KEY = ("Authorization: Bearer antiphon-key",)


def lending(sim: SparkSimulator, **more: Any) -> Channel:
    """A channel whose own credentials are refused, so that an answer tells whose were used."""
    settings: dict[str, Any] = {
        "app_id": "house",
        "api_key": "house-key",
        "api_secret": "house-secret",
        "models": ("spark-max", "spark-lite"),
        "spark": SparkSettings(client_credentials=True),
    }
    return Channel(name="spark", kind="spark", base_url=sim.ws_url, **settings | more)


def serving(*channels: Channel, byok: bool = True, **more: Any) -> Settings:
    access = Access(keys=(AccessKey(name="me", key="antiphon-key"),), byok=byok)
    return Settings(channels=channels, access=access, **{"logging": QUIET} | more)


def said(answer: Any) -> str:
    assert answer.status == 200, answer.body
    return str(answer.json()["choices"][0]["message"]["content"])


@pytest.mark.parametrize(
    "headers", [OWN, HYPHENS, BEARER, ("Authorization: Bearer sk-dummy", *OWN), (*KEY, *OWN)]
)
async def test_a_callers_own_credentials_go_before_the_channels(headers: tuple[str, ...]) -> None:
    async with SparkSimulator() as sim, antiphon(serving(lending(sim))) as server:
        assert "hello" in said(await post(server, ask("spark-max"), *headers))
        streamed = await post(server, ask("spark-max", stream=True), *headers)
        assert streamed.body.endswith(b"data: [DONE]\n\n")
        assert_nothing_left(server)


async def test_without_them_the_channels_own_are_used() -> None:
    async with SparkSimulator() as sim, antiphon(serving(lending(sim))) as server:
        error = error_of(await post(server, ask("spark-max"), *KEY), 502)
        assert error["code"] == "upstream_auth"


async def test_refused_credentials_are_the_callers_own_401_and_nobody_elses_trouble() -> None:
    async with SparkSimulator() as sim:
        house = lending(sim, app_id="simulate", api_key="sim-key", api_secret="sim-secret")
        async with antiphon(serving(house)) as server:
            for _ in range(8):
                error = error_of(await post(server, ask("spark-max"), *WRONG), 401)
                assert (error["code"], error["type"]) == ("invalid_api_key", "authentication_error")
                assert "your credentials" in error["message"]
            assert "hello" in said(await post(server, ask("spark-max"), *KEY))
            assert "hello" in said(await post(server, ask("spark-max"), *OWN))
            states = server.app[CURRENT].snapshot.router.channel_states(asyncio.get_running_loop().time())
            assert {state for _, _, state in states} == {"ready"}


async def test_a_callers_spent_quota_does_not_keep_the_channel_from_others() -> None:
    async with SparkSimulator() as sim:
        house = lending(sim, app_id="simulate", api_key="sim-key", api_secret="sim-secret")
        async with antiphon(serving(house)) as server:
            sim.script(SparkScript(error_code=11201))
            error = error_of(await post(server, ask("spark-max"), *OWN), 429)
            assert error["code"] == "insufficient_quota"
            assert "hello" in said(await post(server, ask("spark-max"), *KEY))


async def test_a_channels_refused_key_does_not_keep_callers_with_their_own_out() -> None:
    async with SparkSimulator() as sim, antiphon(serving(lending(sim))) as server:
        for _ in range(3):
            error_of(await post(server, ask("spark-max"), *KEY), 502)
        assert "hello" in said(await post(server, ask("spark-max"), *OWN))


async def test_a_busy_spark_is_asked_again_for_them_too() -> None:
    async with SparkSimulator() as sim, antiphon(serving(lending(sim))) as server:
        sim.script(SparkScript(error_code=10010))
        assert "hello" in said(await post(server, ask("spark-max"), *OWN))


async def test_they_reach_spark_models_only() -> None:
    async with SparkSimulator() as sim, OpenAISimulator() as other:
        one = Combination(name="one", strategy="direct", model="spark-max")
        settings = serving(lending(sim), channel(other, "m"), combinations=(one,), aliases={"a": "spark-max"})
        async with antiphon(settings) as server:
            for headers in (OWN, (*KEY, *OWN), BEARER):
                for model in ("m", "one"):
                    error = error_of(await post(server, ask(model), *headers), 403)
                    assert error["code"] == "model_not_allowed"
                assert error_of(await post(server, ask("nobody"), *headers), 404)["code"] == "model_not_found"
            assert "hello" in said(await post(server, ask("a"), *OWN))
            listed = (await get(server, "/v1/models", *OWN)).json()["data"]
            assert [card["id"] for card in listed] == ["spark-max", "spark-lite", "a"]
            assert not other.requests


async def test_a_part_of_a_set_is_a_401_that_names_what_is_missing() -> None:
    async with SparkSimulator() as sim, antiphon(serving(lending(sim))) as server:
        for headers in (("X_APP_ID: simulate", "X_API_SECRET: s"), (*KEY, "X-App-Id: a", "X-Api-Secret: s")):
            error = error_of(await post(server, ask("spark-max"), *headers), 401)
            assert "lack X-API-KEY;" in error["message"]
        for lone in ((), ("X-Api-Key: sim-key",)):  # the latter may be a wrong access key as well
            error = error_of(await post(server, ask("spark-max"), *lone), 401)
            assert "X-APP-ID, X-API-KEY and X-API-SECRET" in error["message"]


async def test_a_part_of_the_three_in_a_bearer_is_a_401_that_names_what_is_missing() -> None:
    partial = "Authorization: Bearer simulate:sim-key"
    async with SparkSimulator() as sim:
        async with antiphon(serving(lending(sim))) as server:
            error = error_of(await post(server, ask("spark-max"), partial), 401)
            assert (error["code"], "API secret" in error["message"]) == ("missing_api_key", True)
        async with antiphon(Settings(channels=(lending(sim),), logging=QUIET)) as server:
            assert "API secret" in error_of(await post(server, ask("spark-max"), partial), 401)["message"]
        assert not sim.requests


async def test_an_access_key_with_colons_is_a_key_before_it_is_anything_else() -> None:
    keys = (
        AccessKey(name="two", key="simulate:sim-key"),
        AccessKey(name="three", key="simulate:sim-key:sim-secret"),
        AccessKey(name="off", key="app:gone", disabled=True),
    )
    async with SparkSimulator() as sim:
        settings = Settings(channels=(lending(sim),), access=Access(keys=keys, byok=True), logging=QUIET)
        async with antiphon(settings) as server:
            for one in keys[:2]:  # the channel's own credentials are used, which are refused here
                told = error_of(await post(server, ask("spark-max"), f"Authorization: Bearer {one.key}"), 502)
                assert told["code"] == "upstream_auth"
            told = error_of(await post(server, ask("spark-max"), "Authorization: Bearer app:gone"), 401)
            assert told["code"] == "disabled_api_key"


async def test_without_byok_part_of_the_three_is_only_a_wrong_key() -> None:
    async with SparkSimulator() as sim, antiphon(serving(lending(sim), byok=False)) as server:
        told = error_of(await post(server, ask("spark-max"), "Authorization: Bearer simulate:sim-key"), 401)
        assert told["code"] == "invalid_api_key"


async def test_without_byok_a_key_is_wanted_and_without_client_credentials_they_are_not_read() -> None:
    async with SparkSimulator() as sim:
        async with antiphon(serving(lending(sim), byok=False)) as server:
            error_of(await post(server, ask("spark-max"), *OWN), 401)
            error_of(await post(server, ask("spark-max"), *BEARER), 401)
            assert "hello" in said(await post(server, ask("spark-max"), *KEY, *OWN))
        async with antiphon(serving(lending(sim, spark=SparkSettings()), byok=False)) as server:
            error_of(await post(server, ask("spark-max"), *KEY, *OWN), 502)


async def test_an_open_server_takes_them_as_the_older_gateway_did() -> None:
    async with SparkSimulator() as sim, antiphon(Settings(channels=(lending(sim),), logging=QUIET)) as server:
        for headers in (OWN, HYPHENS, BEARER):
            assert "hello" in said(await post(server, ask("spark-max"), *headers))


async def test_a_channel_without_credentials_asks_for_the_callers() -> None:
    async with SparkSimulator() as sim:
        bare = lending(sim, app_id=None, api_key=None, api_secret=None)
        async with antiphon(serving(bare)) as server:
            error = error_of(await post(server, ask("spark-max"), *KEY), 401)
            assert "X-APP-ID" in error["message"]
            assert not sim.requests
            assert "hello" in said(await post(server, ask("spark-max"), *OWN))


async def test_their_runs_are_seen_by_the_same_credentials_alone() -> None:
    async with SparkSimulator() as sim, antiphon(serving(lending(sim))) as server:
        run = (await post(server, ask("spark-max"), *OWN)).headers["x-run-id"]
        for headers in (OWN, HYPHENS, BEARER):
            assert (await get(server, f"/v1/runs/{run}", *headers)).status == 200
        for headers in (KEY, WRONG, ("Authorization: Bearer simulate:sim-key:other",)):
            error_of(await get(server, f"/v1/runs/{run}", *headers), 404)


async def test_callers_at_once_are_never_mixed() -> None:
    async with SparkSimulator() as sim, antiphon(serving(lending(sim))) as server:
        sim.keys = tuple(SparkKey(f"app{n}", f"key-{n}", f"secret-{n}") for n in range(20))

        async def one(number: int) -> int:
            right = number % 2 == 0
            secret = f"secret-{number if right else number - 1}"
            headers = (f"X_APP_ID: app{number}", f"X_API_KEY: key-{number}", f"X_API_SECRET: {secret}")
            return (await post(server, ask("spark-max", str(number)), *headers)).status

        assert await asyncio.gather(*(one(n) for n in range(20))) == [200, 401] * 10


async def test_nothing_that_is_written_or_told_holds_them(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    out = io.StringIO()
    async with SparkSimulator() as sim:
        settings = serving(lending(sim), logging=Logging(level="debug", format="json"))
        async with antiphon(settings) as server:
            server.app[ACCOUNTS]._out = out
            app, key, secret = secrets = ("myapp012", "my-key-0123456789", "my-secret-0123456789")
            known = SparkKey(app, key, secret)
            mine = (f"X_APP_ID: {app}", f"X_API_KEY: {key}", f"X_API_SECRET: {secret}")
            bearer = (f"Authorization: Bearer {app}:{key}:{secret}",)
            told: list[str] = []
            for headers in (mine, bearer):
                for keys in ((known,), ()):
                    sim.keys = keys
                    for stream in (False, True):
                        answer = await post(server, ask("spark-max", stream=stream), *headers)
                        told.append(answer.body.decode() + json.dumps(dict(answer.headers)))
                sim.keys = (known,)
                sim.script(SparkScript(error_code=11200, error_message=f"{app} {key} {secret}"))
                told.append((await post(server, ask("spark-max"), *headers)).body.decode())
                run = (await post(server, ask("spark-max"), *headers)).headers["x-run-id"]
                paths = (f"/v1/runs/{run}", f"/v1/runs/{run}/events", "/v1/runs", "/v1/models")
                told += [(await get(server, path, *headers)).body.decode() for path in paths]
            told.append((await get(server, "/metrics", *KEY)).body.decode())
            server.app[ACCOUNTS].flush()
    # The simulated Spark is in this process too; its own socket's log is not ours.
    logged = [repr(vars(one)) for one in caplog.records if one.name != "websockets.server"]
    written = "".join([*told, *logged, out.getvalue()])
    assert "spark-caller-" in out.getvalue()
    assert not [one for one in secrets if one in written]


async def test_they_may_watch_their_own_runs_but_start_none_that_survive_them() -> None:
    async with SparkSimulator() as sim, antiphon(serving(lending(sim))) as server:
        for headers in (OWN, BEARER):
            async with connect(
                f"ws://127.0.0.1:{server.port}/v1/events",
                additional_headers=dict(one.split(": ", 1) for one in headers),
                subprotocols=[Subprotocol("antiphon.events.v1")],
            ) as watching:
                await watching.send('{"type": "connection_init"}')
                await watching.send('{"type": "subscribe", "id": "a", "topic": "self"}')
                told = [json.loads(await watching.recv())["type"] for _ in range(2)]
                assert told == ["connection_ack", "subscribed"]
                await post(server, ask("spark-max"), *KEY)
                run = (await post(server, ask("spark-max"), *OWN)).headers["x-run-id"]
                assert run in str(await watching.recv())
        body = ask("spark-max", antiphon={"background": True})
        assert error_of(await post(server, body, *OWN), 403)["code"] == "background_not_allowed"
