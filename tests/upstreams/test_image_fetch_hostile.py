"""Hosts that are slow, silent or lie: each is given up in time, and nothing of the connection is left."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from server.errors import InvalidRequest
from server.upstreams.image_fetch import ImageFetcher
from server.upstreams.image_guard import GuardedResolver
from tests.behaviour.asking import until
from tests.upstreams.raw_upstream import Peer, raw_upstream

PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n"


async def refusal_of(
    script: Callable[[Peer], Awaitable[None]], scheme: str = "http", total_s: float = 0.3
) -> InvalidRequest:
    """How the fetch of an image that ``script`` answers is refused; its connections are closed by then."""
    async with (
        raw_upstream(script) as upstream,
        ImageFetcher(allow_hosts=["127.0.0.1"], max_bytes=100_000, total_s=total_s) as fetcher,
    ):
        with pytest.raises(InvalidRequest) as refused:
            await fetcher.fetch(f"{scheme}://127.0.0.1:{upstream.port}/x.png", "here")
        await until(lambda: not upstream.open)
        assert upstream.peers
    assert (refused.value.code, refused.value.param) == ("invalid_image_url", "here")
    return refused.value


async def says_nothing(peer: Peer) -> None:
    await peer.gone()


async def drips_its_head(peer: Peer) -> None:
    await peer.head()
    with suppress(ConnectionError):
        for byte in HEAD * 100:
            await peer.send(bytes((byte,)))
            await asyncio.sleep(0.05)


async def drips_its_body(peer: Peer) -> None:
    await peer.head()
    await peer.send(HEAD + b"Content-Length: 100\r\n\r\n" + PNG[:8])
    with suppress(ConnectionError):
        while True:
            await asyncio.sleep(0.05)
            await peer.send(b"0")


async def lacks_the_rest(peer: Peer) -> None:
    await peer.head()
    await peer.send(HEAD + b"Content-Length: 5000\r\n\r\n" + PNG)
    peer.close()


async def is_cut_within_a_chunk(peer: Peer) -> None:
    await peer.head()
    await peer.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\nffff\r\n" + PNG)
    peer.reset()


async def speaks_no_http(peer: Peer) -> None:
    await peer.head()
    await peer.send(b"220 mail.example ESMTP\r\n")
    peer.close()


async def sends_a_bad_length(peer: Peer) -> None:
    await peer.head()
    await peer.send(HEAD + b"Content-Length: many\r\n\r\n" + PNG)
    peer.close()


async def redirects_to_nonsense(peer: Peer) -> None:
    await peer.head()
    await peer.send(b"HTTP/1.1 302 Found\r\nLocation: http://[broken\r\nContent-Length: 0\r\n\r\n")


@pytest.mark.parametrize(
    "script",
    [
        says_nothing,
        drips_its_head,
        drips_its_body,
        lacks_the_rest,
        is_cut_within_a_chunk,
        speaks_no_http,
        sends_a_bad_length,
        redirects_to_nonsense,
    ],
)
async def test_a_host_that_does_not_answer_well_in_time_is_given_up(
    script: Callable[[Peer], Awaitable[None]],
) -> None:
    assert "could not be fetched" in (await refusal_of(script)).message


async def test_a_host_that_is_silent_within_the_tls_handshake_is_given_up() -> None:
    assert "could not be fetched" in (await refusal_of(says_nothing, "https")).message


async def test_a_length_beyond_the_limit_is_believed_without_reading() -> None:
    """It sends nothing of its hundred megabytes; a patient fetch would wait for them."""

    async def boasts(peer: Peer) -> None:
        await peer.head()
        await peer.send(HEAD + b"Content-Length: 100000000\r\n\r\n")
        await peer.gone()

    assert "larger than 100000 bytes" in (await refusal_of(boasts, total_s=60)).message


async def test_a_body_without_end_is_left_at_the_limit() -> None:
    async def never_ends(peer: Peer) -> None:
        await peer.head()
        await peer.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        with suppress(ConnectionError):
            while True:
                await peer.send(b"1000\r\n" + PNG.ljust(4096, b"0") + b"\r\n")

    assert "larger than 100000 bytes" in (await refusal_of(never_ends, total_s=60)).message


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_who_leaves_at_any_time_leaves_no_connection_open(scheme: str) -> None:
    connected = asyncio.Event()

    async def silent(peer: Peer) -> None:
        connected.set()
        await peer.gone()

    async with raw_upstream(silent) as upstream, ImageFetcher(allow_hosts=["127.0.0.1"]) as fetcher:
        for _ in range(5):
            connected.clear()
            url = f"{scheme}://127.0.0.1:{upstream.port}/"
            fetching = asyncio.ensure_future(fetcher.fetch(url, "here"))
            async with asyncio.timeout(10):
                await connected.wait()
            fetching.cancel()
            with pytest.raises(asyncio.CancelledError):
                await fetching
        await until(lambda: not upstream.open)


@pytest.mark.parametrize(
    "inside",
    [
        "http://127.0.0.1/",
        "http://127.0.0.2:{port}/",
        "http://169.254.169.254/latest/meta-data/",
        "http://[::1]:{port}/",
        "http://[::ffff:127.0.0.1]/",
        "http://2130706433/",
        "http://0177.0.0.1/",
        "http://0x7f.1/",
        "http://localhost:{port}/",
        "http://localhost/",
        "file:///etc/passwd",
        "//10.0.0.1/",
    ],
)
async def test_no_redirect_leads_inside(inside: str) -> None:
    asked: list[bytes] = []

    async def redirects(peer: Peer) -> None:
        asked.append(await peer.head())
        port = peer.writer.get_extra_info("sockname")[1]
        location = inside.format(port=port).encode()
        await peer.send(b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: " + location + b"\r\n\r\n")

    error = await refusal_of(redirects, total_s=30)
    assert "could not be fetched from a public" in error.message
    assert len(asked) == 1


class Rebinding(AbstractResolver):
    """A DNS that gives each of ``answers`` once, in turn."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return [
            ResolveResult(hostname=host, host=one, port=port, family=family, proto=0, flags=0)
            for one in self.answers.pop(0)
        ]

    async def close(self) -> None:
        return None


@pytest.mark.parametrize(
    "addresses",
    [["10.1.2.3"], ["169.254.169.254"], ["::1"], ["fd00::1"], ["8.8.8.8", "192.168.0.1"], ["100.64.0.1"]],
)
async def test_a_name_with_any_private_address_is_refused_undialled(addresses: list[str]) -> None:
    async with ImageFetcher(resolver=Rebinding(addresses)) as fetcher:
        with pytest.raises(InvalidRequest, match="public"):
            await fetcher.fetch("https://images.example/x.png", "here")


async def test_each_answer_of_the_dns_is_judged_anew() -> None:
    guarded = GuardedResolver(Rebinding(["8.8.8.8"], ["127.0.0.1"]), frozenset())
    assert [one["host"] for one in await guarded.resolve("images.example")] == ["8.8.8.8"]
    with pytest.raises(OSError, match="not public"):
        await guarded.resolve("images.example")


async def test_a_name_is_asked_for_once_and_what_was_judged_is_dialled() -> None:
    async def answers(peer: Peer) -> None:
        await peer.head()
        await peer.send(HEAD + b"Content-Length: %d\r\n\r\n" % len(PNG) + PNG)

    dns = Rebinding(["127.0.0.1"], ["127.0.0.9"])
    async with (
        raw_upstream(answers) as upstream,
        ImageFetcher(allow_hosts=["images.example"], resolver=dns) as fetcher,
    ):
        assert await fetcher.fetch(f"http://images.example:{upstream.port}/x.png", "here") == PNG
    assert dns.answers == [["127.0.0.9"]]
