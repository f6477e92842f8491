"""Fetching images from hosts that cannot be trusted."""

from __future__ import annotations

import asyncio
import socket

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.test_utils import TestServer

from server.errors import InvalidRequest
from server.upstreams.image_fetch import ImageFetcher
from server.upstreams.image_head import image_type

PNG = b"\x89PNG\r\n\x1a\n" + b"0" * 40


class ToLoopback(AbstractResolver):
    """A DNS that has been rebound: every name is 127.0.0.1."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return [
            ResolveResult(hostname=host, host="127.0.0.1", port=port, family=socket.AF_INET, proto=0, flags=0)
        ]

    async def close(self) -> None:
        return None


async def answer(request: web.Request) -> web.StreamResponse:
    what = request.path.strip("/")
    if what == "loop":
        raise web.HTTPFound("/loop")
    if what == "hop":
        raise web.HTTPFound("/png")
    if what == "nowhere":
        return web.Response(status=302)
    if what == "inside":
        raise web.HTTPFound(f"http://localhost:{request.url.port}/png")
    response = web.StreamResponse()
    if what == "gzip":
        response.headers["content-encoding"] = "gzip"
    await response.prepare(request)
    if what == "drip":
        await asyncio.Event().wait()
    for _ in range(1000 if what == "large" else 1):
        await response.write(b"<html>" if what == "html" else PNG * 100)
    return response


async def fetched(path: str, **settings: float) -> bytes:
    app = web.Application()
    app.router.add_get("/{what}", answer)
    async with (
        TestServer(app, host="127.0.0.1") as server,
        ImageFetcher(
            allow_hosts=["127.0.0.1"], max_bytes=100_000, total_s=settings.get("total_s", 30)
        ) as fetcher,
    ):
        return await fetcher.fetch(str(server.make_url(path)), "messages[0].content[1].image_url")


@pytest.mark.parametrize("path", ["/png", "/hop"])
async def test_an_image_is_fetched_also_behind_a_redirect(path: str) -> None:
    assert image_type(await fetched(path)) == "image/png"


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/loop", "redirects"),
        ("/inside", "public"),
        ("/nowhere", "public"),
        ("/gzip", "public"),
        ("/html", "no image"),
        ("/large", "larger"),
    ],
)
async def test_what_is_no_fetchable_image_is_the_callers_error(path: str, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words) as caught:
        await fetched(path)
    assert (caught.value.code, caught.value.param) == (
        "invalid_image_url",
        "messages[0].content[1].image_url",
    )


async def test_a_host_that_drips_is_given_up() -> None:
    with pytest.raises(InvalidRequest, match="could not be fetched"):
        await fetched("/drip", total_s=0.2)


async def test_a_name_that_was_rebound_to_loopback_is_not_dialled() -> None:
    async with ImageFetcher(resolver=ToLoopback()) as fetcher:
        with pytest.raises(InvalidRequest, match="public"):
            await fetcher.fetch("http://images.example/x.png", "p")


async def test_a_host_that_no_dns_can_hold_is_the_callers_error() -> None:
    async with ImageFetcher() as fetcher:
        with pytest.raises(InvalidRequest, match="could not be fetched"):
            await fetcher.fetch(f"http://{'a' * 70}.invalid/x.png", "p")
