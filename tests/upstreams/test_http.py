"""What both HTTP clients promise, on both event loops."""

from __future__ import annotations

import asyncio
import gzip
import ssl
import zlib

import pytest
from yarl import URL

from server.errors import UpstreamInvalid, UpstreamTimeout, UpstreamUnreachable
from server.settings import Tls
from server.upstreams.http import Fail, HttpClient, Target, nobody_watches, watched
from tests.upstreams.http_cases import (
    CERTIFICATE,
    CHUNKED,
    HI,
    ask,
    each_request,
    fails,
    read_all,
    target,
    then_close,
    until,
)
from tests.upstreams.raw_upstream import Peer, raw_upstream

# ── requests ──


async def test_a_request_is_what_the_target_says_and_nothing_else(client: HttpClient) -> None:
    seen = []

    async def serve(peer: Peer) -> None:
        seen.append(await peer.request())
        await peer.send(HI)
        await peer.gone()

    async with raw_upstream(serve) as upstream:
        assert await ask(client, target(upstream, "/v1/chat?a=b%20c"), b'{"x":1}') == b"hi"
        request = seen[0]
        lines = request.head.decode().split("\r\n")
        assert lines[0] == "POST /v1/chat?a=b%20c HTTP/1.1"
        fields = dict(line.lower().split(": ", 1) for line in lines[1:-2])
        assert fields["host"] == f"127.0.0.1:{upstream.port}"
        assert fields["authorization"] == "bearer sk-secret"
        assert fields["content-length"] == "7"
        assert "cookie" not in fields
        assert "transfer-encoding" not in fields
        assert request.body == b'{"x":1}'


@pytest.mark.parametrize("size", [0, 1, 32 * 1024, 32 * 1024 + 1, 5_000_000])
async def test_a_body_of_any_size_arrives_whole(client: HttpClient, size: int) -> None:
    body = bytes(range(256)) * (size // 256 + 1)
    body = body[:size]

    async def serve(peer: Peer) -> None:
        assert (await peer.request()).body == body
        await peer.send(HI)
        await peer.gone()

    async with raw_upstream(serve) as upstream:
        assert await ask(client, target(upstream), body) == b"hi"


# ── answers ──


async def test_an_answer_has_status_headers_and_body(client: HttpClient) -> None:
    answer_bytes = b"HTTP/1.1 429 Slow\r\nRetry-After: 7\r\nX-A: 1\r\nx-a: 2\r\nContent-Length: 2\r\n\r\nno"
    async with raw_upstream(each_request(answer_bytes)) as upstream:
        answer = await client.post(target(upstream), b"{}", connect_s=5)
        assert answer.status == 429
        assert answer.headers["retry-after"] == "7"
        assert answer.headers["x-a"] == "1, 2"
        assert await read_all(answer) == b"no"
        assert answer.at_end
        answer.close()
        answer.close()  # does nothing


@pytest.mark.parametrize(
    ("data", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b""),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (CHUNKED + b"1\r\nh\r\n1\r\ni\r\n0\r\n\r\n", b"hi"),
        (CHUNKED + b"2\r\nhi\r\n0\r\nX-Sum: 1\r\n\r\n", b"hi"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: a\r\n\r\n" + HI, b"hi"),
    ],
)
@pytest.mark.parametrize("apart", [False, True])
async def test_the_connection_is_used_again(
    client: HttpClient, data: bytes, body: bytes, apart: bool
) -> None:
    async def serve(peer: Peer) -> None:
        for _ in range(3):
            await peer.request()
            for piece in [data[at : at + 1] for at in range(len(data))] if apart else [data]:
                await peer.send(piece)
        await peer.gone()

    async with raw_upstream(serve) as upstream:
        for _ in range(3):
            assert await ask(client, target(upstream)) == body
        assert len(upstream.peers) == 1


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi",
    ],
)
async def test_a_connection_that_the_server_will_close_is_not_used_again(
    client: HttpClient, data: bytes
) -> None:
    async with raw_upstream(each_request(data, data)) as upstream:
        assert await ask(client, target(upstream)) == b"hi"
        assert await ask(client, target(upstream)) == b"hi"
        assert len(upstream.peers) == 2
        await until(lambda: not upstream.open)


async def test_a_body_without_a_length_ends_with_the_connection(client: HttpClient) -> None:
    async with raw_upstream(then_close(b"HTTP/1.1 200 OK\r\n\r\nhello")) as upstream:
        assert await ask(client, target(upstream)) == b"hello"


async def test_pieces_come_as_they_are_sent(client: HttpClient) -> None:
    turn = asyncio.Event()

    async def serve(peer: Peer) -> None:
        await peer.request()
        await peer.send(CHUNKED)
        for piece in (b"one", b"two"):
            await turn.wait()
            turn.clear()
            await peer.send(b"3\r\n" + piece + b"\r\n")
        await turn.wait()
        await peer.send(b"0\r\n\r\n")
        await peer.gone()

    async with raw_upstream(serve) as upstream:
        answer = await client.post(target(upstream), b"{}", connect_s=5)
        for piece in (b"one", b"two", b""):
            assert not answer.at_end
            turn.set()
            assert await answer.read() == piece
        assert answer.at_end
        answer.close()


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_a_compressed_body_is_inflated(client: HttpClient, encoding: str) -> None:
    text = b"hello " * 50_000
    body = gzip.compress(text) if encoding == "gzip" else zlib.compress(text)
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: {encoding}\r\nContent-Length: {len(body)}\r\n\r\n"
    data = head.encode() + body
    async with raw_upstream(each_request(data, data)) as upstream:
        assert await ask(client, target(upstream)) == text
        assert await ask(client, target(upstream)) == text
        assert len(upstream.peers) == 1


@pytest.mark.parametrize("encoding", [b"br", b"gzip"])
async def test_a_body_that_cannot_be_inflated_is_invalid(client: HttpClient, encoding: bytes) -> None:
    data = b"HTTP/1.1 200 OK\r\nContent-Encoding: %b\r\nContent-Length: 9\r\n\r\nwhatever!" % encoding
    async with raw_upstream(each_request(data)) as upstream:
        await fails(client, target(upstream), UpstreamInvalid)
        await until(lambda: not upstream.open)


# ── backpressure ──


async def test_a_reader_that_does_not_read_holds_up_the_server(client: HttpClient) -> None:
    piece, count = b"x" * 65536, 300

    async def serve(peer: Peer) -> None:
        await peer.request()
        await peer.send(CHUNKED)
        for _ in range(count):
            await peer.send(b"10000\r\n" + piece + b"\r\n")
        await peer.send(b"0\r\n\r\n")
        await peer.gone()

    async with raw_upstream(serve) as upstream:
        answer = await client.post(target(upstream), b"{}", connect_s=5)
        total = largest = 0
        while data := await answer.read():
            total += len(data)
            largest = max(largest, len(data))
            for _ in range(5):
                await asyncio.sleep(0)  # the socket could bring more and more meanwhile
        assert total == len(piece) * count
        assert largest <= 1024 * 1024
        answer.close()
        assert len(upstream.open) == 1  # kept


# ── TLS ──


@pytest.mark.parametrize("tls", [Tls(ca_file=str(CERTIFICATE)), Tls(verify=False)])
async def test_requests_go_over_tls(client: HttpClient, server_tls: ssl.SSLContext, tls: Tls) -> None:
    async with raw_upstream(each_request(HI, HI, CHUNKED), tls=server_tls) as upstream:
        to = target(upstream, tls=tls)
        assert [await ask(client, to), await ask(client, to)] == [b"hi", b"hi"]
        assert len(upstream.peers) == 1
        answer = await client.post(to, b"{}", connect_s=5)
        answer.close()
        await until(lambda: not upstream.open)


async def test_a_certificate_that_nobody_vouches_for_is_refused(
    client: HttpClient, server_tls: ssl.SSLContext
) -> None:
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)  # the server's complaint
    async with raw_upstream(each_request(HI), tls=server_tls) as upstream:
        await fails(client, target(upstream, tls=Tls()), UpstreamUnreachable)


# ── targets ──


def test_a_target_shows_no_secret() -> None:
    assert "sk-secret" not in repr(target(1))


@pytest.mark.parametrize("value", ["a\r\nX-Evil: 1", "a\nb", "a\0"])
def test_a_header_of_several_lines_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match="one line"):
        Target(URL("http://localhost/"), {"X-A": value})


@pytest.mark.parametrize("url", ["ftp://localhost/", "/v1", "https://localhost/"])
def test_a_target_is_an_http_url_and_an_https_one_has_tls(url: str) -> None:
    with pytest.raises(ValueError, match="http"):
        Target(URL(url), {})


# ── a step that is watched ──


async def test_a_step_gives_what_it_makes() -> None:
    ends: list[Fail] = []
    discarded: list[str] = []

    async def step() -> str:
        return "made"

    assert await watched(step(), ends.append, discard=discarded.append) == "made"
    assert (len(ends), discarded) == (1, [])


async def test_a_step_that_is_ended_raises_what_ended_it() -> None:
    async def step() -> None:
        await asyncio.Event().wait()

    def end(fail: Fail) -> None:
        asyncio.get_running_loop().call_soon(fail, UpstreamInvalid("over"))

    with pytest.raises(UpstreamInvalid, match="over"):
        await watched(step(), end, discard=lambda made: None)


async def test_what_comes_about_as_the_call_ends_is_discarded() -> None:
    discarded: list[str] = []
    ends: list[Fail] = []

    async def step() -> str:
        ends[0](UpstreamInvalid("over"))  # and it is made all the same, before anything is cancelled
        return "made"

    with pytest.raises(UpstreamInvalid, match="over"):
        await watched(step(), ends.append, discard=discarded.append)
    assert discarded == ["made"]


async def test_a_step_has_its_time_and_the_kernels_own_time_out_goes_through() -> None:
    async def endless() -> None:
        await asyncio.Event().wait()

    async def given_up() -> None:
        raise TimeoutError("the kernel's")

    with pytest.raises(UpstreamTimeout) as raised:
        await watched(endless(), nobody_watches, discard=lambda made: None, connect_s=0.01)
    assert raised.value.code == "upstream_timeout_connect"
    with pytest.raises(TimeoutError, match="kernel"):
        await watched(given_up(), nobody_watches, discard=lambda made: None, connect_s=60)
