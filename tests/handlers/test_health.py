"""Is it alive, is it ready, what does it count: told to whoever may hear it, and asking nobody."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from server.app import drain, give_notice
from server.settings import Access, AccessKey, Channel, Server, Settings
from server.simulators.openai import OpenAISimulator
from server.simulators.script import Script
from tests.behaviour.asking import asked, both, chat_request, error_of, get, post
from tests.behaviour.running import QUIET, Antiphon, ask, channel
from tests.raw_http import PATIENCE_S

KEY = "sk-health-0123456789"
BEARER = f"Authorization: Bearer {KEY}"


def settings(sim: OpenAISimulator, *, keys: bool = False, opened: bool = False) -> Settings:
    off = Channel(name="off", kind="openai", base_url=sim.base_url, models=("unserved",), enabled=False)
    return Settings(
        server=Server(metrics_open=opened),
        access=Access(keys=(AccessKey(name="me", key=KEY),) if keys else ()),
        channels=(channel(sim, "m"), off),
        logging=QUIET,
    )


def with_keys(sim: OpenAISimulator) -> Settings:
    return settings(sim, keys=True)


@pytest.mark.parametrize("path", ["/healthz", "/health"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_whoever_asks_hears_that_it_lives(path: str, method: str) -> None:
    async with both(with_keys) as (server, sim):
        answer = await get(server, path, method=method)
        assert answer.status == 200
        assert answer.headers["content-type"].startswith("application/json")
        assert answer.body == b"" if method == "HEAD" else answer.json() == {"status": "healthy"}
        assert not sim.requests


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
async def test_each_answers_beneath_v1_and_with_a_slash_at_the_end_as_well(path: str) -> None:
    """Whoever has configured a base URL once gets everything beneath it."""
    async with both(settings) as (server, _sim):
        plain = await get(server, path)
        for other in (f"/v1{path}", f"{path}/", f"/v1{path}/"):
            answer = await get(server, other)
            assert (answer.status, answer.headers["content-type"]) == (200, plain.headers["content-type"])
            error_of(await get(server, other, method="POST"), 405)
        error_of(await get(server, f"/v1/v1{path}"), 404)


async def test_ready_tells_of_each_part_without_a_key() -> None:
    async with both(with_keys) as (server, sim):
        answer = await get(server, "/readyz")
        assert answer.status == 200
        parts = {"server": "ready", "channel:sim": "ready", "channel:off": "disabled"}
        assert answer.json() == {"status": "ready", "parts": parts}
        assert (await get(server, "/readyz", method="HEAD")).status == 200
        assert not sim.requests


async def test_a_sick_upstream_alone_does_not_make_it_unready() -> None:
    async with both(settings) as (server, sim):
        sim.script(Script(status=500), times=20)
        error_of(await post(server, ask()), 502)
        assert (await get(server, "/readyz")).status == 200


async def test_with_notice_it_is_not_ready_but_serves() -> None:
    async with both(settings) as (server, _sim):
        give_notice(server.app)
        assert (await get(server, "/readyz")).status == 503
        assert (await post(server, ask())).status == 200


async def test_while_it_drains_it_lives_but_is_not_ready() -> None:
    async with both(settings) as (server, _sim):
        drain(server.app)
        assert (await get(server, "/healthz")).status == 200
        answer = await get(server, "/readyz")
        assert answer.status == 503
        assert answer.json()["parts"]["server"] == "draining"
        assert (await get(server, "/metrics")).status == 200


def samples(body: bytes) -> dict[str, float]:
    """Prometheus text as values by name and labels."""
    told = [line for line in body.decode().splitlines() if line and not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in told)}


async def read(server: Antiphon, *headers: str) -> dict[str, float]:
    answer = await get(server, "/metrics", *headers)
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return samples(answer.body)


def total(metrics: dict[str, float], name: str, **labels: Any) -> float:
    """The sum of all samples of ``name`` with these labels."""
    wanted = [f'{label}="{value}"' for label, value in labels.items()]
    return sum(
        value
        for sample, value in metrics.items()
        if sample.partition("{")[0] == name and all(one in sample for one in wanted)
    )


async def test_requests_and_failures_are_counted_by_route_model_and_code() -> None:
    async with both(settings) as (server, sim):
        assert (await post(server, ask())).status == 200
        error_of(await post(server, ask("secret-model-that-nobody-knows")), 404)
        sim.script(Script(status=400))
        error_of(await post(server, ask()), 400)
        counted = await read(server)
        route = "/v1/chat/completions"
        assert total(counted, "antiphon_requests_total", route=route) == 3
        assert total(counted, "antiphon_requests_total", route=route, status="200") == 1
        assert total(counted, "antiphon_errors_total", code="model_not_found") == 1
        assert not [name for name in counted if "secret-model" in name], "labels without bound"


async def test_what_is_under_way_is_shown_while_it_is() -> None:
    async with both(settings) as (server, sim):
        sim.script(Script(silent=True))
        async with asked(server, chat_request(ask(stream=True))):
            await sim.wait_until(lambda: sim.stats()["live"] == 1)
            assert total(await read(server), "antiphon_runs_in_progress") == 1
        await sim.wait_until(lambda: sim.stats()["live"] == 0)
        async with asyncio.timeout(PATIENCE_S):
            while total(await read(server), "antiphon_runs_in_progress"):
                pass


async def test_paths_nobody_serves_share_one_label() -> None:
    async with both(settings) as (server, _sim):
        for number in range(5):
            error_of(await get(server, f"/nowhere/{number}"), 404)
        counted = await read(server)
        assert total(counted, "antiphon_requests_total", route="unmatched") == 5
        assert not [name for name in counted if "nowhere" in name]


async def test_another_method_counts_for_the_route_that_it_was_meant_for() -> None:
    async with both(settings) as (server, _sim):
        error_of(await get(server, "/v1/chat/completions"), 405)
        error_of(await get(server, "/v1/runs/run_1/cancel"), 405)
        counted = await read(server)
        for route in ("/v1/chat/completions", "/v1/runs/{run}/cancel"):
            assert total(counted, "antiphon_requests_total", route=route, status="405") == 1
        assert total(counted, "antiphon_requests_total", route="unmatched") == 0


@pytest.mark.parametrize("forwarded", ["X-Forwarded-For: 203.0.113.9", "Forwarded: for=203.0.113.9"])
async def test_metrics_for_somebody_else_want_a_key(forwarded: str) -> None:
    async with both(with_keys) as (server, _sim):
        error_of(await get(server, "/metrics", forwarded), 401)
        assert await read(server, forwarded, BEARER)
        assert await read(server), "this machine itself may look"


async def test_metrics_that_are_opened_want_none() -> None:
    async with both(lambda sim: settings(sim, keys=True, opened=True)) as (server, _sim):
        assert await read(server, "X-Forwarded-For: 203.0.113.9")
