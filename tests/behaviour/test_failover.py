"""Several channels for one model, from outside: what happens to one is kept from the clients."""

from __future__ import annotations

import asyncio
import email.utils
import json
import time
from typing import Any

import msgspec
import pytest

from server.settings import (
    Breaker,
    Channel,
    ChannelModel,
    Settings,
    TimeoutsPatch,
)
from server.simulators.openai import OpenAISimulator
from server.simulators.script import Script
from tests.behaviour.asking import (
    assert_nothing_left,
    data_lines,
    error_of,
    get,
    post,
    text_of,
    until,
)
from tests.behaviour.houses import ATTEMPTS, content, house
from tests.behaviour.running import QUIET, Antiphon, antiphon, ask, channel
from tests.raw_http import Answer
from tests.upstreams.raw_upstream import Peer, raw_upstream

# ── what moves on, and what does not ──


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (Script(status=408), "upstream_timeout"),
        (Script(status=409), "upstream_error"),
        (Script(status=425), "upstream_error"),
        (Script(status=429), "rate_limit_exceeded"),
        (Script(status=500), "upstream_error"),
        (Script(status=502, error_form="html"), "upstream_error"),
        (Script(status=503), "overloaded"),
        (Script(status=504), "upstream_timeout"),
        (Script(status=529), "overloaded"),
        (Script(status=401), "upstream_auth"),
        (Script(status=402), "insufficient_quota"),
        (Script(status=403), "upstream_auth"),
        (Script(error_after=0), "upstream"),
        (Script(pieces=(), finish_form="missing", done=0), "upstream"),
        (Script(pieces=()), "upstream_empty"),
        (Script(pieces=(), usage="never"), "upstream_empty"),
        (Script(status=404, error_form="html"), "upstream_error"),
    ],
    ids=lambda value: msgspec.json.encode(value).decode() if isinstance(value, Script) else "",
)
async def test_a_fault_of_one_upstream_is_not_seen_by_the_client(
    fault: Script, code: str, stream: bool
) -> None:
    async with house() as it:
        it.one.default = fault
        answer = await post(it.server, ask(stream=stream))
        assert content(answer) == "from two"
        assert it.asked == (1, 1)
        first, second = answer.headers[ATTEMPTS].split(", ")
        assert second == "ok"
        assert first.startswith(code)


@pytest.mark.parametrize("status", [400, 404, 413, 422])
async def test_a_fault_of_the_request_makes_one_upstream_request(status: int) -> None:
    async with house() as it:
        it.one.default = Script(status=status)
        answer = await post(it.server, ask())
        error_of(answer, status)
        assert it.asked == (1, 0)


async def test_a_refused_connection_moves_on_and_both_refused_is_one_error() -> None:
    async with house() as it:
        await it.one.stop_listening()
        assert content(await post(it.server, ask())) == "from two"
        await it.two.stop_listening()
        await it.two.drop_connections()
        answer = await post(it.server, ask())
        assert error_of(answer, 502)["code"] == "upstream_unreachable"
        assert answer.headers["x-should-retry"] == "false"
        assert set(answer.headers[ATTEMPTS].split(", ")) == {"upstream_unreachable"}


async def test_a_first_token_that_does_not_come_in_time_moves_on() -> None:
    async with house(timeouts=TimeoutsPatch(first_token_s=0.05)) as it:
        it.one.default = Script(stall_after=0)
        answer = await post(it.server, ask(stream=True))
        assert content(answer) == "from two"
        assert answer.headers[ATTEMPTS] == "upstream_timeout_first_token, ok"
        await until(lambda: it.one.requests[0].aborted)


async def test_a_whole_answer_whose_head_does_not_come_in_time_moves_on_if_the_channel_says_so() -> None:
    async with house(timeouts=TimeoutsPatch(first_token_s=0.05), head_in_time=True) as it:
        it.one.default = Script(silent=True)
        answer = await post(it.server, ask())
        assert content(answer) == "from two"
        assert answer.headers[ATTEMPTS] == "upstream_timeout_first_token, ok"
    async with house(timeouts=TimeoutsPatch(first_token_s=0.05)) as it:
        it.one.default = Script(delay_ms=200, text="from one")
        assert content(await post(it.server, ask())) == "from one"


async def test_after_the_first_delta_a_cut_is_told_as_a_cut() -> None:
    async with house() as it:
        it.one.default = Script(pieces=("he", "llo"), error_after=1)
        answer = await post(it.server, ask(stream=True))
        assert answer.status == 200
        *chunks, last = data_lines(answer.body)
        assert b'"error"' in last
        assert text_of([json.loads(chunk) for chunk in chunks]) == "he"
        assert it.asked == (1, 0)


async def test_each_channel_gets_the_same_body_with_its_own_name_for_the_model() -> None:
    async with OpenAISimulator(default=Script(status=500)) as one, OpenAISimulator() as two:
        settings = Settings(
            channels=(
                channel(one, name="one", priority=1),
                Channel(
                    name="two",
                    kind="openai",
                    base_url=two.base_url,
                    models={"m": ChannelModel(model="theirs")},
                ),
            ),
            logging=QUIET,
        )
        async with antiphon(settings) as server:
            answer = await post(server, ask(seed=0, odd=[1.0, None]))
            assert answer.json()["model"] == "m"
        first, second = one.requests[0].body, two.requests[0].body
        assert second == first.replace(b'"m"', b'"theirs"', 1)


# ── patience ──


@pytest.mark.parametrize("form", ["seconds", "date", "ms", "both"])
async def test_a_channel_that_names_a_time_gets_no_traffic_until_then(form: Any) -> None:
    async with house() as it:
        it.one.default = Script(status=429, retry_after=30, retry_after_form=form)
        for _ in range(4):
            assert content(await post(it.server, ask())) == "from two"
        assert it.asked == (1, 4)


async def test_a_429_without_a_time_lets_the_other_come_first_but_is_still_asked_when_alone() -> None:
    async with house() as it:
        it.one.default = Script(status=429)
        for _ in range(4):
            assert content(await post(it.server, ask())) == "from two"
        assert it.asked == (1, 4)
        await it.two.stop_listening()
        await it.two.drop_connections()
        it.one.default = Script(text="again")
        assert content(await post(it.server, ask())) == "again"


async def test_a_time_that_is_too_long_goes_to_the_client() -> None:
    async with house() as it:
        it.one.default = it.two.default = Script(status=429, retry_after=40)
        answer = await post(it.server, ask())
        error_of(answer, 429)
        assert 38 <= int(answer.headers["retry-after"]) <= 40
        answer = await post(it.server, ask())
        assert error_of(answer, 503)["code"] == "no_channel"
        assert 38 <= int(answer.headers["retry-after"]) <= 40
        assert it.asked == (1, 1)


async def test_when_every_breaker_is_open_the_answer_comes_at_once() -> None:
    async with house() as it:
        for sim in (it.one, it.two):
            sim.default = Script(status=500)
        for _ in range(8):
            answer = await post(it.server, ask())
        assert error_of(answer, 503)["code"] == "no_channel"
        assert float(answer.headers["retry-after"]) >= 1
        before = it.asked
        assert (await post(it.server, ask())).status == 503
        assert it.asked == before


# ── a day in the life ──


async def test_one_of_three_is_killed_under_load_and_no_client_sees_it_before_its_first_delta() -> None:
    """Sixty clients without a pause; one upstream refuses and drops everything in the middle of it."""
    script = Script(delay_ms=5, pieces=("a", "b", "c"), pace_ms=2)
    killed = asyncio.Event()
    answers: list[Answer] = []

    async def client(server: Antiphon, number: int) -> None:
        for turn in range(8):
            answers.append(await post(server, ask(text=f"{number}.{turn}", stream=number % 3 > 0)))
            if len(answers) == 120:
                killed.set()

    async def kill(sim: OpenAISimulator) -> None:
        await killed.wait()
        await sim.stop_listening()
        await sim.drop_connections()

    async with (
        OpenAISimulator(default=script) as one,
        OpenAISimulator(default=script) as two,
        OpenAISimulator(default=script) as three,
    ):
        sims = {"one": one, "two": two, "three": three}
        channels = tuple(channel(sim, name=name) for name, sim in sims.items())
        async with antiphon(Settings(channels=channels, logging=QUIET)) as server:
            async with asyncio.TaskGroup() as group:
                group.create_task(kill(two))
                for number in range(60):
                    group.create_task(client(server, number))
            metrics = (await get(server, "/metrics")).body.decode()
            assert_nothing_left(server)
    assert len(answers) == 480
    assert {answer.status for answer in answers} == {200}
    cut = [answer for answer in answers if _is_cut(answer)]
    for answer in cut:
        *chunks, _ = data_lines(answer.body)
        assert text_of([json.loads(chunk) for chunk in chunks]) in ("a", "ab", "abc"), (
            "a first delta had left"
        )
    assert all(content(answer) == "abc" for answer in answers if answer not in cut)
    assert 'channel="two",outcome="upstream_unreachable"' in metrics


def _is_cut(answer: Answer) -> bool:
    if not answer.headers["content-type"].startswith("text/event-stream"):
        return False
    return data_lines(answer.body)[-1] != b"[DONE]"


async def test_weights_are_shares_of_the_traffic() -> None:
    async with OpenAISimulator() as one, OpenAISimulator() as two:
        channels = (channel(one, name="one", weight=3), channel(two, name="two", weight=1))
        async with antiphon(Settings(channels=channels, logging=QUIET)) as server:
            for _ in range(200):
                await post(server, ask())
        assert len(one.requests) + len(two.requests) == 200
        assert 120 <= len(one.requests) <= 180  # five sigma


async def test_a_date_in_the_past_asks_for_no_patience() -> None:
    async def serve(peer: Peer) -> None:
        while True:
            await peer.request()
            date = email.utils.formatdate(time.time() - 3600, usegmt=True)
            head = f"HTTP/1.1 503 Busy\r\nRetry-After: {date}\r\nContent-Length: 0\r\n\r\n"
            await peer.send(head.encode())

    async with raw_upstream(serve) as busy:
        base_url = f"http://127.0.0.1:{busy.port}/v1"
        breaker = Breaker(failures=0, rate=0)
        lone = Channel(name="a", kind="openai", base_url=base_url, models=("m",), breaker=breaker)
        async with antiphon(Settings(channels=(lone,), logging=QUIET)) as server:
            assert error_of(await post(server, ask()), 503)["code"] == "overloaded"
            assert error_of(await post(server, ask()), 503)["code"] == "overloaded"
