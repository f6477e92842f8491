"""What a client may call, as a list and one by one."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from server.settings import Access, AccessKey, Channel, Combination, Member, Settings, Summary
from server.simulators.openai import OpenAISimulator
from server.simulators.script import Script
from tests.behaviour.asking import both, error_of, get, post
from tests.behaviour.running import QUIET, ask, channel

ODD = ("vendor/model:free", "a@b", "with blank", "模型-1", "a/b/c", "100%")


def settings(sim: OpenAISimulator) -> Settings:
    panel = Combination(
        name="panel", aliases=("board",), members=(Member(model="m"),), summary=Summary(model="m"), quorum=1
    )
    off = Channel(name="off", kind="openai", base_url=sim.base_url, models=("unserved",), enabled=False)
    return Settings(
        channels=(channel(sim, "zebra", "m", *ODD), channel(sim, "m", name="again"), off),
        combinations=(panel,),
        aliases={"nick": "m"},
        logging=QUIET,
    )


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/", "/models", "/models/"])
async def test_the_list_has_everything_once_in_the_order_of_the_configuration(path: str) -> None:
    async with both(settings) as (server, sim):
        told = (await get(server, path)).json()
        assert told["object"] == "list"
        ids = [one["id"] for one in told["data"]]
        assert ids == ["panel", "zebra", "m", *ODD, "nick", "board"]
        assert (await get(server, path)).json() == told
        for one in told["data"]:
            assert one["object"] == "model"
            assert isinstance(one["created"], int)
            assert one["created"] > 0
            assert isinstance(one["owned_by"], str)
        assert not sim.requests, "listing asks nobody"


async def test_head_has_the_headers_and_no_body() -> None:
    async with both(settings) as (server, _sim):
        answer = await get(server, "/v1/models", method="HEAD")
        assert answer.status == 200
        assert int(answer.headers["content-length"]) > 0


@pytest.mark.parametrize("name", [*ODD, "m", "panel", "nick", "board"])
async def test_one_model_is_the_same_object_however_its_name_is_written(name: str) -> None:
    async with both(settings) as (server, _sim):
        listed = (await get(server, "/v1/models")).json()["data"]
        expected = next(one for one in listed if one["id"] == name)
        for prefix in ("/v1/models/", "/models/"):
            for safe in ("", "/:@"):
                for end in ("", "/"):
                    answer = await get(server, prefix + quote(name, safe=safe) + end)
                    assert answer.status == 200, (prefix, safe, end)
                    assert answer.json() == expected


@pytest.mark.parametrize(
    "path", ["/v1/models/nothing", "/v1/models/m/m", "/v1/models/%2F", "/v1/models/unserve"]
)
async def test_an_unknown_model_is_a_404(path: str) -> None:
    async with both(settings) as (server, _sim):
        assert error_of(await get(server, path), 404)["code"] == "model_not_found"


async def test_every_listed_name_answers_under_itself() -> None:
    async with both(settings) as (server, _sim):
        for one in (await get(server, "/v1/models")).json()["data"]:
            assert (await post(server, ask(one["id"]))).json()["model"] == one["id"]


async def test_a_model_whose_channel_cools_down_stays_listed() -> None:
    async with both(settings) as (server, sim):
        sim.script(Script(status=429, retry_after=60), times=3)
        assert (await post(server, ask("zebra"))).status == 429
        ids = [one["id"] for one in (await get(server, "/v1/models")).json()["data"]]
        assert "zebra" in ids


async def test_a_key_sees_only_what_it_may_call() -> None:
    key = AccessKey(name="k", key="narrow", models=("m",))

    def keyed(sim: OpenAISimulator) -> Settings:
        given = settings(sim)
        fields = {name: getattr(given, name) for name in ("channels", "combinations", "aliases", "logging")}
        return Settings(**fields, access=Access(keys=(key,)))

    async with both(keyed) as (server, _sim):
        told = (await get(server, "/v1/models", "x-api-key: narrow")).json()["data"]
        assert [one["id"] for one in told] == ["m", "nick"], "an alias goes with what it stands for"
        assert (await get(server, "/v1/models/zebra", "x-api-key: narrow")).status in (403, 404)
