"""One request and what comes back: refusals, bodies to their ends, and what may not be echoed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import msgspec
import pytest

from server.errors import ServerError, UpstreamCut, UpstreamInvalid, UpstreamTimeout
from server.openai_wire import MAX_ANSWER_BYTES
from server.settings import Channel, Timeouts
from server.upstreams.clocks import Clocks
from server.upstreams.exchange import MAX_ERROR_BYTES, Exchange, drain, refusal_of, rest, secrets_of
from server.upstreams.http import HttpAnswer, HttpClient
from server.upstreams.http_fast import FastClient
from tests.raw_http import PATIENCE_S
from tests.upstreams.http_cases import CHUNKED, HI, each_request, target, then_close
from tests.upstreams.raw_upstream import Peer, RawUpstream, raw_upstream


class Refused(ServerError):
    """What the dialect under test makes of a refusal."""

    def __init__(self, status: int, body: bytes, wait_s: float | None) -> None:
        super().__init__("refused")
        self.told = (status, body, wait_s)


def read_refusal(status: int, body: bytes, *, wait_s: float | None = None) -> ServerError:
    return Refused(status, body, wait_s)


@pytest.fixture
async def fast() -> AsyncIterator[FastClient]:
    client = FastClient()
    yield client
    await client.aclose()


def an_exchange(client: FastClient, timeouts: Timeouts | None = None) -> Exchange:
    timeouts = timeouts or Timeouts()
    clocks = Clocks(client.patrol, timeouts, plain=False, deadline=None)
    return Exchange(client, timeouts.connect_s, clocks, read_refusal)


async def begun(client: FastClient, upstream: RawUpstream) -> HttpAnswer:
    async with asyncio.timeout(PATIENCE_S):
        return await an_exchange(client).begin(target(upstream), b"{}")


async def refusal(client: FastClient, upstream: RawUpstream) -> ServerError:
    with pytest.raises(ServerError) as raised:
        await begun(client, upstream)
    return raised.value


async def test_a_2xx_is_an_answer_to_be_read(fast: FastClient) -> None:
    async with raw_upstream(each_request(HI)) as upstream:
        answer = await begun(fast, upstream)
        assert (answer.status, await answer.read(), await answer.read()) == (200, b"hi", b"")


async def test_a_refusal_is_read_by_its_dialect(fast: FastClient) -> None:
    said = b"HTTP/1.1 429 Slow Down\r\nRetry-After: 7\r\nContent-Length: 4\r\n\r\nslow"
    async with raw_upstream(each_request(said)) as upstream:
        error = await refusal(fast, upstream)
    assert isinstance(error, Refused)
    assert error.told == (429, b"slow", 7)


async def test_a_refusal_whose_words_are_cut_is_told_by_its_status(fast: FastClient) -> None:
    said = b"HTTP/1.1 503 Busy\r\nContent-Length: 40\r\n\r\nhalf"
    async with raw_upstream(then_close(said)) as upstream:
        error = await refusal(fast, upstream)
    assert isinstance(error, Refused)
    assert error.told[0] == 503


async def test_a_refusal_whose_words_do_not_come_is_told_by_its_status(client: HttpClient) -> None:
    answers = [b"HTTP/1.1 400 Bad\r\nContent-Length: 40\r\n\r\nhalf", HI]

    async def serve(peer: Peer) -> None:
        await peer.request()
        await peer.send(answers.pop(0))
        await peer.gone()

    async with raw_upstream(serve) as upstream:
        async with asyncio.timeout(PATIENCE_S):
            answer = await client.post(target(upstream), b"{}", connect_s=PATIENCE_S)
            error = await refusal_of(answer, read_refusal, within_s=0.05)
            assert isinstance(error, Refused)
            assert error.told[0] == 400
            answer.close()
            again = await client.post(target(upstream), b"{}", connect_s=PATIENCE_S)
            assert await again.read() == b"hi"
            again.close()


async def test_of_endless_words_only_the_beginning_is_read(fast: FastClient) -> None:
    async def serve(peer: Peer) -> None:
        await peer.request()
        with suppress(ConnectionError):
            await peer.send(b"HTTP/1.1 500 Oops\r\nConnection: close\r\n\r\n" + b"x" * (4 * MAX_ERROR_BYTES))
        await peer.gone()

    async with raw_upstream(serve) as upstream:
        error = await refusal(fast, upstream)
    assert isinstance(error, Refused)
    assert MAX_ERROR_BYTES <= len(error.told[1]) < 3 * MAX_ERROR_BYTES


async def test_a_redirect_is_a_wrong_base_url(fast: FastClient) -> None:
    said = b"HTTP/1.1 308 Moved\r\nLocation: http://127.0.0.1/\r\nContent-Length: 0\r\n\r\n"
    async with raw_upstream(each_request(said)) as upstream:
        error = await refusal(fast, upstream)
    assert type(error) is UpstreamInvalid
    assert "base_url" in error.message


async def test_a_clock_that_runs_out_ends_the_reading(fast: FastClient) -> None:
    async with raw_upstream(each_request(CHUNKED)) as upstream:
        exchange = an_exchange(fast, Timeouts(total_s=1))  # enough to connect on a busy machine
        answer = await exchange.begin(target(upstream), b"{}")
        with pytest.raises(UpstreamTimeout):
            async with asyncio.timeout(PATIENCE_S):
                await answer.read()
        exchange.end()


async def test_the_end_of_an_exchange_closes_an_answer_that_was_not_read(fast: FastClient) -> None:
    left = asyncio.Event()

    async def serve(peer: Peer) -> None:
        await peer.request()
        await peer.send(CHUNKED)
        await peer.gone()
        left.set()

    async with raw_upstream(serve) as upstream:
        exchange = an_exchange(fast)
        await exchange.begin(target(upstream), b"{}")
        exchange.end()
        async with asyncio.timeout(PATIENCE_S):
            await left.wait()


async def test_an_exchange_may_end_before_it_began(fast: FastClient) -> None:
    an_exchange(fast).end()


async def test_the_rest_of_a_body_is_put_to_what_came(fast: FastClient) -> None:
    async with raw_upstream(each_request(CHUNKED + b"1\r\nb\r\n1\r\nc\r\n0\r\n\r\n")) as upstream:
        assert await rest(await begun(fast, upstream), b"a") == b"abc"


async def test_a_body_far_too_long_is_no_answer(fast: FastClient) -> None:
    async with raw_upstream(each_request(HI)) as upstream:
        answer = await begun(fast, upstream)
        with pytest.raises(UpstreamInvalid, match="too long"):
            await rest(answer, bytes(MAX_ANSWER_BYTES - 1))
        answer.close()


async def test_a_body_that_is_cut_is_no_answer(fast: FastClient) -> None:
    async with raw_upstream(then_close(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")) as upstream:
        answer = await begun(fast, upstream)
        with pytest.raises(UpstreamCut):
            await rest(answer, b"")


async def test_a_drained_answer_leaves_its_connection_for_the_next(fast: FastClient) -> None:
    async with raw_upstream(each_request(CHUNKED + b"1\r\nb\r\n0\r\n\r\n", HI)) as upstream:
        for _ in range(2):
            exchange = an_exchange(fast)
            answer = await exchange.begin(target(upstream), b"{}")
            await drain(answer)
            assert answer.at_end
            exchange.end()
        assert len(upstream.peers) == 1


@pytest.mark.parametrize("ending", [CHUNKED, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"])
async def test_an_answer_that_does_not_end_is_not_waited_for(fast: FastClient, ending: bytes) -> None:
    async with raw_upstream(each_request(ending)) as upstream:
        exchange = an_exchange(fast)
        answer = await exchange.begin(target(upstream), b"{}")
        async with asyncio.timeout(PATIENCE_S):
            await drain(answer)
        assert not answer.at_end
        exchange.end()


def test_keys_and_whatever_looks_like_one_are_secrets() -> None:
    headers = {"X-Team": "a", "X-Api-Key": "short", "Authorization": "Basic c2VjcmV0", "X-Long": "v" * 16}
    channel = msgspec.convert(
        {"name": "a", "kind": "openai", "api_key": "sk-1", "headers": headers, "models": ["m"]}, Channel
    )
    assert secrets_of(channel) == ("sk-1", "short", "Basic c2VjcmV0", "c2VjcmV0", "v" * 16)
    assert secrets_of(msgspec.structs.replace(channel, api_key=None, headers={})) == ()
