"""What both HTTP clients promise, on both event loops."""

from __future__ import annotations

import asyncio
import gzip
import ssl
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from yarl import URL

from server.errors import ServerError, UpstreamCut, UpstreamInvalid, UpstreamTimeout, UpstreamUnreachable
from server.settings import Tls
from server.upstreams.http import MAX_HEAD_BYTES, HttpAnswer, HttpClient, Target, tls_context
from server.upstreams.http_aiohttp import AiohttpClient
from server.upstreams.http_fast import FastClient
from tests.raw_http import PATIENCE_S
from tests.upstreams.raw_upstream import Peer, RawUpstream, raw_upstream

CERTIFICATE = Path(__file__).parents[1] / "localhost.pem"
HEADERS = {"User-Agent": "antiphon", "Authorization": "Bearer sk-secret"}
HI = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(params=["fast", "aiohttp"])
async def client(request: pytest.FixtureRequest) -> AsyncIterator[HttpClient]:
    tasks = tasks_of_others()
    client: HttpClient = FastClient() if request.param == "fast" else AiohttpClient()
    yield client
    await client.aclose()
    assert tasks_of_others() <= tasks


def tasks_of_others() -> set[asyncio.Task[object]]:
    return {task for task in asyncio.all_tasks() if task is not asyncio.current_task()}


def target(upstream: RawUpstream | int, path: str = "/v1/chat", *, tls: Tls | None = None) -> Target:
    port = upstream if isinstance(upstream, int) else upstream.port
    scheme, host = ("http", "127.0.0.1") if tls is None else ("https", "localhost")
    url = URL(f"{scheme}://{host}:{port}{path}")
    return Target(url, HEADERS, tls=None if tls is None else tls_context(tls))


def each_request(*answers: bytes) -> Callable[[Peer], Awaitable[None]]:
    """Every connection gets these answers, one for each request; then it waits for the client to close."""

    async def serve(peer: Peer) -> None:
        for answer in answers:
            await peer.request()
            await peer.send(answer)
        await peer.gone()

    return serve


def then_close(answer: bytes) -> Callable[[Peer], Awaitable[None]]:
    async def serve(peer: Peer) -> None:
        await peer.request()
        await peer.send(answer)

    return serve


async def read_all(answer: HttpAnswer) -> bytes:
    body = b""
    async with asyncio.timeout(PATIENCE_S):
        while data := await answer.read():
            body += data
    return body


async def ask(client: HttpClient, to: Target, body: bytes = b"{}") -> bytes:
    """One request; the answer's body."""
    answer = await client.post(to, body, connect_s=PATIENCE_S)
    try:
        return await read_all(answer)
    finally:
        answer.close()


async def fails(client: HttpClient, to: Target, error: type[ServerError]) -> None:
    with pytest.raises(error) as raised:
        await ask(client, to)
    assert type(raised.value) is error


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


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


# ── faults ──


async def test_nobody_listens(client: HttpClient) -> None:
    async with raw_upstream(each_request()) as upstream:
        port = upstream.port
    await fails(client, target(port), UpstreamUnreachable)


async def test_a_name_that_cannot_be_one(client: HttpClient) -> None:
    await fails(client, Target(URL("http://127.0.0.1.x..y:80/"), HEADERS), UpstreamUnreachable)


@pytest.mark.parametrize("data", [b"", b"HTTP/1.1 200 OK\r\nContent-Le"])
async def test_closed_before_an_answer(client: HttpClient, data: bytes) -> None:
    async with raw_upstream(then_close(data)) as upstream:
        await fails(client, target(upstream), UpstreamUnreachable)
        assert len(upstream.peers) == 1


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"<html>nginx</html>\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nhi",
        b"HTTP/1.1 200 OK\r\nA: " + b"x" * (MAX_HEAD_BYTES + 10) + b"\r\n\r\n",
    ],
)
async def test_an_answer_that_is_not_http_is_invalid(client: HttpClient, data: bytes) -> None:
    async with raw_upstream(each_request(data)) as upstream:
        await fails(client, target(upstream), UpstreamInvalid)
        await until(lambda: not upstream.open)


@pytest.mark.parametrize(
    "rest", [b"Content-Length: 9\r\n\r\nhi", b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n"]
)
@pytest.mark.parametrize("how", ["close", "reset"])
async def test_a_body_that_ends_too_early_is_cut(client: HttpClient, rest: bytes, how: str) -> None:
    got = asyncio.Event()

    async def serve(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n" + rest)
        await got.wait()
        peer.reset() if how == "reset" else peer.close()

    async with raw_upstream(serve) as upstream:
        answer = await client.post(target(upstream), b"{}", connect_s=5)
        assert await answer.read() == b"hi"
        got.set()
        with pytest.raises(UpstreamCut):
            await answer.read()
        assert not answer.at_end
        answer.close()


async def test_after_a_fault_the_next_request_is_clean(client: HttpClient) -> None:
    answers = iter([b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi", HI])

    async with raw_upstream(lambda peer: then_close(next(answers))(peer)) as upstream:
        await fails(client, target(upstream), UpstreamCut)
        assert await ask(client, target(upstream)) == b"hi"


async def test_a_body_that_was_not_read_out_closes_the_connection(client: HttpClient) -> None:
    more = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi"
    async with raw_upstream(each_request(more, more)) as upstream:
        for number in (1, 2):
            answer = await client.post(target(upstream), b"{}", connect_s=5)
            assert await answer.read() == b"hi"
            answer.close()
            await until(lambda: not upstream.open)
            assert len(upstream.peers) == number


async def test_bytes_behind_an_answer_never_become_the_next_answer(client: HttpClient) -> None:
    async with raw_upstream(each_request(HI + HI.replace(b"hi", b"NO"), HI)) as upstream:
        assert await ask(client, target(upstream)) == b"hi"
        assert await ask(client, target(upstream)) == b"hi"
        assert len(upstream.peers) == 2


# ── clocks, cancelling, closing ──


async def test_the_connect_clock_covers_the_handshake(client: HttpClient) -> None:
    async def serve(peer: Peer) -> None:
        await peer.gone()  # TLS is never answered

    async with raw_upstream(serve) as upstream:
        with pytest.raises(UpstreamTimeout) as raised:
            await client.post(target(upstream, tls=Tls()), b"{}", connect_s=0.05)
        assert raised.value.clock == "connect"
        await until(lambda: not upstream.open)


async def test_a_clock_that_runs_out_ends_the_pending_read(client: HttpClient) -> None:
    async with raw_upstream(each_request(CHUNKED)) as upstream:
        answer = await client.post(target(upstream), b"{}", connect_s=5)
        asyncio.get_running_loop().call_soon(answer.fail, UpstreamTimeout("idle", 1))
        with pytest.raises(UpstreamTimeout):
            await answer.read()
        answer.close()
        await until(lambda: not upstream.open)


async def test_a_clock_that_has_run_out_ends_the_next_read(client: HttpClient) -> None:
    async with raw_upstream(each_request(CHUNKED)) as upstream:
        answer = await client.post(target(upstream), b"{}", connect_s=5)
        answer.fail(UpstreamTimeout("total", 1))
        with pytest.raises(UpstreamTimeout):
            await answer.read()
        answer.close()


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"])
async def test_cancelled_before_the_head_the_connection_closes(client: HttpClient, sent: bytes) -> None:
    asked = asyncio.Event()

    async def serve(peer: Peer) -> None:
        await peer.request()
        await peer.send(sent)
        asked.set()
        await peer.gone()

    async with raw_upstream(serve) as upstream:
        task = asyncio.create_task(ask(client, target(upstream)))
        await asked.wait()
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()
        await until(lambda: not upstream.open)


async def test_cancelled_during_the_handshake_the_connection_closes(client: HttpClient) -> None:
    async def serve(peer: Peer) -> None:
        await peer.gone()

    async with raw_upstream(serve) as upstream:
        task = asyncio.create_task(ask(client, target(upstream, tls=Tls())))
        await until(lambda: len(upstream.open) == 1)
        task.cancel()
        await asyncio.wait({task})
        await until(lambda: not upstream.open)


async def test_cancelled_while_reading_the_connection_closes(client: HttpClient) -> None:
    async with raw_upstream(each_request(CHUNKED + b"2\r\nhi\r\n")) as upstream:
        answer = await client.post(target(upstream), b"{}", connect_s=5)
        assert await answer.read() == b"hi"
        task = asyncio.create_task(answer.read())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
        answer.close()
        await until(lambda: not upstream.open)


async def test_many_requests_cancelled_at_any_moment_leave_nothing(client: HttpClient) -> None:
    async def serve(peer: Peer) -> None:
        while True:
            await peer.request()
            for piece in (CHUNKED, b"2\r\nhi\r\n", b"0\r\n\r\n"):
                await peer.send(piece)
                await asyncio.sleep(0)

    async with raw_upstream(serve) as upstream:
        to = target(upstream)
        before = asyncio.all_tasks()
        tasks = []
        for turns in range(120):
            task = asyncio.create_task(ask(client, to))
            tasks.append(task)
            for _ in range(turns % 23):
                await asyncio.sleep(0)
            if turns % 3:
                task.cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(result) for result in done} <= {bytes, asyncio.CancelledError}
        assert {result for result in done if isinstance(result, bytes)} == {b"hi"}
        assert await ask(client, to) == b"hi"
        await client.aclose()
        await until(lambda: not upstream.open)
        assert {task for task in asyncio.all_tasks() - before if "accept" not in repr(task)} == set()


async def test_closing_the_client_closes_idle_and_busy_connections(client: HttpClient) -> None:
    answers = iter([CHUNKED, HI])
    async with raw_upstream(lambda peer: each_request(next(answers))(peer)) as upstream:
        busy = await client.post(target(upstream), b"{}", connect_s=5)
        assert await ask(client, target(upstream)) == b"hi"
        assert len(upstream.open) == 2
        await client.aclose()
        busy.close()
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


@pytest.fixture
def server_tls() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    return context


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
