"""A request's body, within its limits of size and time."""

from __future__ import annotations

import asyncio
import zlib

from aiohttp import HttpVersion11, hdrs, web
from aiohttp.http_exceptions import HttpProcessingError

from server.app_keys import SNAPSHOT
from server.errors import InvalidRequest, RequestTimeout, RequestTooLarge
from server.settings import Server

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_STEP_BYTES = 1024 * 1024  # inflated at once; then the loop serves others
_GZIP, _ZLIB, _DEFLATE = 31, 15, -15  # zlib's window bits, which also name the format


async def defer_continue(request: web.Request) -> None:
    """Expect handler: say ``100 Continue`` only when the body is really wanted, in ``read_body``."""


async def read_body(request: web.Request) -> bytes:
    """The whole body, inflated.

    Raises ``RequestTooLarge`` when more comes than is allowed, before or after inflation, ``RequestTimeout``
    when it stalls or takes too long in all, ``InvalidRequest`` when its compression or framing is broken.
    """
    limits = request[SNAPSHOT].settings.server
    body = await _read(request, limits)
    coding = request.headers.get(hdrs.CONTENT_ENCODING, "").lower()
    if coding in ("gzip", "deflate"):
        return await _inflate(body, coding, limits.body_bytes)
    return body


async def _read(request: web.Request, limits: Server) -> bytes:
    """The body as it was sent."""
    content = request.content
    if hdrs.EXPECT in request.headers:
        invite(request)
    try:
        if content.is_eof():  # nearly every body has come with its head
            body = content.read_nowait(-1)
            if len(body) > limits.body_bytes:
                raise _too_large(limits.body_bytes)
            return body
        loop = asyncio.get_running_loop()
        pieces: list[bytes] = []
        size = 0
        end = loop.time() + limits.body_total_s
        async with asyncio.timeout_at(min(loop.time() + limits.body_idle_s, end)) as clock:
            while piece := await content.readany():
                size += len(piece)
                if size > limits.body_bytes:
                    raise _too_large(limits.body_bytes)
                pieces.append(piece)
                clock.reschedule(min(loop.time() + limits.body_idle_s, end))
        return b"".join(pieces)
    except TimeoutError:
        raise RequestTimeout("The request body came too slowly; send it again.") from None
    except (web.RequestPayloadError, HttpProcessingError) as error:
        raise InvalidRequest("The framing of the request body is broken; send it again.") from error


def invite(request: web.Request) -> None:
    """Say ``100 Continue`` if that is expected. HTTP/1.0 knows no such answer (RFC 9110, 10.1.1)."""
    expected = request.headers[hdrs.EXPECT].lower() == "100-continue" and request.version >= HttpVersion11
    if expected and request.transport is not None:
        request.transport.write(_CONTINUE)


async def _inflate(body: bytes, coding: str, limit: int) -> bytes:
    """What was compressed: one gzip member, or a deflate stream with or without zlib's frame.

    Not left to aiohttp, which takes a stream that was cut off for whole.
    """
    pieces: list[bytes] = []
    size = 0
    rest = body
    try:
        inflater = zlib.decompressobj(_format(coding, body))
        while body and not inflater.eof:
            piece = inflater.decompress(rest, _STEP_BYTES)
            rest = inflater.unconsumed_tail
            size += len(piece)
            if size > limit:
                raise _too_large(limit)
            if not (piece or rest or inflater.eof):
                raise _broken_compression()
            pieces.append(piece)
            await asyncio.sleep(0)
    except zlib.error:
        raise _broken_compression() from None
    if inflater.unused_data:
        raise _broken_compression()
    return b"".join(pieces)


def _format(coding: str, body: bytes) -> int:
    if coding == "gzip":
        return _GZIP
    # "deflate" means zlib's format, but some send it bare; only the former begins with 8 in its low bits.
    return _ZLIB if body[:1] and body[0] & 0x0F == 8 else _DEFLATE


def _broken_compression() -> InvalidRequest:
    return InvalidRequest("The compressed request body is broken or cut off; send it again.")


def _too_large(limit: int) -> RequestTooLarge:
    return RequestTooLarge(f"The request body is larger than the limit of {limit} bytes.")
