"""The response cache from outside: what is asked upstream, and what the client is told."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from msgspec.structs import replace

from server.app import replace_settings
from server.app_keys import METRICS
from server.price_settings import Price
from server.settings import (
    Access,
    AccessKey,
    Cache,
    Channel,
    ChannelModel,
    Combination,
    Member,
    Settings,
    Summary,
)
from server.simulators.openai import OpenAISimulator
from server.simulators.script import Script
from tests.behaviour.asking import asked as opened
from tests.behaviour.asking import (
    assert_nothing_left,
    both,
    chat_request,
    chunks_of,
    data_lines,
    error_of,
    get,
    post,
    text_of,
    until,
)
from tests.behaviour.running import QUIET, antiphon, ask, channel
from tests.upstreams.raw_upstream import Peer, raw_upstream

OUTCOME = "x-antiphon-cache"
KEYS = (AccessKey(name="one", key="sk-one"), AccessKey(name="two", key="sk-two"))
ONE, TWO = "Authorization: Bearer sk-one", "Authorization: Bearer sk-two"
PANEL = Combination(
    name="panel", members=(Member(model="m1", samples=2), Member(model="m2")), summary=Summary(model="s")
)


def caching(**rules: Any) -> Any:
    given = {"models": ("m",), **rules}

    def settings(sim: OpenAISimulator) -> Settings:
        channels = (channel(sim, "m", "m1", "m2", "s", "s2"),)
        return Settings(
            channels=channels,
            combinations=(PANEL, replace(PANEL, name="other", summary=Summary(model="s2"))),
            cache=Cache(**given),
            access=Access(keys=KEYS),
            logging=QUIET,
        )

    return settings


async def test_the_second_equal_request_is_answered_from_what_is_kept() -> None:
    async with both(caching()) as (server, sim):
        first = await post(server, ask(), ONE)
        second = await post(server, ask(), ONE)
        assert [one.headers[OUTCOME] for one in (first, second)] == ["miss", "hit"]
        assert first.body == second.body, "usage and all is told as it was"
        assert first.headers["x-run-id"] != second.headers["x-run-id"]
        assert len(sim.requests) == 1
        metrics = (await get(server, "/metrics", ONE)).body.decode()
        assert 'antiphon_cache_lookups_total{outcome="hit"} 1.0' in metrics
        assert "antiphon_cache_answers 1.0" in metrics
        used = first.json()["usage"]["prompt_tokens"]
        assert f'antiphon_tokens_total{{kind="prompt",model="m"}} {used:.1f}' in metrics, "paid for once"


async def test_a_stream_is_replayed_as_a_stream_and_serves_plain_requests_too() -> None:
    async with both(caching()) as (server, sim):
        sim.default = Script(text="one two three", chunks=3)
        wish = ask(stream=True, stream_options={"include_usage": True})
        first = await post(server, wish, ONE)
        second = await post(server, wish, ONE)
        assert data_lines(first.body) == data_lines(second.body)
        assert len(chunks_of(second.body)) > 3
        plain = await post(server, ask(), ONE)
        assert plain.json()["choices"][0]["message"]["content"] == "one two three"
        bare = await post(server, ask(stream=True), ONE)
        assert not any(chunk.get("usage") for chunk in chunks_of(bare.body))
        assert [one.headers[OUTCOME] for one in (second, plain, bare)] == ["hit"] * 3
        assert len(sim.requests) == 1


async def test_a_plain_answer_serves_streams_too() -> None:
    async with both(caching()) as (server, sim):
        sim.default = Script(text="one two three")
        await post(server, ask(), ONE)
        wish = ask(stream=True, stream_options={"include_usage": True})
        streamed = await post(server, wish, ONE)
        assert streamed.headers[OUTCOME] == "hit"
        assert text_of(chunks_of(streamed.body)) == "one two three"
        assert chunks_of(streamed.body)[-1]["usage"]["total_tokens"] > 0
        assert data_lines(streamed.body)[-1] == b"[DONE]"
        assert len(sim.requests) == 1


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/responses", "/v1/completions"])
async def test_clients_of_other_dialects_are_served_too(path: str) -> None:
    async with both(caching()) as (server, sim):
        bodies: dict[str, dict[str, Any]] = {
            "/v1/messages": ask(max_tokens=50),
            "/v1/responses": {"model": "m", "input": "hello"},
            "/v1/completions": {"model": "m", "prompt": "hello"},
        }
        body = bodies[path]
        first = await post(server, body, ONE, path=path)
        second = await post(server, body, ONE, path=path)
        streamed = await post(server, {**body, "stream": True}, ONE, path=path)
        assert [one.headers[OUTCOME] for one in (first, second, streamed)] == ["miss", "hit", "hit"]
        assert first.status == streamed.status == 200
        assert len(sim.requests) == 1


@pytest.mark.parametrize(
    ("body", "headers", "outcome"),
    [
        (ask(), ("Cache-Control: no-store",), "bypass"),
        (ask(), ("Cache-Control: no-cache",), "bypass"),
        (ask(temperature=0.5), (), "bypass"),
        (ask(text="other"), (), "miss"),
    ],
)
async def test_others_go_upstream(body: dict[str, Any], headers: tuple[str, ...], outcome: str) -> None:
    async with both(caching()) as (server, sim):
        await post(server, ask(), ONE)
        assert (await post(server, body, ONE, *headers)).headers[OUTCOME] == outcome
        assert len(sim.requests) == 2


async def test_a_key_is_never_given_what_another_has_asked_for() -> None:
    async with both(caching()) as (server, sim):
        await post(server, ask(), ONE)
        assert (await post(server, ask(), TWO)).headers[OUTCOME] == "miss"
        assert len(sim.requests) == 2
    async with both(caching(across_keys=True)) as (server, sim):
        await post(server, ask(), ONE)
        assert (await post(server, ask(), TWO)).headers[OUTCOME] == "hit"
        assert len(sim.requests) == 1


@pytest.mark.parametrize(
    "script",
    [
        Script(status=500),
        Script(text="cut", cut_at_byte=60),
        Script(text="filtered", finish="content_filter"),
        Script(text="cut by a limit", finish="length"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_what_is_not_whole_is_not_kept(script: Script, stream: bool) -> None:
    async with both(caching()) as (server, sim):
        sim.default = script
        await post(server, ask(stream=stream), ONE)
        sim.default = Script(text="well")
        answer = await post(server, ask(stream=stream), ONE)
        assert answer.headers[OUTCOME] == "miss"
        assert b"well" in answer.body


async def test_without_the_cache_nothing_is_told_of_it() -> None:
    async with both(caching(models=())) as (server, sim):
        for _ in range(2):
            assert OUTCOME not in (await post(server, ask(), ONE)).headers
        assert len(sim.requests) == 2
    async with both(caching(models=("m1",))) as (server, sim):
        assert OUTCOME not in (await post(server, ask(), ONE)).headers


async def test_a_run_in_the_background_is_never_answered_from_it() -> None:
    async with both(caching()) as (server, sim):
        await post(server, ask(), ONE)
        answer = await post(server, ask(antiphon={"background": True}), ONE)
        assert answer.status == 202
        assert OUTCOME not in answer.headers
        await sim.wait_until(lambda: len(sim.requests) == 2)


async def test_the_run_tells_that_its_answer_was_kept() -> None:
    async with both(caching()) as (server, _sim):
        await post(server, ask(), ONE)
        answer = await post(server, ask(), ONE)
        run = answer.headers["x-run-id"]
        events = (await get(server, f"/v1/runs/{run}/events", ONE)).json()["data"]
        states = [one["data"]["state"] for one in events if one["type"] == "model.channel"]
        assert states == ["kept"]
        assert events[-1]["type"] == "run.completed"


@pytest.mark.parametrize("reported", [True, False])
async def test_what_is_given_again_costs_nothing(reported: bool) -> None:
    def settings(sim: OpenAISimulator) -> Settings:
        models = {"m": ChannelModel(price=Price(input=1, output=2))}
        priced = Channel(name="sim", kind="openai", base_url=sim.base_url, models=models)
        return Settings(channels=(priced,), cache=Cache(models=("m",)), logging=QUIET)

    async with both(settings) as (server, sim):
        sim.default = Script(usage="asked" if reported else "never")
        costs = []
        for _ in range(2):
            run = (await post(server, ask(stream=True))).headers["x-run-id"]
            events = (await get(server, f"/v1/runs/{run}/events")).json()["data"]
            costs += [one["data"]["cost"] for one in events if one["type"] == "model.finished"]
        assert costs[0] > 0
        assert costs[1] == 0


async def test_a_reload_with_another_channel_forgets_and_one_without_does_not() -> None:
    async with both(caching()) as (server, sim):
        await post(server, ask(), ONE)
        before = caching()(sim)
        replace_settings(server.app, replace(before, aliases={"alias": "m"}))
        assert (await post(server, ask("alias"), ONE)).headers[OUTCOME] == "hit"
        changed = replace(before.channels[0], headers={"x-other": "1"})
        replace_settings(server.app, replace(before, channels=(changed,)))
        assert (await post(server, ask(), ONE)).headers[OUTCOME] == "miss"
        replace_settings(server.app, replace(before, cache=Cache()))
        replace_settings(server.app, before)
        assert (await post(server, ask(), ONE)).headers[OUTCOME] == "miss"


async def test_a_refusal_comes_before_what_is_kept() -> None:
    async with both(caching(across_keys=True)) as (server, _sim):
        await post(server, ask(), ONE)
        error_of(await post(server, ask(), "Authorization: Bearer sk-none"), 401)


# ── drafts ──


def models(sim: OpenAISimulator) -> list[str]:
    return sorted(request.model for request in sim.requests)


async def test_another_summary_model_runs_the_summary_alone() -> None:
    async with both(caching(models=(), drafts=("panel", "other"))) as (server, sim):
        for model in ("panel", "other", "panel"):
            assert (await post(server, ask(model), ONE)).status == 200
        assert models(sim) == ["m1", "m1", "m2", "s", "s", "s2"], "two samples are two drafts"
        assert (await post(server, ask("panel"), TWO)).status == 200
        assert len(sim.requests) == 10


async def test_drafts_of_a_combination_that_is_not_named_are_made_anew() -> None:
    async with both(caching(models=("*",), drafts=("panel",))) as (server, sim):
        await post(server, ask("other"), ONE)
        await post(server, ask("other"), ONE)
        await post(server, ask("panel"), ONE)
        await post(server, ask("panel"), ONE, "Cache-Control: no-store")
        assert models(sim).count("m2") == 4


async def test_only_the_member_that_failed_is_asked_again() -> None:
    async with both(caching(models=(), drafts=("panel",))) as (server, sim):
        sim.script(Script(status=400, error_message="No."), model="m2")
        for _ in range(2):
            assert (await post(server, ask("panel"), ONE)).status == 200
        assert models(sim) == ["m1", "m1", "m2", "m2", "s", "s"]


async def test_the_answer_tells_which_drafts_were_kept() -> None:
    async with both(caching(models=(), drafts=("panel",))) as (server, sim):
        sim.script(Script(status=400, error_message="No."), model="m2")
        outcomes = []
        for headers in ((), (), (), ("Cache-Control: no-store",)):
            answer = await post(server, ask("panel"), ONE, *headers)
            told = {one["id"]: one.get("cache") for one in answer.json()["antiphon"]["members"]}
            outcomes.append((answer.headers[OUTCOME], told["m1.1"], told["m2"], told["summary"]))
        assert outcomes == [
            ("miss", "miss", "miss", None),
            ("drafts", "hit", "miss", None),
            ("drafts", "hit", "hit", None),
            ("bypass", "bypass", "bypass", None),
        ]
        answer = await post(server, ask("other"), ONE)
        assert OUTCOME not in answer.headers
        assert "cache" not in answer.json()["antiphon"]["members"][0]


async def test_tokens_of_kept_drafts_are_told_and_not_counted_as_spent_again() -> None:
    async with both(caching(models=(), drafts=("panel",))) as (server, _sim):
        told, counted = [], []
        for _ in range(2):
            answer = (await post(server, ask("panel"), ONE)).json()
            summary = answer["antiphon"]["members"][-1]
            assert summary["id"] == "summary"
            told.append((answer["usage"]["total_tokens"], summary["usage"]["total_tokens"]))
            metrics = (await get(server, "/metrics", ONE)).body.decode()
            lines = [line for line in metrics.splitlines() if line.startswith("antiphon_tokens_total{")]
            counted.append(sum(float(line.split()[-1]) for line in lines if 'model="panel"' in line))
        (whole, summary_alone), again = told
        assert again == (whole, summary_alone)
        assert counted == [whole, whole + summary_alone]


# ── equal requests at once ──

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
CHUNK = (
    b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,'
    b'"delta":{"content":"%b"},"finish_reason":%b}]}\n\n'
)
SHARING = Cache(single_flight=("m",))


def behind(port: int) -> Settings:
    one = Channel(name="raw", kind="openai", base_url=f"http://127.0.0.1:{port}/v1", models=("m",))
    return Settings(channels=(one,), cache=SHARING, logging=QUIET)


async def test_three_at_once_make_one_call_and_one_may_leave() -> None:
    word, end = asyncio.Event(), asyncio.Event()

    async def serve(peer: Peer) -> None:
        await peer.request()
        await word.wait()
        await peer.send(HEAD + CHUNK % (b"one ", b"null"))
        await end.wait()
        await peer.send(CHUNK % (b"two", b'"stop"') + b"data: [DONE]\n\n")

    async with raw_upstream(serve) as upstream, antiphon(behind(upstream.port)) as server:
        wish = chat_request(ask(stream=True))
        async with opened(server, wish) as first:
            await until(lambda: upstream.peers)
            others = [asyncio.create_task(post(server, ask(stream=True))) for _ in range(2)]
            looked = server.app[METRICS].lookups
            await until(lambda: looked["shared"] == 2)
            word.set()
            await first.head()
            assert b"one " in await first.chunk()
        await until(lambda: server.app[METRICS].in_flight == 2)
        end.set()
        for other in others:
            answer = await other
            assert text_of(chunks_of(answer.body)) == "one two"
            assert answer.headers[OUTCOME] == "hit"
            assert data_lines(answer.body)[-1] == b"[DONE]"
        assert len(upstream.peers) == 1
        assert_nothing_left(server)


async def test_the_last_one_who_leaves_ends_the_call() -> None:
    gone = asyncio.Event()

    async def serve(peer: Peer) -> None:
        await peer.request()
        await peer.send(HEAD + CHUNK % (b"one ", b"null"))
        await peer.gone()
        gone.set()

    async with raw_upstream(serve) as upstream, antiphon(behind(upstream.port)) as server:
        wish = chat_request(ask(stream=True))
        async with opened(server, wish) as first, opened(server, wish) as second:
            for one in (first, second):
                await one.head()
                assert b"one " in await one.chunk()
        async with asyncio.timeout(10):
            await gone.wait()
        assert len(upstream.peers) == 1
        await until(lambda: not server.app[METRICS].in_flight)
        assert_nothing_left(server)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_refusal_goes_to_all_who_wait(stream: bool) -> None:
    go = asyncio.Event()

    async def serve(peer: Peer) -> None:
        await peer.request()
        await go.wait()
        await peer.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    async with raw_upstream(serve) as upstream, antiphon(behind(upstream.port)) as server:
        answers = [asyncio.create_task(post(server, ask(stream=stream))) for _ in range(3)]
        await until(lambda: server.app[METRICS].lookups["shared"] == 2)
        go.set()
        for answer in answers:
            error_of(await answer, 400)
        assert len(upstream.peers) == 1
