"""The two routes; what they list is told in tests/behaviour/test_models.py."""

from __future__ import annotations

import pytest

from server.app import replace_settings
from server.settings import Settings
from server.simulators.openai import OpenAISimulator
from tests.behaviour.asking import both, error_of, get, post
from tests.behaviour.running import QUIET, channel


def settings(sim: OpenAISimulator, *models: str) -> Settings:
    return Settings(channels=(channel(sim, *(models or ("m", "vendor/m"))),), logging=QUIET)


async def ids(server: object) -> list[str]:
    return [one["id"] for one in (await get(server, "/v1/models")).json()["data"]]  # type: ignore[arg-type]


async def test_a_reload_changes_what_is_listed() -> None:
    async with both(settings) as (server, sim):
        before = (await get(server, "/v1/models/m")).json()
        assert await ids(server) == ["m", "vendor/m"]
        replace_settings(server.app, settings(sim, "new", "m"))
        assert await ids(server) == ["new", "m"]
        error_of(await get(server, "/v1/models/vendor/m"), 404)
        assert (await get(server, "/v1/models/m")).json() == before, "the same object, the same time"


@pytest.mark.parametrize("path", ["/v1/models/vendor/m", "/v1/models/vendor/m/", "/models/vendor%2Fm"])
async def test_an_id_may_hold_a_slash_and_the_path_may_end_in_one(path: str) -> None:
    async with both(settings) as (server, _sim):
        assert (await get(server, path)).json()["id"] == "vendor/m"


async def test_nobody_may_write_to_it() -> None:
    async with both(settings) as (server, _sim):
        answer = await post(server, {}, path="/v1/models")
        assert error_of(answer, 405)["code"] == "method_not_allowed"
        assert {"GET", "HEAD"} <= set(answer.headers["allow"].split(", "))


async def test_an_unknown_model_is_told_with_the_field_at_fault() -> None:
    async with both(settings) as (server, _sim):
        error = error_of(await get(server, "/v1/models/mm"), 404)
        assert (error["code"], error["param"]) == ("model_not_found", "model")
