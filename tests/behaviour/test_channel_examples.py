"""The examples of docs/channels.md, each against simulated vendors: they do what the page says of them."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from pathlib import Path

import msgspec

from server.config import load
from server.settings import Settings
from server.simulators.openai import OpenAISimulator
from server.simulators.record import RecordedRequest
from server.simulators.script import Script
from tests.behaviour.asking import get, post
from tests.behaviour.houses import ATTEMPTS, content
from tests.behaviour.running import QUIET, antiphon, ask

EXAMPLES = Path(__file__).parents[2] / "conf" / "examples"
API = "https://api.example.com/v1"
NAMED = re.compile(r"\$\{([A-Z0-9_]+)\}")


def example(name: str, tmp_path: Path, moved: dict[str, str]) -> Settings:
    """An example with simulators in the place of its addresses."""
    text = (EXAMPLES / f"{name}.yaml").read_text("utf-8")
    for address, there in moved.items():
        assert address in text
        text = text.replace(address, there)
    path = tmp_path / f"{name}.yaml"
    path.write_text(text, "utf-8")
    settings = load(path, {key: f"key-of-{key}" for key in NAMED.findall(text)}).settings
    return msgspec.structs.replace(settings, logging=QUIET)


def key_of(request: RecordedRequest) -> str:
    return (request.header("authorization") or "").removeprefix("Bearer ")


async def test_failover_shares_three_to_one_and_asks_the_reserve_when_neither_answers(tmp_path: Path) -> None:
    async with (
        OpenAISimulator(default=Script(text="main")) as main,
        OpenAISimulator(default=Script(text="twin")) as twin,
        OpenAISimulator(default=Script(text="reserve")) as reserve,
    ):
        moved = {
            "https://api.example.com/v1": main.base_url,
            "https://eu.example.com/v1": twin.base_url,
            "https://api.example.org/v1": reserve.base_url,
        }
        async with antiphon(example("failover", tmp_path, moved)) as server:
            said = Counter([content(await post(server, ask("gpt-4o"))) for _ in range(80)])
            assert 40 <= said["main"] <= 76  # five sigma around three of four
            assert (said["main"] + said["twin"], said["reserve"]) == (80, 0)
            main.default = twin.default = Script(status=500)
            answer = await post(server, ask("default"))
            assert (answer.status, content(answer)) == (200, "reserve")
            assert answer.headers[ATTEMPTS] == "upstream_error, upstream_error, ok"
            assert reserve.requests[-1].model == "openai/gpt-4o"


async def test_hedging_asks_the_other_as_well_where_one_is_silent(tmp_path: Path) -> None:
    silent = Script(silent=True)
    async with OpenAISimulator(default=silent) as near, OpenAISimulator(default=silent) as far:
        moved = {"https://near.example.com/v1": near.base_url, "https://far.example.com/v1": far.base_url}
        async with antiphon(example("hedging", tmp_path, moved)) as server:
            asked = asyncio.ensure_future(post(server, ask("gpt-4o", stream=True)))
            await near.wait_until(lambda: len(near.requests) == 1)
            await far.wait_until(lambda: len(far.requests) == 1)
            asked.cancel()
            await near.wait_until(lambda: not near.stats()["live"])
            await far.wait_until(lambda: not far.stats()["live"])


async def test_a_pool_uses_its_keys_in_turn_and_leaves_out_one_that_is_limited(tmp_path: Path) -> None:
    async with OpenAISimulator(default=Script(text="well")) as sim:
        settings = example("key-pool", tmp_path, {API: sim.base_url})
        async with antiphon(settings) as server:
            for _ in range(6):
                assert content(await post(server, ask("gpt-4o-mini"))) == "well"
            used = Counter(key_of(request) for request in sim.requests)
            assert used == {"key-of-KEY_1": 2, "key-of-KEY_2": 2, "key-of-KEY_3": 2}
            sim.script(Script(status=429))
            answer = await post(server, ask("gpt-4o-mini"))
            assert answer.headers[ATTEMPTS] == "rate_limit_exceeded, ok"
            limited = key_of(sim.requests[-2])
            for _ in range(4):
                await post(server, ask("gpt-4o-mini"))
            assert limited not in {key_of(request) for request in sim.requests[-5:]}


async def test_limits_let_four_call_at_a_time_and_refuse_past_the_minute_with_a_time(tmp_path: Path) -> None:
    async with OpenAISimulator(default=Script(text="well")) as sim:
        settings = example("limits", tmp_path, {API: sim.base_url})
        async with antiphon(settings) as server:
            answers = [await post(server, ask("gpt-4o-mini", max_tokens=1)) for _ in range(60)]
            assert {answer.status for answer in answers} == {200}
            refused = await post(server, ask("gpt-4o-mini"))
            assert refused.status == 429
            assert 15 < int(refused.headers["retry-after"]) <= 60
            assert len(sim.requests) == 60


async def test_params_change_the_fields_and_the_request_goes_through_the_proxy(tmp_path: Path) -> None:
    async with OpenAISimulator(default=Script(text="well")) as proxy:
        moved = {"https://api": "http://api", "http://127.0.0.1:3128": proxy.url}
        async with antiphon(example("params", tmp_path, moved)) as server:
            odd = {"logit_bias": {"1": 2}, "user": "me", "temperature": 1.7, "store": True, "seed": 0}
            assert (await post(server, ask("some-model") | odd)).status == 200
            [request] = proxy.requests
            sent = json.loads(request.body)
            assert not {"logit_bias", "user"} & set(sent)
            told = (sent["temperature"], sent["store"], sent["seed"], sent["max_tokens"])
            assert told == (1, False, 0, 4096)
            assert request.header("x-project") == "home"
            await post(server, ask("some-model", max_tokens=99999))
            assert json.loads(proxy.requests[-1].body)["max_tokens"] == 8192


async def test_auto_models_serves_what_is_listed_and_fits_a_pattern(tmp_path: Path) -> None:
    models = {name: Script(text=name) for name in ("gpt-4o", "o3", "tts-1")}
    async with (
        OpenAISimulator(models=models) as sim,
        antiphon(example("auto-models", tmp_path, {API: sim.base_url})) as server,
    ):
        listed = (await get(server, "/v1/models")).json()["data"]
        assert [one["id"] for one in listed] == ["gpt-4o", "o3"]
        assert content(await post(server, ask("o3"))) == "o3"
        assert (await post(server, ask("tts-1"))).status == 404
