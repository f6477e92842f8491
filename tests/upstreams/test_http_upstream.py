"""What every channel over HTTP does, shown by a dialect of three words."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable
from typing import Any

import msgspec
import pytest
from yarl import URL

from server.chat import ChatRequest
from server.deltas import Batch, Delta, Finished, TextDelta
from server.errors import RateLimited, ServerError, UpstreamCut, UpstreamError, UpstreamRefused
from server.gemini_settings import GeminiModel as OwnModel
from server.gemini_wire import GeminiModel
from server.settings import Channel
from server.upstreams.base import Call
from server.upstreams.http import HttpClient, Target
from server.upstreams.http_fast import FastClient
from server.upstreams.http_upstream import HEADERS, LARGE_BYTES, HttpUpstream, channel_target, with_own
from tests.channels import chat, deltas, failure, said_and_failed
from tests.upstreams.http_cases import CHUNKED, each_request, then_close
from tests.upstreams.raw_upstream import Peer, raw_upstream

KEY = "sk-of-the-channel-0123456789"


class Words:
    """Its answers are words: "end" ends one, "hm" is said by who waits, "?" is unknown."""

    def __init__(self) -> None:
        self.done = False
        self.quiet = True
        self.skipped = 0

    def feed(self, data: bytes) -> Batch:
        words = data.decode().split()
        self.quiet = words == ["hm"]
        self.skipped += words.count("?")
        self.done = "end" in words
        return [TextDelta(word) for word in words if word not in ("hm", "?", "end")]

    def eof(self) -> Batch:
        if not self.done:
            raise UpstreamCut("cut")
        return [Finished("stop")]


class Worded(HttpUpstream):
    """Told an address, it may be asked to find it out."""

    skips = "odd words"

    def __init__(self, channel: Channel, client: HttpClient, *, finds: bool = False) -> None:
        super().__init__(channel, client)
        self._finds = finds

    def target(self, chat: ChatRequest, call: Call) -> Target | Awaitable[Target]:
        return self._find() if self._finds else self._target()

    def body(self, chat: ChatRequest, call: Call) -> bytes:
        return b"say"

    def reader(self, *, stream: bool) -> Words:
        return Words()

    def read_refusal(self, status: int, body: bytes, *, wait_s: float | None = None) -> ServerError:
        return UpstreamRefused(body.decode(), upstream_status=status)

    def explained(self, error: ServerError) -> ServerError:
        return RateLimited(f"said {error.message}") if "slow" in error.message else error

    def _target(self) -> Target:
        return channel_target(self._channel, URL(self._channel.base_url or ""), {})

    async def _find(self) -> Target:
        await asyncio.sleep(0)
        return self._target()


def channel(port: int = 1, **settings: Any) -> Channel:
    known = {"name": "a", "kind": "openai", "base_url": f"http://127.0.0.1:{port}/x", "api_key": KEY}
    return msgspec.convert({**known, "models": {"m": {"model": "theirs-1"}}, **settings}, Channel)


def said(words: str, status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(words)}\r\n\r\n{words}".encode()


@pytest.mark.parametrize("finds", [False, True])
@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_is_read_to_its_end(client: HttpClient, finds: bool, stream: bool) -> None:
    async with raw_upstream(each_request(said("one two end"))) as upstream:
        told = await deltas(Worded(channel(upstream.port), client, finds=finds), request=chat(stream=stream))
    assert told == [TextDelta("one"), TextDelta("two"), Finished("stop")]


@pytest.mark.parametrize("stream", [False, True])
async def test_what_was_skipped_is_told_in_the_log(
    client: HttpClient, caplog: pytest.LogCaptureFixture, stream: bool
) -> None:
    async with raw_upstream(each_request(said("? one ? end"))) as upstream:
        await deltas(Worded(channel(upstream.port), client), request=chat(stream=stream))
    assert "channel a: 2 odd words skipped" in caplog.text


async def test_an_answer_that_is_cut_says_what_came_and_fails(client: HttpClient) -> None:
    async with raw_upstream(then_close(CHUNKED + b"3\r\none\r\n0\r\n\r\n")) as upstream:
        told, error = await said_and_failed(Worded(channel(upstream.port), client))
    assert (told, type(error)) == (["one"], UpstreamCut)


@pytest.mark.parametrize("stream", [False, True])
async def test_errors_go_on_without_secrets_by_our_name_of_the_model(
    client: HttpClient, stream: bool
) -> None:
    async with raw_upstream(each_request(said(f"theirs-1 dislikes {KEY}", "400 No"))) as upstream:
        error = await failure(Worded(channel(upstream.port), client), request=chat(stream=stream))
    assert (type(error), error.message) == (UpstreamRefused, "m dislikes ***")


@pytest.mark.parametrize("stream", [False, True])
async def test_a_vendors_meaning_replaces_an_error_and_is_cleaned_too(
    client: HttpClient, stream: bool
) -> None:
    async with raw_upstream(each_request(said("slow down, theirs-1", "400 No"))) as upstream:
        error = await failure(Worded(channel(upstream.port), client), request=chat(stream=stream))
    assert (type(error), error.message) == (RateLimited, "said slow down, m")
    assert isinstance(error.__cause__, UpstreamRefused)


async def test_what_waits_says_nothing_before_it_speaks(client: HttpClient) -> None:
    async def serve(peer: Peer) -> None:
        await peer.request()
        await peer.send(CHUNKED + b"2\r\nhm\r\n")
        await peer.send(b"7\r\none end\r\n0\r\n\r\n")
        await peer.gone()

    async with raw_upstream(serve) as upstream:
        told = await deltas(Worded(channel(upstream.port), client))
    assert told[-1] == Finished("stop")


class Long(Words):
    """Says what has come at the end of a line; ``apart`` tells of each call: was it in another thread?"""

    def __init__(self) -> None:
        super().__init__()
        self.loop_thread = threading.get_ident()
        self.apart: list[bool] = []
        self.held = b""

    def feed(self, data: bytes) -> Batch:
        self.apart.append(threading.get_ident() != self.loop_thread)
        self.held += data
        if not data.endswith(b"\n"):
            return []
        line, self.held = self.held, b""
        return [TextDelta(line.decode())]

    def eof(self) -> Batch:
        self.apart.append(threading.get_ident() != self.loop_thread)
        return [TextDelta(self.held.decode()), Finished("stop")]


class LongWinded(Worded):
    def __init__(self, channel: Channel, client: HttpClient) -> None:
        super().__init__(channel, client)
        self.long = Long()

    def reader(self, *, stream: bool) -> Long:
        return self.long


async def test_what_is_large_is_read_in_a_thread_and_what_follows_is_not(client: HttpClient) -> None:
    size = LARGE_BYTES + 1
    line = "x" * (size - 1) + "\n"

    async def serve(peer: Peer) -> None:
        await peer.request()
        await peer.send(CHUNKED + b"%x\r\n%b\r\n" % (size, line.encode()))
        await heard.wait()
        await peer.send(b"6\r\nshort\n\r\n0\r\n\r\n")
        await peer.gone()

    heard = asyncio.Event()
    async with raw_upstream(serve) as upstream:
        upstream_of = LongWinded(channel(upstream.port), client)
        told: list[Delta] = []
        async for batch in upstream_of.stream(chat(stream=True), Call()):
            told += batch
            heard.set()
    assert [delta.text for delta in told if type(delta) is TextDelta] == [line, "short\n", ""]
    apart = upstream_of.long.apart
    assert not apart[0], "nobody knows yet how long it will be"
    assert apart[-3:] == [True, False, False]


@pytest.mark.parametrize(("size", "apart"), [(LARGE_BYTES - 1, False), (LARGE_BYTES, True)])
async def test_a_plain_answer_that_is_large_is_read_in_a_thread(
    client: HttpClient, size: int, apart: bool
) -> None:
    async with raw_upstream(each_request(said("x" * size))) as upstream:
        upstream_of = LongWinded(channel(upstream.port), client)
        told = await deltas(upstream_of, request=chat(stream=False))
    assert told == [TextDelta("x" * size), Finished("stop")]
    assert upstream_of.long.apart[-1] is apart


async def test_a_server_that_is_not_there_is_an_error_of_ours(client: HttpClient) -> None:
    assert isinstance(await failure(Worded(channel(9), client)), UpstreamError)


def test_a_channels_own_headers_stand_in_for_ours_in_any_case_of_letters() -> None:
    own = {"user-agent": "mine", "x-key": "other", "X-Team": "a"}
    target = channel_target(channel(headers=own), URL("http://127.0.0.1/x"), {"X-Key": "k", "X-Version": "1"})
    rest = {name: value for name, value in HEADERS.items() if name != "User-Agent"}
    assert target.headers == {**rest, "X-Version": "1", **own}
    assert target.tls is None


def test_only_https_is_verified() -> None:
    assert channel_target(channel(), URL("https://127.0.0.1/x"), {}).tls is not None


async def test_it_is_always_available_and_has_nothing_to_close() -> None:
    client = FastClient()
    upstream = Worded(channel(), client)
    assert upstream.unavailable is None
    await upstream.aclose()
    await client.aclose()


def test_a_channels_own_settings_of_a_model_stand_over_what_its_name_tells() -> None:
    known = GeminiModel(thinking="budget", signed=True)
    assert with_own(known, None) is known
    assert with_own(known, OwnModel(signed=False)) == GeminiModel(thinking="budget", signed=False)
