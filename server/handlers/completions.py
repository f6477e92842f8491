"""``POST /v1/completions``: the legacy text completions, of any model."""

from __future__ import annotations

from aiohttp import web

from server.app_keys import SNAPSHOT
from server.chat import ChatRequest
from server.completions_wire import CompletionCollector, CompletionEncoder, own_param, parse_completion
from server.deltas import Batch
from server.handlers.answering import begin
from server.handlers.body import read_body
from server.handlers.own_words import in_own_words
from server.run_log import Run
from server.sse import KEEP_ALIVE


async def create_completion(request: web.Request) -> web.StreamResponse:
    """Complete a prompt."""
    body = await read_body(request)
    asked = parse_completion(body, need_model=request[SNAPSHOT].settings.unknown_model != "default")
    with in_own_words(own_param):
        return await begin(request, asked.chat, CompletionDialect(asked.echo)).carry_out()


class CompletionDialect:
    """Text completions; see ``dialect.Dialect``. ``echo`` is what the text begins with."""

    prefix = "cmpl-"
    heartbeat = KEEP_ALIVE
    chats = False

    def __init__(self, echo: str) -> None:
        self._echo = echo

    def own_param(self, param: str) -> str:
        """What it is called in a completion."""
        return own_param(param)

    def encoder(self, run: Run, chat: ChatRequest, *, own: bool) -> CompletionEncoder:
        """Writes the events of a stream."""
        return CompletionEncoder(
            model=run.model,
            id=run.response_id,
            created=int(run.created_at),
            echo=self._echo,
            include_usage=chat.include_usage,
        )

    def collector(self, run: Run, chat: ChatRequest, *, own: bool) -> CompletionCollector:
        """Makes one body."""
        return CompletionCollector(
            model=run.model, id=run.response_id, created=int(run.created_at), echo=self._echo
        )

    def relayed(self, batch: Batch, model: str) -> bytes | None:
        """Never: no upstream is asked in this dialect."""
        return None
