"""One client's connection: aiohttp's, with the deadlines, refusals and farewells that it lacks.

Written against the insides of aiohttp 3.14.5 (``web_protocol.RequestHandler``): raw bytes in
``tests/test_serving.py`` hold every such dependence, so that a newer aiohttp which differs turns a test red.
"""

from __future__ import annotations

import asyncio
import logging
import re
import uuid
from http import HTTPStatus
from ipaddress import AddressValueError, IPv6Address
from typing import Any

from aiohttp import hdrs, web
from aiohttp.helpers import rfc822_formatted_time
from aiohttp.http import HttpVersion10, HttpVersion11, RawRequestMessage
from aiohttp.http_exceptions import BadHttpMessage, HttpProcessingError, LineTooLong
from aiohttp.http_writer import _serialize_headers
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.web_protocol import RequestHandler, RequestPayloadError, _ErrInfo

from server.errors import InvalidRequest, ServerError
from server.openai_wire import error_body

log = logging.getLogger(__name__)

SERVER_NAME = "antiphon"
"""The ``Server`` header: no versions, which would only help who looks for a known hole."""

LINGER_S = 1.0
"""How long a refused connection is still read from. Closed with bytes unread, the kernel sends a reset, and
the client may lose the very answer that says what was wrong."""

# Up to this size head and body are joined, for one system call; copying more costs more than two. (bytes)
COPIED_BYTES = 64 * 1024

# RFC 3986, section 3.2: a name or an IPv4 address, or a literal in brackets; then a port. It may be empty.
_HOST = re.compile(r"(?:[\w.~!$&'()*+,;=%-]*|\[(?P<v6>[0-9A-Fa-f:.]+)\])(?::(?P<port>[0-9]{0,5}))?", re.ASCII)

_ERRORS = {
    400: (
        "malformed_request",
        "The request is not well-formed HTTP; check its first line, headers and framing.",
    ),
    404: ("not_found", "There is nothing at this address; check the path."),
    405: (
        "method_not_allowed",
        "This address does not take this method; the Allow header lists those it takes.",
    ),
    408: ("request_timeout", "The request's headers did not arrive in time; send the request again."),
    413: ("request_too_large", "The body is larger than the server takes; send less."),
    417: ("expectation_failed", "The Expect header asks for something unknown; send 100-continue, or none."),
    431: (
        "headers_too_large",
        "The address or the headers are too long; shorten them, or send fewer headers.",
    ),
    500: ("internal_error", "The server failed on this request; try again, or report the x-request-id."),
}


class Connections:
    """The open connections of one server. Whoever serves owns it, drains it and waits for its end.

    ``others_prepare``: does the application look at answers (``on_response_prepare``) before they leave?
    """

    def __init__(self) -> None:
        self.draining = False
        self.others_prepare = False
        self._open: dict[asyncio.Task[None], Connection] = {}

    def __len__(self) -> int:
        """How many connections are open, or closed with a handler that still unwinds."""
        return len(self._open)

    def add(self, connection: Connection, task: asyncio.Task[None]) -> None:
        """Hold ``connection`` until ``task``, which carries out its requests, is done."""
        self._open[task] = connection
        task.add_done_callback(self._open.pop)
        if self.draining:
            task.get_loop().call_soon(connection.finish)

    def drain(self) -> None:
        """Close the idle connections; let the others close after the answer that they are at."""
        self.draining = True
        for task, connection in self._open.items():
            # Not called here: a connection just made has not come to its waiting place yet.
            task.get_loop().call_soon(connection.finish)

    async def wait_closed(self) -> None:
        """Return when no connection is left."""
        while self._open:
            await asyncio.wait(self._open)

    def cancel(self) -> None:
        """Cancel every handler that still runs; ``wait_closed`` waits for their unwinding."""
        for task in self._open:
            task.cancel()


class Connection(RequestHandler):
    """One client's connection, many requests. It answers what never reaches a handler in JSON.

    ``header_timeout_s`` bounds the time from the first byte of a head to its end, and for the first head from
    the connection on. A client that was at a head then gets 408, a silent one nothing. (A head that began in
    one segment with an earlier request, and then stalled, shows only at its next byte; without one the idle
    limit ends it.) The other options are ``RequestHandler``'s.
    """

    __slots__ = (
        "_body",
        "_connections",
        "_deaf",
        "_head_begun",
        "_head_timer",
        "_header_timeout_s",
        "_last",
        "_resolve",
    )

    def __init__(
        self,
        manager: web.Server,
        *,
        connections: Connections,
        header_timeout_s: float,
        loop: asyncio.AbstractEventLoop,
        **options: Any,
    ) -> None:
        super().__init__(manager, loop=loop, **options)
        self._connections = connections
        self._header_timeout_s = header_timeout_s
        self._head_timer: asyncio.TimerHandle | None = None
        self._head_begun = False
        self._deaf = False  # what still arrives is not read
        self._last = False  # the answer under way is the last one
        self._body: StreamReader = EMPTY_PAYLOAD  # of the newest request; while it comes, no head can
        self._resolve = manager.request_handler
        self._request_handler = self._answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert self._task_handler is not None
        self._connections.add(self, self._task_handler)
        self._start_head_timer()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._stop_head_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return  # see LINGER_S
        if self._payload_parser is not None or self._upgraded:
            super().data_received(data)
            return
        at_head = self._body.is_eof()
        known = self._request_count
        super().data_received(data)
        if self._request_count > known:
            self._heads_arrived(self._request_count - known)
        elif at_head and not self._head_begun and data.strip(b"\r\n"):  # stray line ends begin nothing
            self._head_begun = True
            if self._head_timer is None:
                self._start_head_timer()

    def _heads_arrived(self, count: int) -> None:
        """Look at the ``count`` newest messages, before anybody else has."""
        self._stop_head_timer()
        for place in range(-count, 0):
            message, body = self._messages[place]
            if isinstance(message, _ErrInfo):
                self._deaf = True
                if not self._body.is_eof():
                    # Broken framing in a body that a handler reads. The fault is that request's, so it is
                    # told there; aiohttp would let it wait for ever, and answer what nobody had asked.
                    self._messages.pop()
                    self._body.set_exception(RequestPayloadError(message.message), message.exc)
            else:
                self._body = body
                if fault := head_fault(message):
                    refusal = _ErrInfo(status=400, exc=BadHttpMessage(fault), message=fault)
                    self._messages[place] = (refusal, body)

    def _start_head_timer(self) -> None:
        if self._header_timeout_s > 0:
            self._head_timer = self._loop.call_later(self._header_timeout_s, self._head_is_late)

    def _stop_head_timer(self) -> None:
        self._head_begun = False
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        self._head_timer = None
        waiter = self._waiter
        if waiter is None or waiter.done():
            # An answer is still on its way out, to a client that pipelines slowly: it comes first.
            self._start_head_timer()
        elif self._head_begun:
            self._deaf = True
            late = _ErrInfo(status=408, exc=TimeoutError(), message="")
            self._messages.append((late, EMPTY_PAYLOAD))
            waiter.set_result(None)
        else:
            self.force_close()

    def finish(self) -> None:
        """Close now if idle, else after the answer under way. A body that is still coming is still read."""
        # Not ``close()``: after it aiohttp drops what arrives, be it the body that a handler waits for or the
        # close frame of a websocket.
        if self._waiter is not None and not self._waiter.done():
            self.force_close()

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        if type(resp) is web.Response and self._is_plain(request, resp):
            return resp, await self._write_at_once(request, resp)
        known = self._request_count
        resp, reset = await super().finish_response(request, resp, start_time)
        if self._request_count > known:
            # What came behind a declined upgrade; aiohttp parses it here.
            self._heads_arrived(self._request_count - known)
        broken = request.content.exception() is not None
        if broken:
            request.content.feed_eof()  # else aiohttp goes on reading it, and logs the exception as its own
        if broken or self._last or self._connections.draining:
            resp.force_close()  # also where the head of the answer left before
        if (broken or self._last) and not reset and self.transport is not None:
            self._deaf = True
            if self.transport.can_write_eof():
                self.transport.write_eof()
            await asyncio.sleep(LINGER_S)  # ends early when the client closes: that cancels this task
        return resp, reset

    def _is_plain(self, request: web.BaseRequest, resp: web.Response) -> bool:
        """Is it bytes with nothing special about them, on a connection that goes on?"""
        body, headers = resp._body, resp._headers
        return (
            type(body) is bytes
            and resp._keep_alive is None
            and not (resp.prepared or resp._compression or resp._chunked or resp._cookies)
            and resp._status >= 200
            and resp._status not in (204, 304)
            and hdrs.CONTENT_TYPE in headers
            and hdrs.CONNECTION not in headers
            and request._version == HttpVersion11
            and request._method != hdrs.METH_HEAD
            and not request._message.should_close
            and request._payload.exception() is None
            and not (self._last or self._upgraded or self._paused)
            and not (self._connections.draining or self._connections.others_prepare)
            and self.transport is not None
            and not self.transport.is_closing()
        )

    async def _write_at_once(self, request: web.BaseRequest, resp: web.Response) -> bool:
        """Write the head and body of a plain answer, the same bytes as aiohttp, in a quarter of its time.

        True if the client is gone.
        """
        request._finish()
        body, headers, transport = resp._body, resp._headers, self.transport
        assert isinstance(body, bytes)
        assert transport is not None
        headers[hdrs.CONTENT_LENGTH] = str(len(body))
        headers[hdrs.DATE] = rfc822_formatted_time()
        headers[hdrs.SERVER] = SERVER_NAME
        head = _serialize_headers(f"HTTP/1.1 {resp._status} {resp._reason}", headers)
        resp._eof_sent = resp._keep_alive = True
        if len(body) < COPIED_BYTES:
            transport.write(head + body)
        else:
            transport.writelines((head, body))
        if self._paused:
            try:
                await self._drain_helper()
            except ConnectionError:
                return True
        return False

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            return await self._resolve(request)
        except web.HTTPException as error:
            # From before the middlewares, which would have made JSON of it.
            if error.status < 400:
                raise
            response = self._error(error.status, error.reason)
            if "Allow" in error.headers:
                response.headers["Allow"] = error.headers["Allow"]
            return response

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to a request that reached no handler, or whose handler let an exception out.

        Raises ConnectionError if an answer has begun: the connection is then closed, and the answer is cut.
        """
        if isinstance(exc, (HttpProcessingError, RequestPayloadError)):
            # Not its text: it quotes the bytes at fault, and those may be a key.
            log.info("refused a malformed request from %s: %s", request.remote, type(exc).__name__)
            status = _status(exc)
        elif status != 408:
            log.error("unhandled exception in a request from %s", request.remote, exc_info=exc or True)
            status = 500  # a TimeoutError too, which aiohttp takes for a 504: nobody meant it to come here
        self._last = True
        if request.writer.output_size > 0:
            raise ConnectionError("an answer has begun and cannot become an error")
        return self._error(status)

    def _error(self, status: int, reason: str | None = None) -> web.Response:
        code, text = _ERRORS.get(status, ("invalid_request", f"{reason or HTTPStatus(status).phrase}."))
        family = ServerError if status >= 500 else InvalidRequest
        body = error_body(family(text, code=code, status=status))
        response = web.Response(status=status, body=body, content_type="application/json")
        response.headers["Server"] = SERVER_NAME
        response.headers["Access-Control-Allow-Origin"] = "*"
        response.headers["x-request-id"] = f"req_{uuid.uuid4().hex}"
        response.force_close()
        return response


def head_fault(message: RawRequestMessage) -> str | None:
    """What is wrong with a head that aiohttp lets pass, if anything."""
    if message.version not in (HttpVersion10, HttpVersion11):
        return "neither HTTP/1.0 nor HTTP/1.1"
    coding = message.headers.get("Transfer-Encoding")
    if coding is not None and (coding.strip().lower() != "chunked" or message.version == HttpVersion10):
        # Another coding is not undone here, and in HTTP/1.0 proxies differ in what they make of any.
        return "a transfer coding that is not read"
    if not _is_host(message.headers.get("Host", "")):
        return "a Host that is none"
    return None


def _is_host(value: str) -> bool:
    """Whether ``Host`` may stand so; of others ``request.url`` would raise ValueError."""
    match = _HOST.fullmatch(value)
    if match is None or int(match["port"] or 0) > 65535:
        return False
    try:
        return match["v6"] is None or bool(IPv6Address(match["v6"]))
    except AddressValueError:
        return False


def _status(error: Exception) -> int:
    if isinstance(error, LineTooLong) or "Too many headers" in str(error):
        return 431
    return 400
