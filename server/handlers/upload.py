"""A form with files, taken in within its limits and kept outside of memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import hdrs, web
from aiohttp.http_exceptions import HttpProcessingError

from server.app_keys import SNAPSHOT, UPLOADS
from server.errors import InvalidRequest, RequestTimeout, RequestTooLarge, UnsupportedMediaType
from server.handlers.body import invite
from server.multipart import FormScanner, boundary_of
from server.spool import Spool


@asynccontextmanager
async def taken_in(
    request: web.Request, model_came: Callable[[str], object]
) -> AsyncIterator[tuple[FormScanner, Spool]]:
    """The form of a request, whole, until the block is left. ``model_came`` gets the model's name, if the
    form has one, as soon as it has passed: what it raises spares the client the rest of its upload.

    Raises ``UnsupportedMediaType`` for what is no form, ``RequestTooLarge``, ``RequestTimeout``,
    ``InvalidRequest`` and ``Overloaded``.
    """
    content_type = request.headers.get(hdrs.CONTENT_TYPE, "")
    if content_type.partition(";")[0].strip().lower() != "multipart/form-data":
        raise UnsupportedMediaType("Send a form: Content-Type multipart/form-data, with the file as a part.")
    if request.headers.get(hdrs.CONTENT_ENCODING, "").lower() not in ("", "identity"):
        raise UnsupportedMediaType("Send the form as it is, without Content-Encoding.")
    form = FormScanner(boundary_of(content_type))
    limits = request[SNAPSHOT].settings.uploads
    if (length := request.content_length) is not None and length > limits.max_bytes:
        raise RequestTooLarge(f"The form has {length} bytes; the limit is {limits.max_bytes}.")
    spool = Spool(limits, request.app[UPLOADS])
    try:
        await _receive(request, form, spool, model_came)
        yield form, spool
    finally:
        spool.close()


async def _receive(
    request: web.Request, form: FormScanner, spool: Spool, model_came: Callable[[str], object]
) -> None:
    settings = request[SNAPSHOT].settings
    idle_s = settings.server.body_idle_s
    content = request.content
    if hdrs.EXPECT in request.headers:
        invite(request)
    loop = asyncio.get_running_loop()
    end = loop.time() + settings.uploads.total_s
    told = False
    try:
        async with asyncio.timeout_at(min(loop.time() + idle_s, end)) as clock:
            while piece := await content.readany():
                form.feed(piece)
                if not told and form.model is not None:
                    told = True
                    model_came(form.model)
                await spool.add(piece)
                clock.reschedule(min(loop.time() + idle_s, end))
    except TimeoutError:
        raise RequestTimeout("The form came too slowly; send it again.") from None
    except (web.RequestPayloadError, HttpProcessingError) as error:
        raise InvalidRequest("The framing of the request body is broken; send it again.") from error
    form.eof()
    await spool.finish()
