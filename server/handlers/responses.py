"""``/v1/responses``: any model as OpenAI's newer clients ask it, and the responses that are kept."""

from __future__ import annotations

import msgspec
from aiohttp import web
from msgspec import Raw

from server.app_keys import KEPT_RESPONSES, PRINCIPAL, SNAPSHOT
from server.chat import ChatRequest
from server.deltas import Batch
from server.errors import InvalidRequest
from server.handlers.answering import begin
from server.handlers.body import read_body
from server.kept_responses import Kept, KeptResponses, Memory
from server.responses_wire import Asked, Head, ResponseCollector, ResponseEncoder, Whole, parse_response
from server.run_log import Run
from server.sse import KEEP_ALIVE


async def create_response(request: web.Request) -> web.StreamResponse:
    """Answer a Responses request; with ``store`` the response is kept."""
    body = await read_body(request)
    kept = request.app[KEPT_RESPONSES]
    key = request[PRINCIPAL].name
    need_model = request[SNAPSHOT].settings.unknown_model != "default"
    asked = parse_response(body, Memory(kept, key), need_model=need_model)
    if asked.background:
        raise InvalidRequest(
            "background cannot be had here; chat completions have antiphon.background.",
            param="background",
            code="unsupported_parameter",
        )
    return await begin(request, asked.chat, ResponsesDialect(asked, kept, key), asked.warnings).carry_out()


async def retrieve_response(request: web.Request) -> web.Response:
    """A response that is kept."""
    return _json(_kept(request).body)


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
    """Refuse: a response that is kept has ended."""
    _kept(request)
    raise InvalidRequest(
        "Only a response in the background can be cancelled; close the connection to end one under way.",
        param="response_id",
    )


def _kept(request: web.Request) -> Kept:
    return request.app[KEPT_RESPONSES].get(request.match_info["response"], request[PRINCIPAL].name)


def _json(body: bytes) -> web.Response:
    headers = {"Cache-Control": "no-store"}
    return web.Response(body=body, content_type="application/json", headers=headers)


class ResponsesDialect:
    """OpenAI's Responses; see ``answering.Dialect``. What has ended is put into ``kept`` for ``key``."""

    prefix = "resp_"
    heartbeat = KEEP_ALIVE
    chats = False

    def __init__(self, asked: Asked, kept: KeptResponses, key: str) -> None:
        self._asked = asked
        self._kept = kept
        self._key = key

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

    def _head(self, run: Run) -> Head:
        return Head(run.response_id, run.model, int(run.created_at), self._asked.echo)

    def _keep(self, run: Run, whole: Whole) -> None:
        asked = self._asked
        if not asked.store:
            return
        items = [*asked.history, *asked.items, *whole.output]
        begin = len(asked.history)
        end = begin + len(asked.items)
        self._kept.keep(run.response_id, Kept(self._key, whole.body, items, begin, end))
