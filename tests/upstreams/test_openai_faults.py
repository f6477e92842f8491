"""The openai upstream when things go wrong: cuts, TLS, proxies and dead hosts."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import aclosing
from typing import Any

import pytest

from server.deltas import Finished, TextDelta
from server.errors import (
    UpstreamCut,
    UpstreamEmpty,
    UpstreamInvalid,
    UpstreamRefused,
    UpstreamUnreachable,
)
from server.simulators.openai import OpenAISimulator
from server.simulators.script import Script
from server.upstreams.base import Call
from tests.channels import answer, chat, deltas, failure, said_and_failed, until
from tests.upstreams.http_cases import CERTIFICATE, each_request
from tests.upstreams.openai_cases import KEY, TEXT, connections, upstream
from tests.upstreams.raw_upstream import Peer, raw_upstream

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"


# ── cuts ──


@pytest.mark.parametrize("cut", ["fin", "rst", "clean"])
@pytest.mark.parametrize("chunks", [0, 1, 3])
async def test_a_stream_that_is_cut_is_no_answer_and_its_connection_is_not_used_again(
    sim: OpenAISimulator, cut: Any, chunks: int, http: str
) -> None:
    sim.script(Script(text=TEXT, chunks=4, cut_after=chunks, cut=cut))
    async with upstream(sim.base_url, http=http) as channel:
        said, error = await said_and_failed(channel)
        assert type(error) in ({UpstreamCut, UpstreamEmpty} if chunks == 0 else {UpstreamCut})
        assert error.retryable
        if cut != "rst":  # a reset may overtake what was sent
            assert len(said) == chunks
        assert await answer(channel) == TEXT
    assert len(sim.requests) == 2


@pytest.mark.parametrize("cut", ["fin", "rst"])
async def test_half_a_plain_answer_is_no_answer(sim: OpenAISimulator, cut: Any, http: str) -> None:
    plain = chat(stream=False)
    async with upstream(sim.base_url, http=http) as channel:
        for script in (
            Script(text=TEXT, cut_at_byte=40, cut=cut),
            Script(text=TEXT, cut_at_byte=40, cut=cut, framing="chunked"),
            Script(text=TEXT, length_extra=5),
        ):
            sim.script(script)
            said, error = await said_and_failed(channel, request=plain)
            assert (said, type(error)) == ([], UpstreamCut)
            assert await answer(channel, request=plain) == TEXT


async def test_half_a_plain_answer_without_a_length_is_invalid(sim: OpenAISimulator, http: str) -> None:
    sim.script(Script(text=TEXT, cut_at_byte=40, framing="close"))
    async with upstream(sim.base_url, http=http) as channel:
        assert type(await failure(channel, request=chat(stream=False))) is UpstreamInvalid


async def test_cut_at_whatever_byte_a_stream_is_never_taken_for_whole(
    sim: OpenAISimulator, http: str
) -> None:
    async with upstream(sim.base_url, http=http) as channel:
        await deltas(channel)
        whole = sim.requests[-1].sent_bytes
        for at in range(0, whole, 3):
            sim.script(Script(text=TEXT, chunks=4, cut_at_byte=at, cut="fin" if at % 2 else "clean"))
            said, finished, failed = "", False, False
            try:
                async with aclosing(channel.stream(chat(), Call())) as batches:
                    async for batch in batches:
                        said += "".join(delta.text for delta in batch if type(delta) is TextDelta)
                        finished |= any(type(delta) is Finished for delta in batch)
            except (UpstreamCut, UpstreamEmpty, UpstreamInvalid):
                failed = True
            assert TEXT.startswith(said)
            assert failed or (finished and said == TEXT)
    assert len(sim.requests) == 1 + len(range(0, whole, 3))


@pytest.mark.parametrize("at", [0, 1, 12, 40])
@pytest.mark.parametrize("cut", ["fin", "rst"])
async def test_closed_before_the_head_is_whole_it_was_not_reached(
    sim: OpenAISimulator, at: int, cut: Any, http: str
) -> None:
    sim.script(Script(cut_head_at=at, cut=cut))
    async with upstream(sim.base_url, http=http) as channel:
        error = await failure(channel)
        assert (type(error), error.status, error.code) == (UpstreamUnreachable, 502, "upstream_unreachable")
        assert await answer(channel) == TEXT


@pytest.mark.parametrize("line", ["garbage", "SSH-2.0-OpenSSH_9", "HTTP/1.1 abc OK", "HTTP/9.9 200 OK"])
async def test_what_is_not_http_is_invalid(sim: OpenAISimulator, line: str, http: str) -> None:
    sim.script(Script(status_line=line))
    async with upstream(sim.base_url, http=http) as channel:
        error = await failure(channel)
        assert (error.status, error.retryable) == (502, True)
        assert type(error) in (UpstreamInvalid, UpstreamUnreachable)
        assert await answer(channel) == TEXT


async def test_a_line_that_does_not_end_is_invalid_and_not_kept(http: str) -> None:
    taken = 0

    async def serve(peer: Peer) -> None:
        nonlocal taken
        await peer.request()
        await peer.send(HEAD + b"data: ")
        while taken < 100_000_000:
            await peer.send(b"x" * 65536)
            taken += 65536

    async with raw_upstream(serve) as raw, upstream(f"http://127.0.0.1:{raw.port}/v1", http=http) as channel:
        error = await failure(channel)
        assert type(error) is UpstreamInvalid
    assert taken < 60_000_000


# ── before there is a connection ──


async def test_a_name_that_does_not_exist_and_a_port_where_nobody_listens(
    sim: OpenAISimulator, http: str
) -> None:
    await sim.stop_listening()
    for base_url in ("http://name.invalid/v1", f"http://127.0.0.1:{sim.port}/v1"):
        async with upstream(base_url, http=http) as channel:
            error = await failure(channel)
            assert (type(error), error.status, error.retryable) == (UpstreamUnreachable, 502, True)
            assert "invalid" not in error.message
            assert "127.0.0.1" not in error.message


def complaints_of_the_server() -> None:
    """A handshake that the client breaks off is no news."""
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)


@pytest.mark.parametrize(
    ("tls", "good"), [({}, False), ({"verify": False}, True), ({"ca_file": str(CERTIFICATE)}, True)]
)
async def test_certificates_are_verified_unless_the_channel_says_otherwise(
    server_tls: ssl.SSLContext, tls: dict[str, object], good: bool, http: str
) -> None:
    complaints_of_the_server()
    async with OpenAISimulator(ssl_context=server_tls, default=Script(text=TEXT)) as sim:
        base_url = sim.base_url.replace("127.0.0.1", "localhost")
        async with upstream(base_url, http=http, tls=tls) as channel:
            if good:
                assert [await answer(channel), await answer(channel)] == [TEXT, TEXT]
                assert connections(sim) == 1
            else:
                assert type(await failure(channel)) is UpstreamUnreachable
                assert sim.requests == []


async def test_a_certificate_for_another_name_is_refused(server_tls: ssl.SSLContext, http: str) -> None:
    complaints_of_the_server()
    async with (
        OpenAISimulator(host="127.0.0.2", ssl_context=server_tls) as sim,
        upstream(sim.base_url, http=http, tls={"ca_file": str(CERTIFICATE)}) as channel,
    ):
        assert type(await failure(channel)) is UpstreamUnreachable
        assert sim.requests == []


async def test_an_answer_before_the_whole_request_was_read_is_an_answer(http: str) -> None:
    said = b'{"error":{"message":"That is too much.","type":"invalid_request_error","code":"too_large"}}'

    async def serve(peer: Peer) -> None:
        await peer.head()
        head = b"HTTP/1.1 413 Too Large\r\nContent-Type: application/json\r\nConnection: close\r\n"
        await peer.send(head + b"Content-Length: %d\r\n\r\n%b" % (len(said), said))
        await peer.gone()

    async with raw_upstream(serve) as raw, upstream(f"http://127.0.0.1:{raw.port}", http=http) as channel:
        error = await failure(channel, request=chat(padding="x" * 20_000_000))
        assert (type(error), error.status, error.code) == (UpstreamRefused, 413, "too_large")
        await until(lambda: not raw.open)


# ── proxies ──


async def test_requests_go_through_the_channels_proxy(sim: OpenAISimulator) -> None:
    """A proxy that is asked for a whole URL, and hands everything to the simulator."""
    seen: list[bytes] = []

    async def serve(peer: Peer) -> None:
        request = await peer.request()
        seen.append(request.head)
        reader, writer = await asyncio.open_connection("127.0.0.1", sim.port)
        writer.write(request.head.replace(b"http://models.invalid", b"") + request.body)
        while data := await reader.read(65536):
            await peer.send(data)
            if data.endswith(b"0\r\n\r\n"):
                break
        writer.close()

    async with raw_upstream(serve) as proxy:
        address = f"http://user:pass@127.0.0.1:{proxy.port}"
        async with upstream("http://models.invalid/v1", proxy=address) as channel:
            assert await answer(channel) == TEXT
    assert seen[0].startswith(b"POST http://models.invalid/v1/chat/completions HTTP/1.1\r\n")
    assert b"Proxy-Authorization: Basic dXNlcjpwYXNz\r\n" in seen[0]
    names = [name.lower() for name, _ in sim.requests[0].headers]
    assert KEY in (sim.requests[0].header("authorization") or "")
    assert "cookie" not in names


@pytest.mark.parametrize(
    "answer_", [b"HTTP/1.1 403 No\r\n\r\n", b"HTTP/1.1 407 No\r\n\r\n", b"nonsense\r\n\r\n", b""]
)
async def test_a_proxy_that_opens_no_tunnel_is_an_upstream_that_is_not_reached(answer_: bytes) -> None:
    heads: list[bytes] = []

    async def serve(peer: Peer) -> None:
        heads.append(await peer.head())
        await peer.send(answer_)

    async with raw_upstream(serve) as proxy:
        address = f"http://127.0.0.1:{proxy.port}"
        async with upstream("https://models.invalid/v1", proxy=address) as channel:
            error = await failure(channel)
            assert error.status == 502
            assert error.retryable
            assert "models.invalid" not in error.message
    assert heads[0].startswith(b"CONNECT models.invalid:443 HTTP/1.1\r\n")
    assert KEY.encode() not in heads[0]


async def test_a_proxy_that_is_down_is_an_upstream_that_is_not_reached() -> None:
    async with raw_upstream(each_request()) as raw:
        port = raw.port
    async with upstream("http://models.invalid/v1", proxy=f"http://user:pass@127.0.0.1:{port}") as channel:
        error = await failure(channel)
        assert type(error) is UpstreamUnreachable
        assert "pass" not in error.message
