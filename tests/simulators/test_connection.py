"""How requests are read."""

from __future__ import annotations

import pytest

from server.simulators.connection import MAX_HEAD_BYTES
from server.simulators.openai import OpenAISimulator
from tests.raw_http import connect
from tests.simulators.asking import chat_body, get, post


async def test_a_request_is_recorded_byte_for_byte(sim: OpenAISimulator) -> None:
    body = (
        b'{ "model":"m",\t"messages":[{"role":"user","content":"\\u00e9 1"}], "big":123456789012345678901 }'
    )
    async with connect(sim.host, sim.port) as client:
        await client.send(post(body, "/v1/chat/completions?a=%20b", "X-Odd:  two words \r\nx-odd: again\r\n"))
        assert (await client.answer()).status == 200
    (request,) = sim.requests
    assert request.body == body
    assert (request.method, request.path) == ("POST", "/v1/chat/completions?a=%20b")
    assert [pair for pair in request.headers if pair[0].lower() == "x-odd"] == [
        ("X-Odd", "two words"),
        ("x-odd", "again"),
    ]
    assert request.header("X-ODD") == "two words"
    assert request.header("absent") is None
    assert request.json()["model"] == "m"


async def test_a_request_may_come_byte_by_byte(sim: OpenAISimulator) -> None:
    async with connect(sim.host, sim.port) as client:
        for byte in post(chat_body(stream=False)):
            await client.send(bytes([byte]))
        assert (await client.answer()).status == 200


async def test_requests_may_come_all_at_once(sim: OpenAISimulator) -> None:
    async with connect(sim.host, sim.port) as client:
        await client.send(post(chat_body(stream=False, model="a")) + b"\r\n" + post(chat_body(model="b")))
        assert (await client.answer()).json()["model"] == "a"
        assert b'"model":"b"' in (await client.answer()).body


async def test_a_chunked_body_is_read(sim: OpenAISimulator) -> None:
    body = chat_body(stream=False)
    head = b"POST /v1/chat/completions HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunks = b"5;ext=1\r\n%b\r\n%X\r\n%b\r\n0\r\nTrailer: x\r\n\r\n" % (body[:5], len(body) - 5, body[5:])
    async with connect(sim.host, sim.port) as client:
        await client.send(head + chunks + get("/v1/models"))
        assert (await client.answer()).status == 200
        assert (await client.answer()).json()["object"] == "list"
    assert sim.requests[0].body == body


async def test_who_waits_for_a_go_ahead_gets_it(sim: OpenAISimulator) -> None:
    body = chat_body(stream=False)
    request = post(body, headers="Expect: 100-continue\r\n")
    async with connect(sim.host, sim.port) as client:
        await client.send(request.removesuffix(body))
        assert (await client.head()).status == 100
        await client.send(body)
        assert (await client.answer()).status == 200


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",  # a TLS handshake
        b"GET  / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/2.0\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\n folded: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: ten\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFF\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n",
        b"GET / HTTP/1.1\r\nx: " + b"y" * (MAX_HEAD_BYTES + 1),
    ],
)
async def test_what_is_no_http_is_refused_and_the_connection_closed(
    sim: OpenAISimulator, sent: bytes
) -> None:
    async with connect(sim.host, sim.port) as client:
        await client.send(sent)
        answer = await client.answer()
        assert answer.status == 400
        assert answer.json()["error"]["message"].startswith("This is not HTTP")
        assert await client.rest() == b""
    assert sim.requests == []


async def test_a_head_request_gets_no_body(sim: OpenAISimulator) -> None:
    async with connect(sim.host, sim.port) as client:
        await client.send(b"HEAD /v1/models HTTP/1.1\r\n\r\n" + get("/v1/models"))
        assert (await client.answer(to_head=True)).status == 405
        assert (await client.answer()).status == 200


async def test_http_1_0_is_closed_unless_asked_otherwise(sim: OpenAISimulator) -> None:
    async with connect(sim.host, sim.port) as client:
        await client.send(b"GET /v1/models HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        await client.answer()
        await client.send(b"GET /v1/models HTTP/1.0\r\n\r\n")
        await client.answer()
        assert await client.rest() == b""
