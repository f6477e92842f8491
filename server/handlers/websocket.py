"""The server's side of one websocket, as RFC 6455 wants it, on a connection that aiohttp has upgraded.

aiohttp's own reader takes unmasked frames and echoes close code 1006; so the bytes go through websockets'
sans-I/O protocol instead. Outgoing frames are plain bytes and go straight to the transport, so that one frame
may be built once for many watchers.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import logging
import socket
import struct
from collections import deque
from contextlib import suppress

from aiohttp import HttpVersion11, web
from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol, Side, State

from server.errors import InvalidRequest
from server.middlewares import error_response, send_head

log = logging.getLogger("antiphon.websocket")
_quiet = logging.getLogger("antiphon.websocket.frames")
_quiet.setLevel(logging.ERROR)

MAX_WAITING = 64
"""Messages that wait to be received; beyond them nothing is read from the socket."""

FAREWELL_S = 2.0
"""How long a closing connection may still take, until it is cut."""

UNSENT_BYTES = 16 * 1024
"""What the system may hold for a watcher that its line has no room for yet."""

_NO_LINGERING = struct.pack("ii", 1, 0)
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Closed(Exception):
    """The websocket is closed; ``code`` says why, 1006 if no close frame came."""

    def __init__(self, code: int) -> None:
        super().__init__(f"websocket closed with {code}")
        self.code = code


def text_frame(payload: bytes) -> bytes:
    """One unfragmented text frame, unmasked as servers send it."""
    size = len(payload)
    if size < 126:
        return b"\x81" + size.to_bytes(1, "big") + payload
    if size < 65536:
        return b"\x81\x7e" + size.to_bytes(2, "big") + payload
    return b"\x81\x7f" + size.to_bytes(8, "big") + payload


def asks_for_websocket(request: web.Request) -> bool:
    """Does the head ask for an upgrade to a websocket?"""
    return "websocket" in _tokens(request, "Upgrade")


def offered_subprotocols(request: web.Request) -> list[str]:
    """What the client offers, in its order, as it wrote it."""
    joined = ",".join(request.headers.getall("Sec-WebSocket-Protocol", []))
    return [one.strip() for one in joined.split(",") if one.strip()]


def check_handshake(request: web.Request) -> web.Response | None:
    """The refusal of a handshake that is not in order; None if it is."""
    fault = _fault(request)
    if fault is None:
        return None
    version = request.headers.get("Sec-WebSocket-Version")
    if version is not None and version.strip() != "13":
        error = InvalidRequest(fault, status=426, code="websocket_version", param="Sec-WebSocket-Version")
        response = error_response(request, error)
        response.headers["Sec-WebSocket-Version"] = "13"
    else:
        response = error_response(request, InvalidRequest(fault, code="websocket_handshake"))
    response.force_close()
    return response


def _fault(request: web.Request) -> str | None:
    if request.method != "GET" or request.version != HttpVersion11:
        return "A websocket begins with GET in HTTP/1.1."
    if "upgrade" not in _tokens(request, "Connection"):
        return "A websocket handshake needs the header Connection: Upgrade."
    keys = request.headers.getall("Sec-WebSocket-Key", [])
    try:
        good = len(keys) == 1 and len(base64.b64decode(keys[0].strip(), validate=True)) == 16
    except (binascii.Error, ValueError):
        good = False
    if not good:
        return "Sec-WebSocket-Key must be given once, as 16 bytes in base64."
    versions = request.headers.getall("Sec-WebSocket-Version", [])
    if [one.strip() for one in versions] != ["13"]:
        return "Only version 13 of the websocket protocol is spoken here; send Sec-WebSocket-Version: 13."
    if request.can_read_body or not request._message.upgrade:
        return "A websocket handshake has no body."
    return None


def _hold_little_back(transport: asyncio.Transport) -> None:
    """Have the system take no more than the line carries.

    Else it swallows megabytes for a slow line before we notice, and what is shown there lags by a minute;
    what waits with us goes out late but as few large pieces.
    """
    sock = transport.get_extra_info("socket")
    if sock is not None and sock.family != getattr(socket, "AF_UNIX", None):
        with suppress(OSError):  # a client that has just left: macOS refuses options then
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)


def _tokens(request: web.Request, name: str) -> set[str]:
    joined = ",".join(request.headers.getall(name, []))
    return {one.strip().lower() for one in joined.split(",")}


class WebSocket:
    """One open websocket. Made by ``accept``; ``response`` is what the handler returns when it is over.

    ``max_size`` bounds an incoming message, ``max_buffered`` (bytes) what may wait for a client that does not
    read: beyond it the connection is cut. Every way to close has a time limit.
    """

    def __init__(self, request: web.Request, *, max_size: int, max_buffered: int) -> None:
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("the client left before the upgrade")
        self._loop = asyncio.get_running_loop()
        self._transport = transport
        _hold_little_back(transport)
        self._protocol = Protocol(Side.SERVER, state=State.OPEN, max_size=max_size, logger=_quiet)
        self._max_buffered = max_buffered
        self._waiting: deque[str | bytes] = deque()
        self._receiver: asyncio.Future[None] | None = None
        self._parts: list[bytes] = []
        self._is_text = True
        self._paused = False
        self._half_closed = False
        self._draining: asyncio.Task[None] | None = None  # ends at the latest with the connection
        self._cutter: asyncio.TimerHandle | None = None
        self.heard = 0
        self.open = True  # may anything still be sent? Looked at for each frame, hence no property
        self._flow = request.protocol
        self.gone: asyncio.Future[None] = self._loop.create_future()
        self.response = web.StreamResponse(status=101)

    @classmethod
    async def accept(
        cls, request: web.Request, *, subprotocol: str | None, max_size: int, max_buffered: int
    ) -> WebSocket:
        """Send the 101 and take over the connection. The handshake has been checked."""
        socket = cls(request, max_size=max_size, max_buffered=max_buffered)
        key = request.headers["Sec-WebSocket-Key"].strip().encode()
        accepted = base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest()).decode()
        response = socket.response
        response.headers.update(
            {
                "Upgrade": "websocket",
                "Connection": "Upgrade",
                "Sec-WebSocket-Accept": accepted,
            }
        )
        if subprotocol is not None:
            response.headers["Sec-WebSocket-Protocol"] = subprotocol
        response.force_close()
        await send_head(request, response)
        request.protocol.keep_alive(False)
        request.protocol.set_parser(socket)  # type: ignore[arg-type]  # it asks for feed_data and feed_eof
        return socket

    # aiohttp's side: what a payload parser is asked

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """Take bytes from the socket."""
        if self._protocol.state is State.CLOSED or self._protocol.eof_sent:
            return False, b""
        self.heard += 1
        self._protocol.receive_data(data)
        for frame in self._protocol.events_received():
            assert isinstance(frame, Frame)  # of an open connection nothing else comes
            self._take(frame.opcode, frame.fin, bytes(frame.data))
        self._flush()
        if len(self._waiting) >= MAX_WAITING and not self._paused and not self._transport.is_closing():
            self._paused = True
            self._transport.pause_reading()
        return False, b""

    def feed_eof(self) -> None:
        """The connection is lost."""
        self.open = False
        if self._cutter is not None:
            self._cutter.cancel()
        if not self.gone.done():
            self.gone.set_result(None)
        self._wake()

    # The application's side

    @property
    def close_code(self) -> int:
        """With what it was closed, by the side that began; 1006 if without a close frame."""
        protocol = self._protocol
        if protocol.close_rcvd_then_sent or protocol.close_sent is None:
            return protocol.close_rcvd.code if protocol.close_rcvd is not None else 1006
        return protocol.close_sent.code

    @property
    def writing_paused(self) -> bool:
        """Is the client slower than we are? Then ``drained`` before more is sent."""
        return self._flow.writing_paused

    @property
    def buffered(self) -> int:
        """Bytes that wait for the client to read."""
        return self._transport.get_write_buffer_size()

    async def recv(self) -> str | bytes:
        """The next message: text as str. Raises ``Closed``."""
        while not self._waiting:
            if not self.open:
                raise Closed(self.close_code)
            self._receiver = self._loop.create_future()
            try:
                await self._receiver
            finally:
                self._receiver = None
        message = self._waiting.popleft()
        if len(self._waiting) < MAX_WAITING // 2:
            self._resume()
        return message

    def send_frame(self, frame: bytes) -> None:
        """Hand over a whole frame; what is sent after the close is dropped."""
        if self.open:
            self._transport.write(frame)

    def send_text(self, payload: bytes) -> None:
        """Send UTF-8 as one text message."""
        self.send_frame(text_frame(payload))

    def ping(self) -> None:
        """Send a protocol ping; whatever comes back counts in ``heard``."""
        if self.open:
            self._protocol.send_ping(b"")
            self._flush()

    async def drained(self, wait_s: float) -> bool:
        """Wait until the client has read enough, at most ``wait_s``; False if it has not."""
        if self._draining is None:
            # In a task of its own: a wait for aiohttp's waiter that was cancelled spoils the waiter.
            self._draining = self._loop.create_task(self._drain(), name="websocket drain")
        await asyncio.wait((self._draining,), timeout=wait_s)
        if not self._draining.done():
            return False
        self._draining = None
        return True

    async def _drain(self) -> None:
        try:
            await self._flow._drain_helper()
        except ConnectionError:
            pass  # gone: ``open`` says so

    def close(self, code: int, reason: str = "", *, within_s: float = FAREWELL_S) -> None:
        """Begin the closing handshake; the connection ends ``within_s``, whatever the client has not read."""
        if self.open:
            self._protocol.send_close(code, reason)
            self._cut_later(within_s)
            self._flush()
            self._waiting.clear()
            self._resume()  # the answer is still to be read
            self._wake()

    def abort(self) -> None:
        """Cut the connection; what was not read by now goes too, also from the system's buffers."""
        if (sock := self._transport.get_extra_info("socket")) is not None:
            # Else the system goes on offering megabytes to a client that does not read, for minutes.
            with suppress(OSError):  # a connection that is over by now holds nothing
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGERING)
        self._transport.abort()

    async def wait_gone(self) -> None:
        """Return when the connection is over, as late as its close allows."""
        if not self.gone.done():
            self.close(1011)
            self._cut_later()
        await asyncio.shield(self.gone)

    def _take(self, opcode: Opcode, fin: bool, data: bytes) -> None:
        if opcode is Opcode.TEXT or opcode is Opcode.BINARY:
            self._is_text = opcode is Opcode.TEXT
            self._parts = [data]
        elif opcode is Opcode.CONT:
            self._parts.append(data)
        else:
            return
        if not fin or self._protocol.close_sent is not None:
            return
        message = b"".join(self._parts)
        self._parts = []
        if not self._is_text:
            self._waiting.append(message)
        else:
            try:
                self._waiting.append(message.decode())
            except UnicodeDecodeError as error:
                if self._protocol.state is State.OPEN:
                    self._protocol.fail(1007, f"invalid UTF-8 at position {error.start}")
                return
        self._wake()

    def _flush(self) -> None:
        """Write what the protocol has to say: pongs, the close frame, the end."""
        if self._protocol.state is not State.OPEN:
            self.open = False
        for data in self._protocol.data_to_send():
            if data:
                self._transport.write(data)
            else:
                self._end()
        if self._protocol.state is not State.OPEN:
            self._cut_later()
            self._wake()
        elif self.buffered > self._max_buffered:
            log.info("cut a watcher that does not read")
            self.abort()

    def _end(self) -> None:
        """Both close frames have been exchanged, or the peer broke the protocol."""
        if self._half_closed or self._transport.is_closing():
            return
        self._half_closed = True
        # Closed with bytes unread, the kernel sends a reset, and the client may lose our close frame: so this
        # side is shut and the other is read, and thrown away, until the client closes too.
        if self._transport.can_write_eof():
            self._transport.write_eof()
        else:
            self._transport.close()
        self._resume()

    def _resume(self) -> None:
        if self._paused and not self._transport.is_closing():
            self._paused = False
            self._transport.resume_reading()

    def _cut_later(self, within_s: float = FAREWELL_S) -> None:
        """Cut the connection then; what was said first counts."""
        if self._cutter is None and not self.gone.done():
            self._cutter = self._loop.call_later(within_s, self.abort)

    def _wake(self) -> None:
        if self._receiver is not None and not self._receiver.done():
            self._receiver.set_result(None)


__all__ = [
    "Closed",
    "WebSocket",
    "asks_for_websocket",
    "check_handshake",
    "offered_subprotocols",
    "text_frame",
]
