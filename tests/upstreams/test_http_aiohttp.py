"""What the client over aiohttp does beyond what both clients promise."""

from __future__ import annotations

import pytest
from yarl import URL

from server.errors import ServerError, UpstreamAuth, UpstreamUnreachable
from server.settings import Tls
from server.upstreams.http import Target, tls_context
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


@pytest.mark.parametrize(
    ("status", "kind"), [(407, UpstreamAuth), (403, UpstreamUnreachable), (502, UpstreamUnreachable)]
)
async def test_a_proxy_that_opens_no_tunnel_is_told_as_such(status: int, kind: type[ServerError]) -> None:
    """Not as an answer that is no HTTP; and neither its address nor its password is told."""

    async def refuse(peer: Peer) -> None:
        assert (await peer.head()).startswith(b"CONNECT models.example:443 HTTP/1.1\r\n")
        await peer.send(b"HTTP/1.1 %d No\r\nContent-Length: 0\r\n\r\n" % status)

    async with raw_upstream(refuse) as proxy:
        client = AiohttpClient()
        to = Target(
            URL("https://models.example/v1"),
            HEADERS,
            tls=tls_context(Tls()),
            proxy=f"http://user:password@127.0.0.1:{proxy.port}",
        )
        with pytest.raises(kind, match=f"proxy .*status {status}") as refused:
            await ask(client, to, b"{}")
        assert "password@" not in str(refused.value)
        assert "127.0.0.1" not in str(refused.value)
        await client.aclose()
