"""``/v1/responses``: any model as OpenAI's newer clients ask it, and the responses that are kept."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import msgspec
from aiohttp import web
from msgspec import Raw

from server.app_keys import KEPT_RESPONSES, PRINCIPAL, RUNS, SNAPSHOT
from server.chat import ChatRequest
from server.deltas import Batch
from server.errors import Gone, InvalidRequest
from server.handlers import control
from server.handlers.answering import begin
from server.handlers.body import read_body
from server.handlers.own_words import in_own_words
from server.handlers.runs import number
from server.handlers.streaming import EventStream
from server.kept_responses import Kept, KeptResponses, Memory
from server.kept_stream import KeptStream
from server.openai_wire import error_event
from server.responses_wire import (
    Asked,
    Head,
    ResponseCollector,
    ResponseEncoder,
    Whole,
    begun,
    own_param,
    parse_response,
)
from server.run_log import Run
from server.sse import KEEP_ALIVE


async def create_response(request: web.Request) -> web.StreamResponse:
    """Answer a Responses request; with ``store`` the response is kept."""
    body = await read_body(request)
    kept = request.app[KEPT_RESPONSES]
    key = request[PRINCIPAL].name
    need_model = request[SNAPSHOT].settings.unknown_model != "default"
    asked = parse_response(body, Memory(kept, key), need_model=need_model)
    dialect = ResponsesDialect(asked, kept, key)
    if not asked.background:
        with in_own_words(own_param):
            return await begin(request, asked.chat, dialect, asked.warnings).carry_out()
    if not asked.store:
        raise InvalidRequest("A response in the background is stored; leave store out.", param="store")
    # Asked for as a stream, whatever its client wants: of one that is cut or cancelled there is what came.
    chat = asked.chat if asked.chat.stream else asked.chat.with_values(stream=True)
    work = begin(request, chat, dialect, asked.warnings, in_background=True)
    body, kept_stream = dialect.keep_begun(work.run)
    work.write_out(kept_stream)
    return await _follow(request, kept_stream, -1) if asked.chat.stream else _json(body)


async def retrieve_response(request: web.Request) -> web.StreamResponse:
    """A response that is kept, as it stands; with ``stream=true`` its events, behind ``starting_after``."""
    response = _kept(request)
    if request.query.get("stream") != "true":
        return _json(response.body)
    if response.kept_stream is None:
        raise InvalidRequest("Only a response in the background can be streamed again.", param="stream")
    place = number(request.query, "starting_after")
    place = -1 if place is None else place
    response.kept_stream.check(place)
    return await _follow(request, response.kept_stream, place)


async def list_input_items(request: web.Request) -> web.Response:
    """What a response was asked, newest first unless ``order=asc``."""
    response = _kept(request)
    own = [Raw(item) for item in response.items[response.begin : response.end]]
    items = [{"id": f"in_{at}"} | msgspec.json.decode(raw) for at, raw in enumerate(own)]
    if request.query.get("order", "desc") != "asc":
        items.reverse()
    page = {
        "object": "list",
        "data": items,
        "first_id": items[0]["id"] if items else None,
        "last_id": items[-1]["id"] if items else None,
        "has_more": False,
    }
    return _json(msgspec.json.encode(page))


async def delete_response(request: web.Request) -> web.Response:
    """Forget a response."""
    id = request.match_info["response"]
    request.app[KEPT_RESPONSES].delete(id, request[PRINCIPAL].name)
    return _json(msgspec.json.encode({"id": id, "object": "response", "deleted": True}))


async def cancel_response(request: web.Request) -> web.Response:
    """End a response in the background, and answer how it stands then. Idempotent."""
    response = _kept(request)
    if response.kept_stream is None:
        raise InvalidRequest(
            "Only a response in the background can be cancelled; close the connection to end another.",
            param="response_id",
        )
    if not response.ended:
        run = request.app[RUNS].find("run_" + request.match_info["response"].removeprefix("resp_"))
        if run is not None:
            await control.cancel_run(run, request[PRINCIPAL])
        try:
            async with asyncio.timeout(control.EFFECT_S):
                await response.kept_stream.wait_ended()
        except TimeoutError:
            pass  # its writer still unwinds; the status in the answer says so
    return _json(_kept(request).body)


async def _follow(request: web.Request, kept_stream: KeptStream, place: int) -> web.StreamResponse:
    """The events behind ``place`` as they come. A client that leaves ends nothing, and may come back."""
    async with EventStream(request, commit_after_s=0) as stream, aclosing(kept_stream.after(place)) as events:
        try:
            async for data in events:
                await stream.write(data)
            if not stream.started:
                await stream.write(KEEP_ALIVE)  # there was nothing behind that place
            await stream.end()
        except Gone as error:  # it read too slowly
            if not stream.started:
                raise
            await stream.fail(error, error_event(error))
    return stream.response


def _kept(request: web.Request) -> Kept:
    return request.app[KEPT_RESPONSES].get(request.match_info["response"], request[PRINCIPAL].name)


def _json(body: bytes) -> web.Response:
    headers = {"Cache-Control": "no-store"}
    return web.Response(body=body, content_type="application/json", headers=headers)


class ResponsesDialect:
    """OpenAI's Responses; see ``dialect.Dialect``. What has ended is put into ``kept`` for ``key``."""

    prefix = "resp_"
    heartbeat = KEEP_ALIVE
    chats = False

    def __init__(self, asked: Asked, kept: KeptResponses, key: str) -> None:
        self._asked = asked
        self._kept = kept
        self._key = key
        self._kept_stream: KeptStream | None = None

    def own_param(self, param: str) -> str:
        """What it is called in a response."""
        return own_param(param)

    def encoder(self, run: Run, chat: ChatRequest, *, own: bool) -> ResponseEncoder:
        """Writes the events of a stream."""
        return ResponseEncoder(
            self._head(run), summaries=self._asked.summaries, keep=lambda whole: self._keep(run, whole)
        )

    def collector(self, run: Run, chat: ChatRequest, *, own: bool) -> ResponseCollector:
        """Makes one response."""
        return ResponseCollector(
            self._head(run), summaries=self._asked.summaries, keep=lambda whole: self._keep(run, whole)
        )

    def relayed(self, batch: Batch, model: str) -> bytes | None:
        """Never: no upstream is asked in this dialect."""
        return None

    def keep_begun(self, run: Run) -> tuple[bytes, KeptStream]:
        """Keep the response of a run that is carried out in the background: as it stands, and its stream."""
        self._kept_stream = KeptStream()
        body = msgspec.json.encode(begun(self._head(run)))
        items = [*self._asked.history, *self._asked.items]
        begin = len(self._asked.history)
        kept = Kept(self._key, body, items, begin, len(items), self._kept_stream, ended=False)
        self._kept.keep(run.response_id, kept)
        return body, self._kept_stream

    def _head(self, run: Run) -> Head:
        return Head(run.response_id, run.model, int(run.created_at), self._asked.echo)

    def _keep(self, run: Run, whole: Whole) -> None:
        asked = self._asked
        if not asked.store:
            return
        if self._kept_stream is not None and run.response_id not in self._kept:
            return  # it was deleted while it was under way
        items = [*asked.history, *asked.items, *whole.output]
        begin = len(asked.history)
        end = begin + len(asked.items)
        self._kept.keep(run.response_id, Kept(self._key, whole.body, items, begin, end, self._kept_stream))
