from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from tests.raw_http import PATIENCE_S, connect
from tests.served import GET, HOST, assert_refused, echo, echo_app, exchange, post, served

CHUNKED = b"Transfer-Encoding: chunked"


@pytest.fixture
async def port() -> AsyncIterator[int]:
    async with served(echo_app()) as port:
        yield port


MALFORMED = {
    "both length and chunks": post(b"Content-Length: 5", CHUNKED, body=b"0\r\n\r\n"),
    "both chunks and length": post(CHUNKED, b"Content-Length: 5", body=b"0\r\n\r\n"),
    "two lengths that differ": post(b"Content-Length: 4", b"Content-Length: 5", body=b"abcde"),
    "two lengths that agree": post(b"Content-Length: 4", b"Content-Length: 4", body=b"abcd"),
    "a list of lengths": post(b"Content-Length: 4, 4", body=b"abcd"),
    "a negative length": post(b"Content-Length: -4", body=b"abcd"),
    "a length with a plus": post(b"Content-Length: +4", body=b"abcd"),
    "a length beyond 64 bits": post(b"Content-Length: 99999999999999999999999"),
    "a coding that is not chunked": post(b"Transfer-Encoding: identity", body=b"abcd"),
    "a coding almost chunked": post(b"Transfer-Encoding: xchunked", body=b"0\r\n\r\n"),
    "a coding before chunked": post(b"Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n"),
    "chunks in HTTP/1.0": post(CHUNKED, body=b"0\r\n\r\n", version=b"1.0"),
    "a chunk size that is none": post(CHUNKED, body=b"zz\r\nab\r\n0\r\n\r\n"),
    "a negative chunk size": post(CHUNKED, body=b"-1\r\nab\r\n0\r\n\r\n"),
    "a chunk size beyond 64 bits": post(CHUNKED, body=b"f" * 20 + b"\r\nab\r\n0\r\n\r\n"),
    "a chunk longer than its size": post(CHUNKED, body=b"2\r\nabcd\r\n0\r\n\r\n"),
    "chunks with bare line feeds": post(CHUNKED, body=b"2\nab\n0\n\n"),
    "a bare CR in a header": post(b"X: a\rb"),
    "a NUL in a header": post(b"X: a\0b"),
    "a space before the colon": post(b"X : a"),
    "a folded header": post(b"X: a", b" b"),
    "a header without a colon": post(b"Xa"),
    "a header without a name": post(b": a"),
    "bare line feeds": b"GET / HTTP/1.1\nHost: x\n\n",
    "no Host": b"GET / HTTP/1.1\r\n\r\n",
    "two Hosts": b"GET / HTTP/1.1\r\n" + HOST + HOST + b"\r\n",
    "a Host that is none": b"GET / HTTP/1.1\r\nHost: a b/[\r\n\r\n",
    "a Host with a port too large": b"GET / HTTP/1.1\r\nHost: a:65536\r\n\r\n",
    "a Host with a wrong IPv6 address": b"GET / HTTP/1.1\r\nHost: [::::]\r\n\r\n",
    "HTTP/0.9": b"GET /\r\n\r\n",
    "HTTP/1.2": b"GET / HTTP/1.2\r\n" + HOST + b"\r\n",
    "HTTP/2.0": b"GET / HTTP/2.0\r\n" + HOST + b"\r\n",
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "a lower-case method": b"get / HTTP/1.1\r\n" + HOST + b"\r\n",
    "an unknown method": b"BREW / HTTP/1.1\r\n" + HOST + b"\r\n",
    "an asterisk without OPTIONS": b"GET * HTTP/1.1\r\n" + HOST + b"\r\n",
    "a target without its slash": b"GET a/b HTTP/1.1\r\n" + HOST + b"\r\n",
    "a target with a space": b"GET /a b HTTP/1.1\r\n" + HOST + b"\r\n",
    "a target with a control": b"GET /a\x01b HTTP/1.1\r\n" + HOST + b"\r\n",
    "a target with raw bytes": b"GET /a\xff\xfe HTTP/1.1\r\n" + HOST + b"\r\n",
    "an address without a host": b"GET http:///q HTTP/1.1\r\n" + HOST + b"\r\n",
    "an address with a bad port": b"GET http://h:99999/q HTTP/1.1\r\n" + HOST + b"\r\n",
    "an address with half an IPv6 host": b"GET http://[::1/q HTTP/1.1\r\n" + HOST + b"\r\n",
    "CONNECT to a bad port": b"CONNECT h:99999 HTTP/1.1\r\n" + HOST + b"\r\n",
    "the first draft of websockets": b"GET / HTTP/1.1\r\n" + HOST + b"Sec-WebSocket-Key1: a\r\n\r\n",
}


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED.keys())
async def test_a_malformed_request_is_a_json_400_and_the_end_of_the_connection(
    port: int, data: bytes
) -> None:
    async with connect("127.0.0.1", port) as client:
        await client.send(data)
        assert_refused(await client.answer())
        assert await client.rest() == b""


TOO_LONG = {
    "path": b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n",
    "header": post(b"X: " + b"a" * 100_000),
    "name": post(b"a" * 100_000 + b": x"),
    "block": post(*[b"X: a"] * 500),
}


@pytest.mark.parametrize("data", TOO_LONG.values(), ids=TOO_LONG.keys())
async def test_what_is_too_long_is_a_json_431(port: int, data: bytes) -> None:
    assert_refused(await exchange(port, data), 431, "headers_too_large")


async def test_a_refused_client_that_sends_on_is_not_reset(port: int) -> None:
    # A reset lets the client's system discard the answer, if the client has not read it yet.
    async with connect("127.0.0.1", port) as client:
        await client.send(b"GET /" + b"a" * 100_000)
        assert_refused(await client.answer(), 431, "headers_too_large")
        for _ in range(20):
            await client.send(b"a" * 50_000)
        async with asyncio.timeout(PATIENCE_S):
            assert await client.reader.read() == b""


ODD_TARGETS = {
    b"//": "//",
    b"//evil.example/x": "//evil.example/x",
    b"/../../etc/passwd": "/../../etc/passwd",
    b"/a%00b": "/a\0b",
    b"/a%zz%1": "/a%zz%1",
    b"/a%ff%fe": "/a%ff%fe",
    b"/a:b@c": "/a:b@c",
    b"/a#b": "/a",
    b"http://other:99/q": "/q",
    b"ftp://u:p@other/q": "/q",
}


@pytest.mark.parametrize(("target", "path"), ODD_TARGETS.items(), ids=repr)
async def test_an_odd_target_is_a_path_like_any_other(port: int, target: bytes, path: str) -> None:
    answer = await exchange(port, b"GET " + target + b" HTTP/1.1\r\n" + HOST + b"\r\n")
    assert (answer.status, answer.json()["path"]) == (200, path)


@pytest.mark.parametrize("line", [b"OPTIONS *", b"CONNECT h:443", b"CONNECT /"], ids=repr)
async def test_a_target_that_is_no_path_finds_nothing(port: int, line: bytes) -> None:
    assert_refused(await exchange(port, line + b" HTTP/1.1\r\n" + HOST + b"\r\n"), 404, "not_found")


async def test_a_wrong_method_is_a_json_405_that_lists_the_right_ones() -> None:
    app = web.Application()
    app.router.add_get("/", echo)
    async with served(app) as port:
        answer = await exchange(port, post(b"Content-Length: 0"))
        assert_refused(answer, 405, "method_not_allowed")
        assert answer.headers["allow"] == "GET,HEAD"


async def test_an_unknown_expectation_is_a_json_417(port: int) -> None:
    answer = await exchange(port, post(b"Expect: the-moon", b"Content-Length: 2"))
    assert_refused(answer, 417, "expectation_failed")


@pytest.mark.parametrize("coding", [b"gzip", b"deflate", b"br"])
async def test_a_body_is_handed_on_as_it_was_sent(port: int, coding: bytes) -> None:
    data = post(b"Content-Encoding: " + coding, b"Content-Length: 4", body=b"abcd")
    assert (await exchange(port, data)).json()["length"] == 4


async def test_chunks_that_break_while_a_handler_reads_end_that_request_alone() -> None:
    reading = asyncio.Event()

    async def read(request: web.Request) -> web.Response:
        await request.content.readany()
        reading.set()
        return web.Response(body=await request.read())

    app = web.Application()
    app.router.add_post("/", read)
    async with served(app) as port, connect("127.0.0.1", port) as client:
        await client.send(post(CHUNKED, body=b"2\r\nab\r\n"))
        await reading.wait()
        await client.send(b"zz\r\n")
        assert_refused(await client.answer())
        assert await client.rest() == b""  # one request, one answer


async def test_a_refusal_does_not_log_the_bytes_at_fault(port: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    assert_refused(await exchange(port, post(b"Authorization: Bearer sk-secret\0")))
    assert "refused" in caplog.text
    assert "sk-secret" not in caplog.text


@pytest.mark.parametrize("error", [RuntimeError("boom"), TimeoutError()], ids=repr)
async def test_a_bug_is_a_json_500_with_a_traceback_in_the_log_only(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(_request: web.Request) -> web.Response:
        raise error

    app = web.Application()
    app.router.add_get("/", fail)
    async with served(app) as port:
        answer = await exchange(port, GET)
        assert answer.status == 500
        assert answer.json()["error"]["code"] == "internal_error"
        assert b"boom" not in answer.body
        assert "Traceback" in caplog.text


async def test_a_bug_after_the_answer_began_cuts_it() -> None:
    async def fail(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"begun")
        raise RuntimeError("boom")

    app = web.Application()
    app.router.add_get("/", fail)
    async with served(app) as port, connect("127.0.0.1", port) as client:
        await client.send(GET)
        assert (await client.head()).status == 200
        assert await client.chunk() == b"begun"
        assert await client.rest() == b""  # no last chunk


async def test_every_answer_names_the_server_without_versions(port: int) -> None:
    answer = await exchange(port, GET)
    assert answer.headers["server"] == "antiphon"


async def test_http_1_0_closes_unless_asked_not_to(port: int) -> None:
    async with connect("127.0.0.1", port) as client:
        for _ in range(2):
            await client.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            answer = await client.answer()
            assert (answer.status, answer.headers["connection"]) == (200, "keep-alive")
        await client.send(b"GET / HTTP/1.0\r\n\r\n")
        assert (await client.answer()).status == 200
        assert await client.rest() == b""


async def test_pipelined_requests_are_answered_in_order(port: int) -> None:
    async with connect("127.0.0.1", port) as client:
        await client.send(b"".join(b"GET /%d HTTP/1.1\r\n%s\r\n" % (n, HOST) for n in range(100)))
        for n in range(100):
            assert (await client.answer()).json()["path"] == f"/{n}"


async def test_a_client_that_waits_to_be_let_on_is(port: int) -> None:
    async with connect("127.0.0.1", port) as client:
        await client.send(post(b"Expect: 100-continue", b"Content-Length: 2"))
        assert (await client.answer()).status == 100
        await client.send(b"ab")
        assert (await client.answer()).json()["length"] == 2


async def test_line_ends_before_a_request_are_skipped(port: int) -> None:
    assert (await exchange(port, b"\r\n\r\nGET / HTTP/1.1\r\n" + HOST + b"\r\n")).status == 200


async def test_nagle_is_off_so_that_small_chunks_leave_at_once() -> None:
    async def nodelay(request: web.Request) -> web.Response:
        assert request.transport is not None
        sock = request.transport.get_extra_info("socket")
        return web.json_response(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    app = web.Application()
    app.router.add_get("/", nodelay)
    async with served(app) as port:
        assert (await exchange(port, GET)).json() == 1
