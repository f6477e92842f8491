"""``POST /v1/messages``: any model as Anthropic's clients ask it; ``/v1/messages/count_tokens`` estimates."""

from __future__ import annotations

import msgspec
from aiohttp import web

from server.app_keys import PRINCIPAL, RECORD, SNAPSHOT
from server.chat import ChatRequest
from server.deltas import Batch
from server.handlers.answering import begin
from server.handlers.body import read_body
from server.handlers.own_words import in_own_words
from server.messages_wire import PING, Asked, MessageCollector, MessagesEncoder, own_param, parse_messages
from server.middlewares import REQUEST_ID_THERE
from server.run_log import Run
from server.token_estimates import tokens_of_chat


async def create_message(request: web.Request) -> web.StreamResponse:
    """Answer a Messages request."""
    record = request[RECORD]
    record.id_header = REQUEST_ID_THERE
    body = await read_body(request)
    beta = ",".join(request.headers.getall("anthropic-beta", ()))
    need_model = request[SNAPSHOT].settings.unknown_model != "default"
    asked = parse_messages(body, beta=beta, need_model=need_model)
    dialect = MessagesDialect(record.request_id, asked)
    with in_own_words(dialect.own_param):
        return await begin(request, asked.chat, dialect).carry_out()


async def count_tokens(request: web.Request) -> web.Response:
    """How many tokens a request probably has; no upstream is asked."""
    record = request[RECORD]
    record.id_header = REQUEST_ID_THERE
    snapshot = request[SNAPSHOT]
    body = await read_body(request)
    chat = parse_messages(body, need_model=snapshot.settings.unknown_model != "default", to_count=True).chat
    snapshot.router.choose(chat.model, request[PRINCIPAL])  # raises for a model that is not there
    told = {"input_tokens": tokens_of_chat(chat), "estimated": True}
    return web.Response(body=msgspec.json.encode(told), content_type="application/json")


class MessagesDialect:
    """Anthropic's Messages; see ``dialect.Dialect``."""

    prefix = "msg_"
    heartbeat = PING
    chats = False

    def __init__(self, request_id: str, asked: Asked) -> None:
        self._request_id = request_id
        self._chat = asked.chat
        self._thoughts = asked.thoughts

    def own_param(self, param: str) -> str:
        """What it is called in a Messages request."""
        return own_param(self._chat, param)

    def encoder(self, run: Run, chat: ChatRequest, *, own: bool) -> MessagesEncoder:
        """Writes the events of a stream."""
        return MessagesEncoder(
            model=run.model, id=run.response_id, request_id=self._request_id, thoughts=self._thoughts
        )

    def collector(self, run: Run, chat: ChatRequest, *, own: bool) -> MessageCollector:
        """Makes one message."""
        return MessageCollector(model=run.model, id=run.response_id, thoughts=self._thoughts)

    def relayed(self, batch: Batch, model: str) -> bytes | None:
        """Never: an upstream's own message has become deltas by now."""
        return None
