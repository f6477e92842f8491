"""RFC 6455 in bytes: what a strict or a hostile peer may send, and what it gets."""

from __future__ import annotations

import asyncio
import os
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pytest_aiohttp.plugin import AiohttpServer

from server.handlers.status import WATCHERS
from server.handlers.websocket import WebSocket
from server.settings import Settings
from tests.behaviour.asking import until
from tests.raw_http import Answer, RawClient, connect
from tests.scripted_runs import KEYS, site

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
HEAD = (
    b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n"
    b"Sec-WebSocket-Key: " + KEY + b"\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Protocol: antiphon.events.v1\r\n\r\n"
)
INIT = b'{"type":"connection_init"}'
TEXT, BINARY, CONT, CLOSE, PING, PONG = 1, 2, 0, 8, 9, 10


def frame(opcode: int, data: bytes = b"", *, fin: bool = True, masked: bool = True, rsv: int = 0) -> bytes:
    head = bytes([(0x80 if fin else 0) | rsv | opcode])
    bit = 0x80 if masked else 0
    if len(data) < 126:
        head += bytes([bit | len(data)])
    elif len(data) < 65536:
        head += bytes([bit | 126]) + struct.pack(">H", len(data))
    else:
        head += bytes([bit | 127]) + struct.pack(">Q", len(data))
    if not masked:
        return head + data
    mask = os.urandom(4)
    return head + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(data))


def close(code: int) -> bytes:
    return frame(CLOSE, struct.pack(">H", code))


class Peer:
    """A websocket client that sends bytes and reads frames."""

    def __init__(self, raw: RawClient) -> None:
        self.raw = raw

    async def receive(self) -> tuple[int, bytes]:
        """The next frame's opcode and payload. Raises IncompleteReadError at the end of the connection."""
        async with asyncio.timeout(10):
            first, second = await self.raw.reader.readexactly(2)
            assert first & 0xF0 == 0x80, "whole frames without reserved bits"
            assert not second & 0x80, "a server does not mask"
            size = second
            if size == 126:
                (size,) = struct.unpack(">H", await self.raw.reader.readexactly(2))
            elif size == 127:
                (size,) = struct.unpack(">Q", await self.raw.reader.readexactly(8))
            return first & 15, await self.raw.reader.readexactly(size)

    async def closed_with(self) -> int | None:
        """Read to the end; the close frame's code, None if there was none. TCP has ended after it."""
        code = None
        try:
            while True:
                opcode, data = await self.receive()
                if opcode == CLOSE:
                    code = struct.unpack(">H", data[:2])[0] if data else 1005
        except (asyncio.IncompleteReadError, ConnectionError):
            return code


@asynccontextmanager
async def handshaken() -> AsyncIterator[Peer]:
    async with site() as shown, connect("127.0.0.1", shown.port) as raw:
        await raw.send(HEAD)
        head = await raw.head()
        assert head.status == 101
        assert head.headers["sec-websocket-accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        assert head.headers["sec-websocket-protocol"] == "antiphon.events.v1"
        assert head.headers["upgrade"].lower() == "websocket"
        assert head.headers["connection"].lower() == "upgrade"
        assert "transfer-encoding" not in head.headers
        assert "x-request-id" in head.headers
        yield Peer(raw)


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        pytest.param(frame(TEXT, INIT, masked=False), 1002, id="not masked"),
        pytest.param(frame(TEXT, INIT, rsv=0x40), 1002, id="a reserved bit"),
        pytest.param(frame(3, b""), 1002, id="a reserved data opcode"),
        pytest.param(frame(11, b""), 1002, id="a reserved control opcode"),
        pytest.param(frame(CONT, b"x"), 1002, id="a continuation of nothing"),
        pytest.param(frame(TEXT, b"x", fin=False) + frame(TEXT, b"y"), 1002, id="a text within a text"),
        pytest.param(frame(PING, b"x" * 126), 1002, id="a long ping"),
        pytest.param(frame(PING, b"x", fin=False), 1002, id="a ping in parts"),
        pytest.param(frame(TEXT, b"\xff\xfe"), 1007, id="text that is not UTF-8"),
        pytest.param(
            frame(TEXT, b"\xe2\x82", fin=False) + frame(CONT, b"\x28"), 1007, id="parts that are not UTF-8"
        ),
        pytest.param(frame(TEXT, b"x" * 70000)[:14], 1009, id="announced too long"),
        pytest.param(
            frame(TEXT, b"x" * 40000, fin=False) + frame(CONT, b"x" * 40000),
            1009,
            id="parts that are too long",
        ),
        pytest.param(close(1006), 1002, id="close 1006"),
        pytest.param(close(1005), 1002, id="close 1005"),
        pytest.param(close(999), 1002, id="close 999"),
        pytest.param(frame(CLOSE, b"\x03"), 1002, id="a close of one byte"),
        pytest.param(frame(CLOSE, b"\x03\xe8\xff"), 1007, id="a reason that is not UTF-8"),
        pytest.param(close(1000), 1000, id="close 1000"),
        pytest.param(close(4999), 4999, id="close 4999"),
        pytest.param(frame(CLOSE), 1005, id="a close without a code"),
        pytest.param(frame(BINARY, INIT), 4400, id="binary"),
        pytest.param(frame(TEXT, b"nonsense"), 4400, id="not JSON"),
    ],
)
async def test_each_fault_is_closed_with_its_code_and_tcp_ends(sent: bytes, code: int) -> None:
    async with handshaken() as peer:
        await peer.raw.send(sent)
        if code == 4400:  # here the close is ours, and wants an answer
            opcode, data = await peer.receive()
            assert (opcode, struct.unpack(">H", data[:2])[0]) == (CLOSE, 4400)
            await peer.raw.send(close(4400))
            assert await peer.closed_with() is None
        else:
            assert await peer.closed_with() == code


async def test_a_close_frame_is_not_lost_to_what_is_sent_behind_the_fault() -> None:
    async with handshaken() as peer:
        await peer.raw.send(frame(TEXT, INIT, masked=False) + os.urandom(100_000))
        assert await peer.closed_with() == 1002


async def test_a_client_that_does_not_answer_a_close_is_cut() -> None:
    async with handshaken() as peer:
        await peer.raw.send(frame(TEXT, b"nonsense"))
        assert await peer.closed_with() == 4400


async def test_pings_are_answered_inside_a_fragmented_message() -> None:
    async with handshaken() as peer:
        await peer.raw.send(frame(TEXT, INIT[:5], fin=False) + frame(PING, b"are you there"))
        assert await peer.receive() == (PONG, b"are you there")
        await peer.raw.send(frame(PONG, b"unasked") + frame(CONT, INIT[5:]))
        opcode, data = await peer.receive()
        assert opcode == TEXT
        assert data.startswith(b'{"type":"connection_ack"')


async def test_frames_may_come_byte_by_byte_and_with_the_handshake() -> None:
    async with site() as shown, connect("127.0.0.1", shown.port) as raw:
        sent = frame(TEXT, INIT)
        await raw.send(HEAD + sent[:3])
        assert (await raw.head()).status == 101
        for byte in sent[3:]:
            await raw.send(bytes([byte]))
        assert (await Peer(raw).receive())[1].startswith(b'{"type":"connection_ack"')


async def test_a_flood_of_pings_whose_pongs_nobody_reads_costs_one_connection() -> None:
    async with handshaken() as peer:
        flood = frame(PING, b"x" * 125) * 1000
        async with asyncio.timeout(10):
            with pytest.raises(ConnectionError):
                await send_for_ever(peer, flood)


async def send_for_ever(peer: Peer, data: bytes) -> None:
    while True:
        await peer.raw.send(data)


async def refused(head: bytes, settings: Settings | None = None) -> Answer:
    async with site(settings) as shown, connect("127.0.0.1", shown.port) as raw:
        await raw.send(head)
        answer = await raw.answer()
        assert answer.headers["content-type"].startswith("application/json")
        assert set(answer.json()["error"]) >= {"message", "type", "param", "code"}
        return answer


async def test_refused_handshakes_are_http_errors_in_json() -> None:
    version = await refused(HEAD.replace(b"Version: 13", b"Version: 8"))
    assert (version.status, version.headers["sec-websocket-version"]) == (426, "13")
    assert (await refused(HEAD.replace(KEY, b"short"))).status == 400
    assert (await refused(HEAD.replace(b"Sec-WebSocket-Key: " + KEY + b"\r\n", b""))).status == 400
    assert (await refused(HEAD.replace(b"keep-alive, Upgrade", b"keep-alive"))).status in (400, 426)
    assert (await refused(HEAD.replace(b"Host: localhost", b"Host: evil.example"))).status == 403
    foreign = HEAD.replace(b"Upgrade: websocket", b"Origin: https://evil.example\r\nUpgrade: websocket")
    assert (await refused(foreign)).status == 403
    assert (await refused(b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")).status == 426


async def test_a_bad_key_is_401_and_a_foreign_origin_403_before_the_upgrade() -> None:
    keys = Settings(access=KEYS)
    bad = HEAD.replace(b"Upgrade: websocket", b"Authorization: Bearer wrong\r\nUpgrade: websocket")
    assert (await refused(bad, keys)).json()["error"]["code"] == "invalid_api_key"
    assert (await refused(b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n", keys)).status == 401
    offered = b"antiphon.events.v1, base64url.bearer.authorization.antiphon.!!!"
    assert (await refused(HEAD.replace(b"antiphon.events.v1", offered), keys)).status == 401
    foreign = HEAD.replace(
        b"Upgrade: websocket",
        b"Authorization: Bearer key-of-ann\r\nOrigin: https://evil.example\r\nUpgrade: websocket",
    )
    assert (await refused(foreign, keys)).json()["error"]["code"] == "origin_not_allowed"


FRAMES = st.builds(
    frame,
    st.integers(0, 15),
    st.binary(max_size=130),
    fin=st.booleans(),
    masked=st.sampled_from([True, True, True, False]),
    rsv=st.sampled_from([0, 0, 0, 0x10, 0x40]),
)


async def test_to_cut_a_connection_that_is_over_is_no_error(aiohttp_server: AiohttpServer) -> None:
    begun: asyncio.Future[tuple[web.Request, WebSocket]] = asyncio.get_running_loop().create_future()

    async def begin(request: web.Request) -> web.StreamResponse:
        socket = WebSocket(request, max_size=100, max_buffered=1000)
        begun.set_result((request, socket))
        await asyncio.Event().wait()  # cancelled when the client leaves
        return socket.response

    app = web.Application()
    app.router.add_get("/v1/events", begin)
    server = await aiohttp_server(app)
    async with connect("127.0.0.1", server.port or 0) as raw, asyncio.timeout(10):
        await raw.send(HEAD)
        request, socket = await begun
        raw.writer.transport.abort()
        await until(lambda: request.transport is None)
        socket.abort()


@hypothesis_settings(max_examples=60, deadline=None)
@given(sent=st.lists(st.binary(max_size=60) | FRAMES, max_size=6))
def test_random_bytes_cost_one_connection_and_leave_nothing_behind(sent: list[bytes]) -> None:
    async def throw() -> None:
        async with site() as shown:
            async with connect("127.0.0.1", shown.port) as raw:
                await raw.send(HEAD + frame(TEXT, INIT))
                await raw.head()
                await Peer(raw).receive()
                try:
                    await raw.send(b"".join(sent))
                    await raw.send(close(1000))
                except ConnectionError:
                    pass
                raw.writer.transport.abort()
            async with asyncio.timeout(10):
                while len(shown.app[WATCHERS]):  # noqa: ASYNC110  # the server tells nobody of it
                    await asyncio.sleep(0.001)
            async with connect("127.0.0.1", shown.port) as raw:
                await raw.send(HEAD)
                assert (await raw.head()).status == 101

    asyncio.run(throw())
