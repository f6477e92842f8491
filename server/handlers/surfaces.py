"""The surfaces beside chats (embeddings, audio, images …): a client's bytes to a channel, its bytes back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

from aiohttp import HttpVersion11, web

from server.app_keys import CREDENTIALS, PRINCIPAL, RECORD, RUNS, SNAPSHOT
from server.coordinator import answer_surface
from server.errors import ServerError
from server.handlers.body import read_body
from server.handlers.telling import adaptations, attempts_told
from server.handlers.upload import taken_in
from server.middlewares import Handler, send_head, takes_forms
from server.openai_wire import error_event, model_of, parse_object
from server.routed_surface import RoutedSurface
from server.surfaces import AnswerHead, FormRequest, JsonRequest, Surface, SurfaceRequest
from server.upstreams.base import Call

_EVENT_ENDS = (b"\n\n", b"\r\n\r\n", b"\r\r")


def handler_of(surface: Surface) -> Handler:
    """The handler of a surface's route."""

    async def pass_json(request: web.Request) -> web.StreamResponse:
        json = parse_object(await read_body(request))
        name = model_of(json) or request.match_info.get("model", "")
        model = _choose(request, surface, name)
        return await _Passage(request, model, JsonRequest(surface, name or model.model, json)).carry_out()

    @takes_forms
    async def pass_form(request: web.Request) -> web.StreamResponse:
        async with taken_in(request, lambda name: _choose(request, surface, name)) as (form, spool):
            received = time.monotonic()
            name = form.model or ""
            model = _choose(request, surface, name)
            content_type = request.headers["Content-Type"]
            asked = FormRequest(surface, name or model.model, content_type, form, spool)
            return await _Passage(request, model, asked, since=received).carry_out()

    return pass_form if surface.form else pass_json


def _choose(request: web.Request, surface: Surface, name: str) -> RoutedSurface:
    """Who answers. Raises what the router raises."""
    request[RECORD].model = name
    router, principal = request[SNAPSHOT].router, request[PRINCIPAL]
    if CREDENTIALS in request:
        router.lend(name, principal)  # they are for other models than these: it says so
    return router.choose_surface(name, surface, principal)


class _Passage:
    """One request on its way to a channel, and the answer on its way back.

    ``since`` is when our own time began (monotonic), None for the request's beginning.
    """

    def __init__(
        self,
        request: web.Request,
        model: RoutedSurface,
        asked: SurfaceRequest,
        *,
        since: float | None = None,
    ) -> None:
        self._request = request
        self._record = record = request[RECORD]
        self._since = record.started if since is None else since
        self._model = model
        self._asked = asked
        record.model = asked.model
        self._run = request.app[RUNS].start(
            model=asked.model, principal=request[PRINCIPAL], run_id=request.headers.get("x-run-id")
        )
        record.run_id = self._run.id
        self._call = Call(run=self._run)
        self._began = time.monotonic()
        self._response: web.StreamResponse | None = None
        self._is_events = False
        self._tail = b""  # the last bytes that were sent

    async def carry_out(self) -> web.StreamResponse:
        """Answer the request. A failure before the head is a status, later a cut or an error event."""
        try:
            with self._run.scope(self._request.task):
                async with aclosing(answer_surface(self._run, self._model, self._asked, self._call)) as parts:
                    return await self._send(parts)
        except ServerError as error:
            if self._response is None:
                raise
            return await self._fail(self._response, error)
        finally:
            self._note()

    async def _send(self, parts: AsyncGenerator[AnswerHead | bytes, None]) -> web.StreamResponse:
        head, first = await anext(parts), await anext(parts)
        assert isinstance(head, AnswerHead)
        assert isinstance(first, bytes)
        record, request = self._record, self._request
        arrived = time.monotonic()
        record.first_token_s = arrived - record.started
        self._note()
        headers = {"Content-Type": head.content_type}
        if head.length == len(first):
            async for _ in parts:  # nothing but its end, which ends the run too
                pass
            headers["X-Antiphon-Overhead-Ms"] = self._overhead(arrived)
            return web.Response(status=head.status, body=first, headers=headers)
        self._is_events = head.is_events
        response = web.StreamResponse(status=head.status, headers=headers)
        if head.is_events:
            response.headers["Cache-Control"] = "no-cache"
            response.headers["X-Accel-Buffering"] = "no"
        if head.length is not None:
            response.content_length = head.length
        elif request.version < HttpVersion11:
            response.force_close()  # only the close can tell such a client where the body ends
        response.headers["X-Antiphon-Overhead-Ms"] = self._overhead(arrived)
        self._response = response
        await send_head(request, response)
        await self._write(response, first)
        async for part in parts:
            assert isinstance(part, bytes)
            await self._write(response, part)
        await response.write_eof()
        return response

    async def _write(self, response: web.StreamResponse, data: bytes) -> None:
        """Send bytes; a client that takes nothing for too long is cut off."""
        try:
            async with asyncio.timeout(self._request[SNAPSHOT].settings.server.write_timeout_s):
                await response.write(data)
        except TimeoutError:
            self._cut()
            raise asyncio.CancelledError from None
        self._tail = (self._tail + data[-4:])[-4:]

    async def _fail(self, response: web.StreamResponse, error: ServerError) -> web.StreamResponse:
        """Tell of a failure after the head has left, such that the answer cannot be taken for whole."""
        self._record.code = error.code
        if self._is_events and self._tail.endswith(_EVENT_ENDS) and response.prepared:
            await response.write(error_event(error))
            await response.write_eof()
        else:
            self._cut()
        return response

    def _cut(self) -> None:
        if self._request.transport is not None:
            self._request.transport.abort()

    def _overhead(self, arrived: float) -> str:
        """Our own time up to the answer's head, in ms, as the header tells it."""
        upstreams_s = arrived - self._began
        overhead_s = max(0.0, time.monotonic() - self._since - upstreams_s)
        self._record.overhead_s = overhead_s
        return f"{overhead_s * 1000:.2f}"

    def _note(self) -> None:
        """Put what is known of the run into the request's record."""
        record, call = self._record, self._call
        record.usage = self._run.usage
        record.channel, record.attempts = call.channel, call.attempts_made
        record.warnings = "; ".join(adaptations(call))
        names = self._request[SNAPSHOT].settings.routing.tell_channels
        if call.tried or names:
            record.tried = attempts_told(call, names=names)
