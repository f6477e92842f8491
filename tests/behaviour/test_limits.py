"""How much and how slowly a client may send, and in what wrapping."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from collections.abc import AsyncIterator

import pytest

from server.settings import Server, Settings
from server.simulators.openai import OpenAISimulator
from tests.behaviour.asking import (
    CHAT,
    asked,
    assert_nothing_left,
    both,
    chat_request,
    error_of,
    exchange,
    post,
)
from tests.behaviour.running import QUIET, Antiphon, ask, channel
from tests.raw_http import RawClient

Pair = tuple[Antiphon, OpenAISimulator]
LIMIT = 10_000
HEAD = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\n".encode()
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n"


def settings(sim: OpenAISimulator) -> Settings:
    limits = Server(body_bytes=LIMIT, body_idle_s=0.3, body_total_s=1)
    return Settings(server=limits, channels=(channel(sim),), logging=QUIET)


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    async with both(settings) as pair:
        yield pair
        server, _sim = pair
        assert (await post(server, ask())).status == 200, "after any fault the next request succeeds"
        assert_nothing_left(server)


def sized(size: int) -> bytes:
    """A valid request of exactly so many bytes."""
    empty = json.dumps(ask(text="")).encode()
    return empty.replace(b'"content": ""', b'"content": "' + b"x" * (size - len(empty)) + b'"')


def chunked(body: bytes, size: int = 1000) -> bytes:
    """The body in HTTP chunks."""
    parts = [body[place : place + size] for place in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


async def assert_closed(raw: RawClient) -> None:
    assert await raw.rest() == b""


# Size


async def test_a_body_at_the_limit_passes_and_one_byte_more_does_not(pair: Pair) -> None:
    server, _sim = pair
    assert (await post(server, sized(LIMIT))).status == 200
    assert error_of(await post(server, sized(LIMIT + 1)), 413)["code"] == "request_too_large"


async def test_a_body_declared_too_large_is_refused_before_it_comes(pair: Pair) -> None:
    server, _sim = pair
    request = HEAD + b"Content-Length: 100000000000\r\nExpect: 100-continue\r\n\r\n"
    async with asked(server, request) as raw:
        answer = await raw.answer()  # the first thing said: no 100 Continue came before it
        assert error_of(answer, 413)["code"] == "request_too_large"
        assert answer.headers["connection"] == "close"
        await assert_closed(raw)


async def test_a_chunked_body_is_counted_and_stopped_at_the_limit(pair: Pair) -> None:
    server, sim = pair
    async with asked(server, CHUNKED + b"\r\n" + chunked(sized(LIMIT * 5))[: LIMIT * 2]) as raw:
        assert error_of(await raw.answer(), 413)["code"] == "request_too_large"
    assert not sim.requests


async def test_a_chunked_body_within_the_limit_passes(pair: Pair) -> None:
    server, sim = pair
    assert (await exchange(server, CHUNKED + b"\r\n" + chunked(sized(LIMIT), 7))).status == 200
    assert len(sim.requests) == 1


# Time


@pytest.mark.parametrize("framing", [b"Content-Length: 200\r\n", b"Transfer-Encoding: chunked\r\n"])
async def test_a_body_that_stalls_is_a_408(pair: Pair, framing: bytes) -> None:
    server, _sim = pair
    async with asked(server, HEAD + framing + b"\r\n" + b"5\r\n{    \r\n") as raw:
        answer = await raw.answer()
        assert error_of(answer, 408)["code"] == "request_timeout"
        assert answer.headers["connection"] == "close"
        await assert_closed(raw)


async def test_a_body_that_drips_for_too_long_is_a_408(pair: Pair) -> None:
    server, _sim = pair
    async with asked(server, HEAD + b"Content-Length: 9000\r\n\r\n") as raw:

        async def drip() -> None:
            while True:
                await raw.send(b" ")
                await asyncio.sleep(0.05)

        dripping = asyncio.create_task(drip())
        try:
            assert error_of(await raw.answer(), 408)["code"] == "request_timeout"
        finally:
            dripping.cancel()
            await asyncio.wait({dripping})


# Expect


async def test_a_client_that_waits_is_told_to_go_on_once(pair: Pair) -> None:
    server, _sim = pair
    body = sized(2000)
    async with asked(server, HEAD + b"Content-Length: 2000\r\nExpect: 100-Continue\r\n\r\n") as raw:
        assert (await raw.head()).status == 100
        await raw.send(body)
        assert (await raw.answer()).status == 200


async def test_a_client_that_does_not_wait_is_answered_too(pair: Pair) -> None:
    server, _sim = pair
    request = HEAD + b"Content-Length: 2000\r\nExpect: 100-continue\r\n\r\n" + sized(2000)
    async with asked(server, request) as raw:
        answer = await raw.answer()
        if answer.status == 100:
            answer = await raw.answer()
        assert answer.status == 200


# Compression


def packed(data: bytes, coding: str = "gzip") -> bytes:
    return chat_request(data, f"Content-Encoding: {coding}")


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


@pytest.mark.parametrize(
    ("coding", "data"),
    [
        ("gzip", gzip.compress(sized(2000))),
        ("GZIP", gzip.compress(sized(2000))),
        ("deflate", zlib.compress(sized(2000))),
        ("deflate", raw_deflate(sized(2000))),
        ("identity", sized(2000)),
    ],
    ids=["gzip", "upper case", "zlib", "deflate", "identity"],
)
async def test_compressed_bodies_are_read(pair: Pair, coding: str, data: bytes) -> None:
    server, sim = pair
    assert (await exchange(server, packed(data, coding))).status == 200
    assert sim.requests[-1].body.startswith(b'{"model"')
    assert sim.requests[-1].header("content-encoding") is None


@pytest.mark.parametrize("length", [b"Content-Length: %d\r\n", b"Transfer-Encoding: chunked\r\n"])
async def test_a_bomb_is_counted_inflated(pair: Pair, length: bytes) -> None:
    server, sim = pair
    data = gzip.compress(b" " * 5_000_000)
    assert len(data) < LIMIT
    if b"%d" in length:
        request = HEAD + length % len(data) + b"Content-Encoding: gzip\r\n\r\n" + data
    else:
        request = HEAD + length + b"Content-Encoding: gzip\r\n\r\n" + chunked(data)
    assert error_of(await exchange(server, request), 413)["code"] == "request_too_large"
    assert not sim.requests


WHOLE = gzip.compress(sized(2000))


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
@pytest.mark.parametrize("chunks", [True, False])
@pytest.mark.parametrize("left", [1, 5, 15, 100, 1000])
async def test_a_truncated_compressed_body_is_a_400(pair: Pair, coding: str, chunks: bool, left: int) -> None:
    server, sim = pair
    whole = gzip.compress(sized(2000), compresslevel=0) if coding == "gzip" else zlib.compress(sized(2000), 0)
    data = whole[:-left]
    if chunks:
        head = CHUNKED + f"Content-Encoding: {coding}\r\n\r\n".encode()
        answer = await exchange(server, head + chunked(data))
    else:
        answer = await exchange(server, packed(data, coding))
    error_of(answer, 400)
    assert not sim.requests


@pytest.mark.parametrize(
    "data",
    [
        b"{}",
        b"\x1f\x8b",
        WHOLE[:-8] + bytes(8),
        WHOLE[:20] + b"\xff" * 9 + WHOLE[29:],
        WHOLE + b"rest",
        b"\x00",
    ],
    ids=["json", "magic only", "wrong sum", "wrong bytes", "bytes behind", "nul"],
)
@pytest.mark.parametrize("coding", ["gzip", "deflate"])
async def test_a_broken_compressed_body_is_a_400(pair: Pair, data: bytes, coding: str) -> None:
    server, sim = pair
    error_of(await exchange(server, packed(data, coding)), 400)
    assert not sim.requests


async def test_an_empty_compressed_body_is_empty(pair: Pair) -> None:
    server, _sim = pair
    assert error_of(await exchange(server, packed(b"")), 400)["code"] == "invalid_json"
    assert error_of(await exchange(server, packed(gzip.compress(b""))), 400)["code"] == "invalid_json"


@pytest.mark.parametrize("coding", ["br", "zstd", "compress", "gzip, gzip", "nonsense"])
async def test_another_coding_is_a_415(pair: Pair, coding: str) -> None:
    server, _sim = pair
    assert (
        error_of(await exchange(server, packed(sized(500), coding)), 415)["code"] == "unsupported_media_type"
    )


@pytest.mark.parametrize(
    "form",
    ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "Multipart/Form-Data"],
)
async def test_forms_are_a_415(pair: Pair, form: str) -> None:
    server, _sim = pair
    answer = await post(server, ask(), content_type=form)
    assert error_of(answer, 415)["code"] == "unsupported_media_type"


# Framing


async def test_a_body_whose_chunks_break_is_a_400(pair: Pair) -> None:
    server, sim = pair
    async with asked(server, CHUNKED + b"\r\n5\r\n{    \r\n") as raw:
        await raw.send(b"zz\r\nnonsense\r\n\r\n")
        error_of(await raw.answer(), 400)
        await assert_closed(raw)
    assert not sim.requests


async def test_pipelined_chats_are_answered_in_their_order(pair: Pair) -> None:
    server, _sim = pair
    requests = [chat_request(ask(text=f"number {number}")) for number in range(5)]
    async with asked(server, b"".join(requests)) as raw:
        for number in range(5):
            assert f"number {number}" in (await raw.answer()).body.decode()
