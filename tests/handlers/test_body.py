"""How much memory a body may take; what is refused, and how, is told in tests/behaviour/test_limits.py."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib

import pytest

from server.settings import Server, Settings
from server.simulators.openai import OpenAISimulator
from server.simulators.script import Script
from tests.behaviour.asking import CHAT, asked, both, chat_request, error_of, exchange, post
from tests.behaviour.running import QUIET, ask, channel
from tests.raw_http import connect

MIB = 1024 * 1024


def settings(sim: OpenAISimulator, body_bytes: int = 32 * MIB) -> Settings:
    return Settings(server=Server(body_bytes=body_bytes), channels=(channel(sim, "m"),), logging=QUIET)


def small(sim: OpenAISimulator) -> Settings:
    return settings(sim, body_bytes=64 * 1024)


async def test_ten_megabytes_arrive_upstream_as_they_were_sent() -> None:
    async with both(settings) as (server, sim):
        text = "ä\u2028" * (2 * MIB)
        assert (await post(server, ask(text=text))).status == 200
        (request,) = sim.requests
        assert request.json()["messages"][0]["content"] == text


async def test_a_chunked_body_is_refused_once_it_is_too_large_however_much_would_follow() -> None:
    """The client never ends its body: an answer comes only if nobody waits for all of it."""
    async with both(small) as (server, sim):
        head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        piece = b"4000\r\n" + b" " * 0x4000 + b"\r\n"
        async with connect("127.0.0.1", server.port) as raw:
            await raw.send(head + piece * 5)
            answer = await raw.answer()
        assert error_of(answer, 413)["code"] == "request_too_large"
        assert answer.headers["connection"] == "close"
        assert not sim.requests


async def test_a_bomb_is_stopped_while_it_inflates() -> None:
    """A hundred megabytes of blanks in a hundred kilobytes: over the limit long before they are all there."""
    async with both(lambda sim: settings(sim, body_bytes=MIB)) as (server, sim):
        bomb = gzip.compress(b" " * (100 * MIB), compresslevel=9)
        assert len(bomb) < MIB
        tracemalloc.start()
        try:
            answer = await post(server, bomb, "Content-Encoding: gzip")
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert error_of(answer, 413)["code"] == "request_too_large"
        assert peak < 8 * MIB
        assert not sim.requests


def compressed(body: bytes, coding: str) -> bytes:
    if coding == "gzip":
        return gzip.compress(body)
    bits = 15 if coding == "zlib" else -15
    deflater = zlib.compressobj(wbits=bits)
    return deflater.compress(body) + deflater.flush()


@pytest.mark.parametrize("coding", ["gzip", "zlib", "bare"])
async def test_what_was_compressed_is_asked_as_it_was_written(coding: str) -> None:
    async with both(settings) as (server, sim):
        text = "compressed " * 1000
        data = compressed(chat_request(ask(text=text)).partition(b"\r\n\r\n")[2], coding)
        header = "Content-Encoding: " + ("gzip" if coding == "gzip" else "deflate")
        assert (await post(server, data, header)).status == 200
        assert sim.requests[-1].json()["messages"][0]["content"] == text


async def test_turned_bytes_in_a_compressed_body_are_the_clients_fault_or_none() -> None:
    whole = gzip.compress(chat_request(ask()).partition(b"\r\n\r\n")[2])
    async with both(settings) as (server, _sim):
        for place in range(len(whole)):
            turned = whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :]
            answer = await post(server, turned, "Content-Encoding: gzip")
            assert answer.status in (200, 400, 413), (place, answer.body)
        assert (await post(server, whole, "Content-Encoding: gzip")).status == 200


async def test_a_body_that_waits_for_leave_is_let_on_only_where_it_is_wanted() -> None:
    async with both(small) as (server, sim):
        request = chat_request(ask(), "Expect: 100-continue")
        head, _, body = request.partition(b"\r\n\r\n")
        async with asked(server, head + b"\r\n\r\n") as raw:
            assert (await raw.head()).status == 100
            await raw.send(body)
            assert (await raw.answer()).status == 200
        large = head.replace(b"Content-Length: " + str(len(body)).encode(), b"Content-Length: 99999999")
        assert large != head
        answer = await exchange(server, large + b"\r\n\r\n")
        assert error_of(answer, 413)["code"] == "request_too_large"
        assert len(sim.requests) == 1


async def test_a_client_of_http_1_0_is_never_told_to_continue() -> None:
    async with both(small) as (server, _sim):
        request = chat_request(ask(), "Expect: 100-continue").replace(b"HTTP/1.1", b"HTTP/1.0")
        answer = await exchange(server, request)
        assert (answer.version, answer.status) == ("HTTP/1.0", 200)
        assert answer.json()["choices"]


async def test_after_each_refusal_the_next_request_is_answered() -> None:
    async with both(small) as (server, sim):
        for body, headers in (
            (b" " * 70_000, ()),
            (b"\x1f\x8b", ("Content-Encoding: gzip",)),
            (b"{}", ("Content-Encoding: br",)),
            (b"", ()),
        ):
            assert (await post(server, body, *headers)).status in (400, 413, 415)
            sim.script(Script(text="well"))
            assert (await post(server, ask())).status == 200
