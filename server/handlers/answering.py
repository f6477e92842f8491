"""One answer on its way to a client, whatever dialect the client speaks.

A dialect says how deltas are written and how an error is told; the run, the record, the head, failures before
and after it, and what leaves together are the same for all.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable
from contextlib import aclosing
from functools import partial

from aiohttp import web

from server.accounting import Record
from server.answer_cache import Caching, wished
from server.app_keys import CREDENTIALS, PRINCIPAL, RECORD, RUNS, SNAPSHOT, TASKS
from server.chat import ChatRequest
from server.coordinator import Combination, answer, answer_whole
from server.deltas import Batch, Delta, Deltas
from server.errors import InvalidRequest, ServerError
from server.handlers import background, inband
from server.handlers.dialect import Collector, Dialect
from server.handlers.overriding import check_right
from server.handlers.streaming import EventStream
from server.handlers.telling import antiphon_field, attempts_told, drafts_told, warnings_told
from server.kept_stream import KeptStream
from server.openai_wire import ChunkEncoder, narrowed, results_apart
from server.run_log import Run
from server.strategy_settings import StatusMode
from server.upstreams.base import Call, Upstream

log = logging.getLogger("antiphon.answers")

# Combinations may call each other through servers; one that is so deep within others is refused.
MAX_DEPTH = 2
MAX_CONVERSATION_ID = 200


def begin(
    request: web.Request,
    chat: ChatRequest,
    dialect: Dialect,
    warnings: tuple[str, ...] = (),
    *,
    in_background: bool = False,
) -> Work:
    """Start the run of ``chat``. ``warnings`` tell what was adapted to make it, in ASCII words.

    Whoever calls awaits ``carry_out``, or has the work ``write_out`` if it is to be done in the background.
    Raises ``ServerError``.
    """
    snapshot = request[SNAPSHOT]
    principal = request[PRINCIPAL]
    record = request[RECORD]
    record.model = chat.model
    own = request.get(CREDENTIALS)
    router = snapshot.router
    upstream = router.choose(chat.model, principal) if own is None else router.lend(chat.model, principal)
    depth = _depth(request, upstream)
    if chat.wide and isinstance(upstream, Combination) and not upstream.relays:
        narrowed(chat)  # raises for what one service alone can do: not all of its calls go there
        chat, moved = results_apart(chat)  # what a turn shows decides who is asked
        warnings += moved
    settings = upstream.settings if isinstance(upstream, Combination) else None
    mode: StatusMode = "off"
    if dialect.chats:
        mode = inband.chosen_mode(request.headers.get(inband.HEADER), principal, settings, chat)
        if settings is not None:
            chat = inband.without_ticks(chat, router.names)
    if "antiphon" in chat.json:
        chat, wanted = background.take_wish(chat)
        if wanted and not dialect.chats:
            raise InvalidRequest("Only chats take this; responses have background.", param=background.FIELD)
        in_background |= wanted
        if settings is not None:
            check_right(principal, router, settings, chat)
    runs = request.app[RUNS]
    if in_background:
        limit = snapshot.settings.runs.max_background
        background.check_room(principal, runs.in_background(principal), limit)
    run = runs.start(
        model=chat.model or upstream.name,
        principal=principal,
        run_id=request.headers.get("x-run-id"),
        conversation_id=_conversation(chat),
    )
    run.background = in_background
    if not dialect.chats:
        run.response_id = dialect.prefix + run.id[4:]
    record.run_id = run.id
    run.warnings = warnings
    record.warnings = "; ".join(warnings)
    call = Call(run=run, depth=depth, credentials=own)
    if router.cached and own is None and not in_background:
        call.caching = _caching(request, upstream)
    return Work(request, record, run, upstream, chat, call, mode, dialect)


def _conversation(chat: ChatRequest) -> str | None:
    """The conversation that a chat says it belongs to."""
    named = chat.fields.conversation_id
    if named is not None and not 0 < len(named) <= MAX_CONVERSATION_ID:
        words = f"conversation_id has 1 to {MAX_CONVERSATION_ID} characters."
        raise InvalidRequest(words, param="conversation_id")
    return named


class Work:
    """One answer on its way to the client."""

    def __init__(
        self,
        request: web.Request,
        record: Record,
        run: Run,
        upstream: Upstream,
        chat: ChatRequest,
        call: Call,
        mode: StatusMode,
        dialect: Dialect,
    ) -> None:
        self.run = run
        self._request = request
        self._record = record
        self._upstream = upstream
        self._chat = chat
        self._call = call
        self._mode = mode
        self._dialect = dialect
        self._untold: tuple[str, ...] = ()  # what of the answer the client's dialect has no words for
        self._combination = upstream if isinstance(upstream, Combination) else None
        # The answer of a combination that writes anew is the run's; a relayed one keeps its own id.
        self._own = self._combination is not None and not self._combination.relays

    def carry_out(self) -> Awaitable[web.StreamResponse]:
        """The answer, as the request wants it: streamed, whole, or accepted to be fetched later."""
        if self.run.background:
            return self._in_background()
        return self._stream() if self._chat.stream else self._whole()

    async def _stream(self) -> web.StreamResponse:
        """Write the batches as they come. A failure before the head is a status, later an error event."""
        run = self.run
        encoder = self._dialect.encoder(run, self._chat, own=self._own)
        commit_after_s = self._request[SNAPSHOT].settings.server.commit_after_s
        if self._combination is not None:
            commit_after_s = min(commit_after_s, self._combination.commit_after_s)
        began = time.monotonic()
        async with EventStream(self._request, commit_after_s=commit_after_s) as stream:
            self._call.begun = partial(self._begin, stream)
            status = None
            if self._mode != "off" and isinstance(encoder, ChunkEncoder):
                status = inband.InBand(self._mode, run, encoder, stream, self._request.app[TASKS])
            try:
                # The run's scope is within: a run that is cancelled ends as an error that can still be told.
                with run.scope(self._request.task):
                    async with aclosing(self._answer()) as batches:
                        async for batch in batches:
                            if self._record.first_token_s is None:
                                self._first_token()
                                stream.waited_s = time.monotonic() - began
                                stream.heartbeat = self._dialect.heartbeat
                            if status is not None and (said := status.before(batch)):
                                await stream.write(said)
                            if data := encoder.encode(batch):
                                await stream.write(data)
                await stream.write(encoder.finish(run.usage, self._antiphon()))
                self._leave_out(encoder.warnings)
                await stream.end()
            except ServerError as error:
                if not stream.started:
                    raise
                if status is not None:
                    status.stop()
                await stream.fail(error, encoder.fail(error))
            finally:
                if status is not None:
                    status.stop()
                self._note()
        return stream.response

    async def _whole(self) -> web.Response:
        """Collect the same batches into one body."""
        run, record = self.run, self._record
        try:
            body = None
            began = time.monotonic()
            with run.scope(self._request.task):
                if self._combination is None:
                    batch = await answer_whole(run, self._upstream, self._chat, self._call)
                    body = self._dialect.relayed(batch, run.model)
                else:
                    batch = await self._all()
            ended = time.monotonic()
            if record.first_token_s is None:
                record.first_token_s = ended - record.started
            if body is None:
                body = self._collected(batch)
            record.overhead_s = overhead_s = max(0.0, time.monotonic() - record.started - ended + began)
            headers = {"X-Antiphon-Overhead-Ms": f"{overhead_s * 1000:.2f}"}
            if self._combination is not None:
                headers["X-Antiphon-Level"] = run.level
            return web.Response(body=body, headers=headers, content_type="application/json")
        finally:
            self._note()

    async def _all(self) -> Batch:
        """All that a combination says."""
        deltas: list[Delta] = []
        async with aclosing(self._answer()) as batches:
            async for batch in batches:
                if self._record.first_token_s is None:
                    self._first_token()
                deltas += batch
        return deltas

    def _collected(self, batch: Batch) -> bytes:
        """All deltas of an answer as one body."""
        collector = self._collector()
        collector.add(batch)
        body = self._body(collector)
        self._leave_out(collector.warnings)
        return body

    async def _in_background(self) -> web.Response:
        """Have the server carry out the run, and answer at once how it stands."""
        collector = self._collector()
        try:
            return background.begin(
                self._request, self.run, self._answer(), collector, lambda: self._body(collector)
            )
        finally:
            self._note()

    def write_out(self, kept_stream: KeptStream) -> None:
        """Have the server carry out the run, and write its stream into ``kept_stream``."""
        encoder = self._dialect.encoder(self.run, self._chat, own=self._own)
        app = self._request.app
        work = background.write_out(app, self.run, self._answer(), encoder, kept_stream, self._antiphon)
        app[TASKS].create(work, name=f"background {self.run.id}")
        self._note()

    def _collector(self) -> Collector:
        return self._dialect.collector(self.run, self._chat, own=self._own)

    def _body(self, collector: Collector) -> bytes:
        info = self._call.answer
        if info is not None and info.plain_body is not None and self._dialect.chats:
            return info.plain_body
        return collector.encode(self.run.usage, self._antiphon())

    def _answer(self) -> Deltas:
        return answer(self.run, self._upstream, self._chat, self._call)

    def _note(self) -> None:
        """Put what is known of the run into the request's record."""
        record, call = self._record, self._call
        record.usage, record.spent = self.run.usage, self.run.spent
        record.channel, record.attempts = call.channel, call.attempts_made
        self._tell_attempts()

    def _leave_out(self, warnings: tuple[str, ...]) -> None:
        """The client's dialect has no words for some of the answer; the client is told, and the log."""
        self._untold = warnings
        if warnings:
            log.info("run %s: of the answer: %s", self.run.id, "; ".join(warnings))

    def _begin(self, stream: EventStream) -> None:
        """A draft has its first word: the head leaves, and tells what was tried up to now."""
        self._tell_attempts()
        stream.commit()

    def _first_token(self) -> None:
        self._record.first_token_s = time.monotonic() - self._record.started
        self._tell_attempts()

    def _tell_attempts(self) -> None:
        """Have the client told what was adapted, and what was tried if it was more than one channel.

        What was tried is told, too, where channels are to be named.
        """
        names = self._request[SNAPSHOT].settings.routing.tell_channels
        call = self._call
        if call.tried or names or any(part.tried for _, part in call.parts):
            self._record.tried = attempts_told(call, names=names)
        if call.caching is not None and call.parts:
            self._record.cache = drafts_told(call)
        if call.warnings is not None or call.parts or self._untold:
            adapted = warnings_told(call, self._dialect.own_param)
            told = (*self.run.warnings, *adapted, *self._untold)
            self._record.warnings = "; ".join(told)

    def _antiphon(self) -> bytes | None:
        """The ``antiphon`` field of an answer that the combination made; None for a relayed one."""
        info = self._call.answer
        if not self._own or info is None:
            return None
        return antiphon_field(self.run.id, info)


def _caching(request: web.Request, upstream: Upstream) -> Caching | None:
    """What may be done with kept answers; of a combination they are its drafts. None: nothing is kept."""
    rules, record = request[SNAPSHOT].settings.cache, request[RECORD]
    asked = request.headers.get("Cache-Control")
    if isinstance(upstream, Combination):
        return wished(asked) if rules.keeps_drafts(upstream.name) else None
    if not (rules.keeps(upstream.name) or rules.shares(upstream.name)):
        return None

    def tell(outcome: str) -> None:
        record.cache = outcome

    return wished(asked, tell)


def _depth(request: web.Request, upstream: Upstream) -> int:
    """How many combinations this request is within already; told by the server that made it."""
    told = request.headers.get("x-antiphon-depth", "0")
    depth = int(told) if told.isascii() and told.isdigit() and len(told) < 4 else 0
    if depth >= MAX_DEPTH and isinstance(upstream, Combination):
        raise InvalidRequest(
            "Combinations call each other in a circle, or too deeply; ask a model instead.",
            param="model",
            code="recursion_limit",
        )
    return depth
