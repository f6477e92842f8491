"""A request's body, within its limits of size and time."""

from __future__ import annotations

import asyncio

from aiohttp import hdrs, web
from aiohttp.http_exceptions import HttpProcessingError

from server.app_keys import SNAPSHOT
from server.errors import InvalidRequest, RequestTimeout, RequestTooLarge

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


async def defer_continue(request: web.Request) -> None:
    """Expect handler: say ``100 Continue`` only when the body is really wanted, in ``read_body``."""


async def read_body(request: web.Request) -> bytes:
    """The whole body, inflated.

    Raises ``RequestTooLarge`` when more comes than is allowed, ``RequestTimeout`` when it stalls or takes too
    long in all, ``InvalidRequest`` when its compression is broken.
    """
    limits = request[SNAPSHOT].settings.server
    content = request.content
    if request.headers.get(hdrs.EXPECT, "").lower() == "100-continue" and request.transport is not None:
        request.transport.write(_CONTINUE)
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
        raise InvalidRequest("The request body is broken: its compression or framing.") from error


def _too_large(limit: int) -> RequestTooLarge:
    return RequestTooLarge(f"The request body is larger than the limit of {limit} bytes.")
