from __future__ import annotations

import asyncio
import socket

import pytest
from aiohttp import web

from server.serving import CannotListen, ServeOptions, serve
from tests.raw_http import connect
from tests.served import GET, echo_app, served


async def test_a_port_in_use_is_told_before_anything_starts() -> None:
    started = False

    async def start(_app: web.Application) -> None:
        nonlocal started
        started = True

    app = web.Application()
    app.on_startup.append(start)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CannotListen) as caught:
            await serve(app, ServeOptions(port=port), on_ready=lambda _url: pytest.fail("ready"))
    assert str(caught.value) == f"127.0.0.1:{port} is in use: another server? Use --port or server.port"
    assert not started


@pytest.mark.parametrize(
    ("host", "words"),
    [("192.0.2.1", "not an address of this machine"), ("no such host", "not a known host")],
)
async def test_a_wrong_host_is_told_in_one_line(host: str, words: str) -> None:
    with pytest.raises(CannotListen, match=words) as caught:
        await serve(
            web.Application(), ServeOptions(host=host, port=0), on_ready=lambda _url: pytest.fail("ready")
        )
    assert "\n" not in str(caught.value)


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
async def test_an_ipv6_host_is_told_in_brackets() -> None:
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(serve(echo_app(), ServeOptions(host="::1", port=0), on_ready=ready.set_result))
    url = await ready
    assert url.startswith("http://[::1]:")
    async with connect("::1", int(url.rpartition(":")[2])) as client:
        await client.send(b"GET / HTTP/1.1\r\nHost: [::1]\r\n\r\n")
        assert (await client.answer()).status == 200
    task.cancel()
    await asyncio.wait({task})


async def test_a_name_with_several_addresses_is_one_port_on_each() -> None:
    async with served(echo_app(), host="localhost") as port:
        found = await asyncio.get_running_loop().getaddrinfo("localhost", port, type=socket.SOCK_STREAM)
        for host in {str(address[0]) for *_, address in found}:
            if ":" in host and not has_ipv6():
                continue
            async with connect(host, port) as client:
                await client.send(GET)
                assert (await client.answer()).status == 200
