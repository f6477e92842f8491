"""What the client over aiohttp does beyond what both clients promise."""

from __future__ import annotations

from yarl import URL

from server.upstreams.http import Target
from server.upstreams.http_aiohttp import AiohttpClient
from tests.upstreams.http_cases import HEADERS, HI, ask
from tests.upstreams.raw_upstream import Peer, raw_upstream


async def test_requests_go_through_the_proxy() -> None:
    seen = []

    async def serve(peer: Peer) -> None:
        seen.append(await peer.request())
        await peer.send(HI)
        await peer.gone()

    async with raw_upstream(serve) as proxy:
        client = AiohttpClient()
        to = Target(URL("http://models.example/v1"), HEADERS, proxy=f"http://127.0.0.1:{proxy.port}")
        assert await ask(client, to, b"{}") == b"hi"
        assert seen[0].head.startswith(b"POST http://models.example/v1 HTTP/1.1\r\n")
        await client.aclose()
