"""What is promised of retries, each with its unhappy twin, over several channels and from outside."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from server.settings import Breaker, Channel, Routing, Settings, TimeoutsPatch
from server.simulators.openai import OpenAISimulator
from server.simulators.script import Script
from tests.behaviour.asking import chunks_of, data_lines, error_of, get, post
from tests.behaviour.houses import ATTEMPTS, content
from tests.behaviour.running import QUIET, Antiphon, antiphon, ask, channel
from tests.upstreams.raw_upstream import Peer, raw_upstream

QUICK = Routing(backoff_s=0.001)


@dataclass(frozen=True)
class Street:
    """A server before several upstreams of one model; each says its own name."""

    server: Antiphon
    sims: list[OpenAISimulator]

    @property
    def asked(self) -> list[int]:
        return [len(sim.requests) for sim in self.sims]


@asynccontextmanager
async def street(*priorities: int, routing: Routing = QUICK, **more: Any) -> AsyncIterator[Street]:
    """One channel for each priority; ``more``: settings of all of them."""
    async with AsyncExitStack() as stack:
        sims, channels = [], []
        for number, priority in enumerate(priorities):
            name = f"channel {number}"
            sim = await stack.enter_async_context(OpenAISimulator(default=Script(text=f"from {number}")))
            sims.append(sim)
            channels.append(channel(sim, name=name, priority=priority, **more))
        settings = Settings(channels=tuple(channels), routing=routing, logging=QUIET)
        yield Street(await stack.enter_async_context(antiphon(settings)), sims)


# ── refused credentials ──


@pytest.mark.parametrize("status", [401, 402, 403])
async def test_refused_credentials_of_a_lone_channel_cost_one_call_and_are_no_401(status: int) -> None:
    async with street(0) as it:
        it.sims[0].default = Script(status=status)
        answer = await post(it.server, ask())
        assert answer.status in (429, 502)
        assert answer.headers["x-should-retry"] == "false"
        assert it.asked == [1]


async def test_a_channel_that_refused_credentials_is_asked_last_by_the_next_request() -> None:
    async with street(1, 0) as it:
        it.sims[0].default = Script(status=401)
        assert content(await post(it.server, ask())) == "from 1"
        assert content(await post(it.server, ask())) == "from 1"
        assert it.asked == [1, 2]


# ── who is asked next, and how often ──


async def test_siblings_of_the_same_priority_come_before_a_lower_one() -> None:
    async with street(1, 1, 0) as it:
        it.sims[0].default = Script(status=500)
        for _ in range(12):
            assert content(await post(it.server, ask())) == "from 1"
        assert it.asked[2] == 0


async def test_when_the_whole_priority_fails_the_lower_one_answers() -> None:
    async with street(1, 1, 0) as it:
        it.sims[0].default = it.sims[1].default = Script(status=500)
        answer = await post(it.server, ask())
        assert content(answer) == "from 2"
        assert it.asked == [1, 1, 1]
        assert answer.headers[ATTEMPTS] == "upstream_error, upstream_error, ok"


async def test_a_lone_channel_is_asked_once_more_and_may_be_well_then() -> None:
    async with street(0) as it:
        it.sims[0].script(Script(status=500))
        assert content(await post(it.server, ask())) == "from 0"
        assert it.asked == [2]


async def test_a_lone_channel_that_stays_ill_is_not_asked_for_ever() -> None:
    async with street(0) as it:
        it.sims[0].default = Script(status=500)
        error_of(await post(it.server, ask()), 502)
        assert it.asked == [2]


async def test_four_sick_channels_cost_three_attempts() -> None:
    async with street(3, 2, 1, 0) as it:
        for sim in it.sims:
            sim.default = Script(status=500)
        error_of(await post(it.server, ask()), 502)
        assert it.asked == [1, 1, 1, 0]


# ── what is told when nothing is left ──


async def test_a_429_that_names_a_time_is_not_hidden_behind_a_refused_connection() -> None:
    async with street(2, 1, 0) as it:
        it.sims[0].default = Script(status=429, retry_after=30)
        for sim in it.sims[1:]:
            await sim.stop_listening()
        answer = await post(it.server, ask())
        assert error_of(answer, 429)["code"] == "rate_limit_exceeded"
        assert 28 <= int(answer.headers["retry-after"]) <= 30
        assert answer.headers[ATTEMPTS].startswith("rate_limit_exceeded, upstream_unreachable")


async def test_refused_connections_alone_are_told_as_such() -> None:
    async with street(1, 0) as it:
        for sim in it.sims:
            await sim.stop_listening()
        assert error_of(await post(it.server, ask()), 502)["code"] == "upstream_unreachable"


async def test_when_the_whole_time_is_over_no_further_attempt_is_made() -> None:
    async with street(1, 0, timeouts=TimeoutsPatch(total_s=0.3, connect_s=0.1)) as it:
        it.sims[0].default = Script(silent=True)
        answer = await post(it.server, ask())
        assert error_of(answer, 504)["code"] == "upstream_timeout_total"
        assert it.asked == [1, 0]


async def test_a_time_in_milliseconds_that_is_short_is_waited_for() -> None:
    async with street(0) as it:
        it.sims[0].script(Script(status=429, retry_after=0.05, retry_after_form="ms"))
        assert content(await post(it.server, ask())) == "from 0"
        assert it.asked == [2]


# ── the breaker ──


async def test_the_first_choice_is_used_again_once_it_is_well() -> None:
    async with street(1, 0, breaker=Breaker(failures=1, open_s=0.05)) as it:
        it.sims[0].script(Script(status=500))
        assert content(await post(it.server, ask())) == "from 1"
        said = ""
        for _ in range(200):
            said = content(await post(it.server, ask()))
            if said == "from 0":
                break
        assert said == "from 0"


async def test_a_first_choice_that_stays_ill_is_tried_by_one_probe_and_no_client_sees_it() -> None:
    async with street(1, 0, breaker=Breaker(failures=1, open_s=0.05, max_open_s=60)) as it:
        it.sims[0].default = Script(status=500)
        for _ in range(40):
            assert content(await post(it.server, ask())) == "from 1"
        assert it.asked[0] < 10


async def test_mistakes_of_clients_open_no_breaker() -> None:
    async with street(0, breaker=Breaker(failures=2)) as it:
        it.sims[0].script(Script(status=400), times=6)
        for _ in range(6):
            error_of(await post(it.server, ask()), 400)
        assert content(await post(it.server, ask())) == "from 0"


# ── after the first delta, and what is seen of attempts ──


async def test_after_the_first_delta_no_other_channel_is_asked() -> None:
    async with street(1, 0) as it:
        it.sims[0].default = Script(pieces=("a", "b"), cut_after=1)
        answer = await post(it.server, ask(stream=True))
        assert it.asked == [1, 0]
        assert data_lines(answer.body)[-1] != b"[DONE]"
        assert b"from 1" not in answer.body


async def test_a_cut_before_the_first_delta_leaves_no_trace_in_the_answer() -> None:
    async with street(1, 0) as it:
        it.sims[0].default = Script(cut_after=0)
        answer = await post(it.server, ask(stream=True))
        assert it.asked == [1, 1]
        roles = [
            choice["delta"]["role"]
            for chunk in chunks_of(answer.body)
            for choice in chunk["choices"]
            if "role" in choice["delta"]
        ]
        assert roles == ["assistant"]
        assert content(answer) == "from 1"
        metrics = (await get(it.server, "/metrics")).body.decode()
        assert 'channel="channel 0",outcome="upstream_cut"' in metrics


async def test_a_request_that_succeeds_at_once_tells_nothing_of_attempts() -> None:
    async with street(1, 0) as it:
        answer = await post(it.server, ask())
        assert ATTEMPTS not in answer.headers
        assert it.asked == [1, 0]


# ── a kept connection that turns out to be closed ──

KEPT = (
    b'{"id":"c","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":'
    b'{"role":"assistant","content":"well"},"finish_reason":"stop"}],"usage":{"total_tokens":2}}'
)


@pytest.mark.parametrize("stays", [True, False])
async def test_a_request_that_is_sent_again_on_a_new_connection_is_told_as_two_attempts(stays: bool) -> None:
    """``stays``: the new connection answers; else it is reset as well, and the third attempt answers."""
    requests = 0

    async def serve(peer: Peer) -> None:
        nonlocal requests
        while True:
            await peer.request()
            requests += 1
            if requests in ((2,) if stays else (2, 3)):
                peer.reset()
                return
            await peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: ")
            await peer.send(b"%d\r\n\r\n%b" % (len(KEPT), KEPT))
            if requests > 2:
                await peer.gone()
                return

    async with raw_upstream(serve) as upstream:
        raw = Channel(name="c", kind="openai", base_url=f"http://127.0.0.1:{upstream.port}/v1", models=("m",))
        async with antiphon(Settings(channels=(raw,), routing=QUICK, logging=QUIET)) as server:
            assert ATTEMPTS not in (await post(server, ask())).headers
            answer = await post(server, ask())
            assert content(answer) == "well"
            expected = ["upstream_unreachable"] * (1 if stays else 2) + ["ok"]
            assert answer.headers[ATTEMPTS].split(", ") == expected
            assert requests == 1 + len(expected)  # what was sent is what is told


async def test_requests_that_are_sent_again_come_out_of_the_number_of_attempts() -> None:
    requests = 0

    async def serve(peer: Peer) -> None:
        nonlocal requests
        await peer.request()
        requests += 1
        if requests == 1:
            await peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: ")
            await peer.send(b"%d\r\n\r\n%b" % (len(KEPT), KEPT))
            await peer.request()
            requests += 1
        peer.reset()

    async with raw_upstream(serve) as upstream:
        raw = Channel(name="c", kind="openai", base_url=f"http://127.0.0.1:{upstream.port}/v1", models=("m",))
        routing = Routing(backoff_s=0.001, attempts=2)
        async with antiphon(Settings(channels=(raw,), routing=routing, logging=QUIET)) as server:
            await post(server, ask())
            answer = await post(server, ask())
            assert error_of(answer, 502)["code"] == "upstream_unreachable"
            assert answer.headers[ATTEMPTS] == "upstream_unreachable, upstream_unreachable"
            assert requests == 3


async def test_a_clients_own_mistake_is_told_while_every_channel_cools() -> None:
    async with street(0) as it:
        it.sims[0].default = Script(status=429, retry_after=30)
        error_of(await post(it.server, ask()), 429)
        assert error_of(await post(it.server, ask()), 503)["code"] == "no_channel"
        assert error_of(await post(it.server, ask(messages=[])), 400)["param"] == "messages"
        assert error_of(await post(it.server, ask(temperature="hot")), 400)["param"] == "temperature"
        error_of(await post(it.server, ask("nobody")), 404)
        assert it.asked == [1]
