"""What the application is made of: its routes, its lifetimes, the snapshot that a reload swaps, its drain."""

from __future__ import annotations

import asyncio
import logging

import pytest

from server.app import create_app, drain, last_words, replace_settings
from server.app_keys import CURRENT, RUNS, TASKS
from server.settings import Access, AccessKey, Channel, ChannelModel, Combination, Cors, Settings, Tls
from server.simulators.openai import OpenAISimulator
from server.simulators.script import Script
from tests.behaviour.asking import (
    asked,
    assert_nothing_left,
    both,
    chat_request,
    data_lines,
    error_of,
    get,
    post,
    until,
)
from tests.behaviour.running import QUIET, antiphon, ask, channel
from tests.raw_http import RawClient


def settings(sim: OpenAISimulator, *models: str, **more: object) -> Settings:
    return Settings(channels=(channel(sim, *(models or ("m",))),), logging=QUIET, **more)  # type: ignore[arg-type]


async def rest_of(raw: RawClient) -> bytes:
    pieces = []
    while piece := await raw.chunk():
        pieces.append(piece)
    return b"".join(pieces)


# ── routes ──


@pytest.mark.parametrize("end", ["", "/"])
@pytest.mark.parametrize("prefix", ["", "/v1"])
async def test_every_api_route_answers_with_and_without_v1_and_a_slash_at_the_end(
    prefix: str, end: str
) -> None:
    async with both(settings) as (server, _sim):
        run_id = (await post(server, ask(), path=f"{prefix}/chat/completions{end}")).headers["x-run-id"]
        for path in ("/models", "/models/m", "/runs", f"/runs/{run_id}", f"/runs/{run_id}/events"):
            assert (await get(server, f"{prefix}{path}{end}")).status == 200, path
        assert (await post(server, b"", path=f"{prefix}/runs/{run_id}/cancel{end}")).status == 200


# ── lifetimes ──


async def test_making_an_application_opens_nothing() -> None:
    async with OpenAISimulator() as sim:
        before = asyncio.all_tasks()
        app = create_app(settings(sim))
        assert asyncio.all_tasks() == before
        assert not hasattr(app[CURRENT], "snapshot")


async def test_a_start_and_an_end_leave_no_task_and_no_connection() -> None:
    async with OpenAISimulator() as sim:
        before = asyncio.all_tasks()
        for _ in range(3):
            async with antiphon(settings(sim)) as server:
                assert (await post(server, ask())).status == 200
                assert sim.stats()["connections_open"] == 1, "kept for the next request"
            await sim.wait_until(lambda: sim.stats()["connections_open"] == 0)
        await until(lambda: asyncio.all_tasks() == before)


async def test_the_end_ends_what_still_runs() -> None:
    async with OpenAISimulator() as sim:
        sim.script(Script(silent=True))
        async with antiphon(settings(sim)) as server:
            app = server.app
            async with asked(server, chat_request(ask(stream=True))):
                await sim.wait_until(lambda: sim.stats()["live"] == 1)
                # The server ends while the client still waits.
                await last_words(app)
                await sim.wait_until(lambda: sim.stats()["live"] == 0)
        assert (app[RUNS].in_progress, len(app[TASKS])) == (0, 0)


async def test_a_channel_that_cannot_serve_is_told_at_the_start_and_does_not_stop_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with OpenAISimulator() as sim:
        absent = Channel(
            name="here", kind="local", path="/nowhere/model.gguf", models={"small": ChannelModel()}
        )
        configured = Settings(channels=(absent, channel(sim, "m")), logging=QUIET)
        with caplog.at_level(logging.WARNING):
            async with antiphon(configured) as server:
                assert (await post(server, ask())).status == 200
                assert (await get(server, "/healthz")).status == 200
                told = (await get(server, "/readyz")).json()["parts"]
                assert set(told) == {"server", "channel:here", "channel:sim"}


# ── reload ──


async def test_a_reload_changes_keys_origins_and_models_at_once() -> None:
    async with both(settings) as (server, sim):
        assert (await get(server, "/v1/models")).status == 200
        key = "sk-reloaded-0123456789"
        access = Access(keys=(AccessKey(name="me", key=key),))
        one = Combination(name="one", strategy="direct", model="new")
        fresh = settings(
            sim, "new", access=access, cors=Cors(origins=("https://page.example",)), combinations=(one,)
        )
        replace_settings(server.app, fresh)
        error_of(await get(server, "/v1/models"), 401)
        bearer = f"Authorization: Bearer {key}"
        answer = await get(server, "/v1/models", bearer, "Origin: https://page.example")
        assert [model["id"] for model in answer.json()["data"]] == ["one", "new"]
        assert answer.headers["access-control-allow-origin"] == "https://page.example"
        error_of(await post(server, ask("m"), bearer), 404)
        assert (await post(server, ask("one"), bearer)).status == 200


async def test_a_stream_that_runs_keeps_the_channel_that_a_reload_takes_away() -> None:
    async with both(settings) as (server, sim), OpenAISimulator() as other:
        sim.script(Script(chunks=6, stall_after=2))
        async with asked(server, chat_request(ask(stream=True))) as raw:
            await raw.head()
            assert await raw.chunk()
            replace_settings(server.app, settings(other))
            other.script(Script(text="the new one"))
            assert b"the new one" in (await post(server, ask())).body
            assert sim.stats()["live"] == 1, "the first stream still has its upstream"
            assert len(sim.requests) == 1
            raw.writer.close()
            await sim.wait_until(lambda: sim.stats()["live"] == 0)
        await until(lambda: len(server.app[TASKS]) == 0)


async def test_a_channel_that_a_reload_does_not_change_keeps_its_connection_and_its_health() -> None:
    async with both(settings) as (server, sim):
        assert (await post(server, ask())).status == 200
        before = server.app[CURRENT].snapshot.router.channels["sim"]
        replace_settings(server.app, settings(sim, aliases={"nick": "m"}))
        assert server.app[CURRENT].snapshot.router.channels["sim"] is before
        assert (await post(server, ask("nick"))).status == 200
        assert len({request.connection for request in sim.requests}) == 1
        replace_settings(server.app, settings(sim, "m", "n"))
        assert server.app[CURRENT].snapshot.router.channels["sim"] is not before


async def test_settings_that_cannot_be_built_leave_all_as_it_was() -> None:
    """A file that the settings name may go between their check and their use."""
    async with both(settings) as (server, sim):
        before = server.app[CURRENT].snapshot
        broken = Channel(
            name="broken",
            kind="openai",
            base_url="https://api.example.com/v1",
            models=("n",),
            tls=Tls(ca_file="/nowhere/ca.pem"),
        )
        wrong = Settings(channels=(channel(sim, "m", "other"), broken), logging=QUIET)
        with pytest.raises(OSError, match="No such file"):
            replace_settings(server.app, wrong)
        assert server.app[CURRENT].snapshot is before
        assert (await post(server, ask())).status == 200
        replace_settings(server.app, settings(sim))
        assert server.app[CURRENT].snapshot.router.channels["sim"] is before.router.channels["sim"]
        assert (await post(server, ask())).status == 200


# ── drain ──


async def test_while_draining_nothing_new_begins_and_what_runs_goes_on() -> None:
    async with both(settings) as (server, sim):
        sim.script(Script(pieces=("y" * 100_000,) * 200))
        async with asked(server, chat_request(ask(stream=True))) as raw:
            await raw.head()
            drain(server.app)
            answer = await post(server, ask())
            assert error_of(answer, 503)["code"] == "shutting_down"
            assert int(answer.headers["retry-after"]) > 0
            assert error_of(await get(server, "/v1/models"), 503)["code"] == "shutting_down"
            assert len(sim.requests) == 1
            assert data_lines(await rest_of(raw))[-1] == b"[DONE]"


@pytest.mark.parametrize("stream", [True, False])
async def test_the_last_word_is_a_status_before_the_first_delta(stream: bool) -> None:
    async with both(settings) as (server, sim):
        sim.script(Script(silent=True))
        async with asked(server, chat_request(ask(stream=stream))) as raw:
            await sim.wait_until(lambda: sim.stats()["live"] == 1)
            await last_words(server.app)
            assert error_of(await raw.answer(), 503)["code"] == "shutting_down"
        await sim.wait_until(lambda: sim.stats()["live"] == 0)
        assert sim.requests[-1].aborted
        assert len(sim.requests) == 1, "nothing is tried again"
        assert_nothing_left(server)


async def test_the_last_word_is_an_event_after_it() -> None:
    async with both(settings) as (server, sim):
        sim.script(Script(chunks=6, stall_after=2))
        async with asked(server, chat_request(ask(stream=True))) as raw:
            await raw.head()
            assert await raw.chunk()
            await last_words(server.app)
            body = await rest_of(raw)
        assert b'"code":"shutting_down"' in data_lines(body)[-1]
        assert b"[DONE]" not in body
        assert b'"finish_reason":"' not in body
        await sim.wait_until(lambda: sim.stats()["live"] == 0)
        assert_nothing_left(server)
