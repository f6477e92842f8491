"""``POST /v1/chat/completions``: one model or many, streamed or whole."""

from __future__ import annotations

from aiohttp import web

from server.app_keys import SNAPSHOT
from server.chat import ChatRequest
from server.deltas import Batch
from server.handlers import inband
from server.handlers.answering import begin
from server.handlers.body import read_body
from server.openai_wire import ChunkEncoder, Completion, OwnEncoder, parse_chat, relayed
from server.run_log import Run
from server.sse import KEEP_ALIVE

MARK_BYTES = inband.MARK.encode()


async def create_chat_completion(request: web.Request) -> web.StreamResponse:
    """Answer a chat request; its run is named in ``x-run-id``, before the first byte of the body."""
    body = await read_body(request)
    chat = parse_chat(body, need_model=request[SNAPSHOT].settings.unknown_model != "default")
    if MARK_BYTES in body:
        chat = inband.without_status(chat)
    return await begin(request, chat, CHAT).carry_out()


class ChatDialect:
    """OpenAI's chat completions; see ``dialect.Dialect``."""

    prefix = "chatcmpl-"
    heartbeat = KEEP_ALIVE
    chats = True

    def own_param(self, param: str) -> str:
        """The same."""
        return param

    def encoder(self, run: Run, chat: ChatRequest, *, own: bool) -> ChunkEncoder:
        """Writes the chunks of a stream."""
        if own and not chat.include_usage:
            return OwnEncoder(model=run.model, id=run.response_id, created=int(run.created_at))
        return ChunkEncoder(
            model=run.model,
            id=run.response_id,
            created=int(run.created_at),
            include_usage=chat.include_usage,
            own_identity=own,
        )

    def collector(self, run: Run, chat: ChatRequest, *, own: bool) -> Completion:
        """Makes one completion."""
        return Completion(model=run.model, id=run.response_id, created=int(run.created_at), own_identity=own)

    def relayed(self, batch: Batch, model: str) -> bytes | None:
        """The upstream's own completion."""
        return relayed(batch, model)


CHAT = ChatDialect()
