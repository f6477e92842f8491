"""``POST /v1/chat/completions``: one model or many, streamed or whole."""

from __future__ import annotations

import time
from contextlib import aclosing
from typing import Any
from urllib.parse import quote

import msgspec
from aiohttp import web
from msgspec import Raw

from server.accounting import Record
from server.app_keys import CREDENTIALS, PRINCIPAL, RECORD, RUNS, SNAPSHOT, TASKS
from server.chat import ChatRequest
from server.coordinator import Combination, answer, answer_whole
from server.deltas import Batch, Delta, Deltas
from server.errors import InvalidRequest, ServerError
from server.handlers import background, inband
from server.handlers.body import read_body
from server.handlers.streaming import EventStream
from server.openai_wire import ChunkEncoder, Completion, parse_chat, relayed, usage_json
from server.run_log import Run
from server.strategy_settings import StatusMode
from server.upstreams.base import AnswerInfo, Call, Upstream

# Combinations may call each other through servers; one that is so deep within others is refused.
MAX_DEPTH = 2
MAX_CONVERSATION_ID = 200
MARK_BYTES = inband.MARK.encode()


async def create_chat_completion(request: web.Request) -> web.StreamResponse:
    """Answer a chat request; its run is named in ``x-run-id``, before the first byte of the body."""
    snapshot = request[SNAPSHOT]
    principal = request[PRINCIPAL]
    body = await read_body(request)
    chat = parse_chat(body, need_model=snapshot.settings.unknown_model != "default")
    if MARK_BYTES in body:
        chat = inband.without_status(chat)
    record = request[RECORD]
    record.model = chat.model
    own = request.get(CREDENTIALS)
    router = snapshot.router
    upstream = router.choose(chat.model, principal) if own is None else router.lend(chat.model, principal)
    depth = _depth(request, upstream)
    settings = upstream.settings if isinstance(upstream, Combination) else None
    mode = inband.chosen_mode(request.headers.get(inband.HEADER), principal, settings, chat)
    in_background = False
    if "antiphon" in chat.json:
        chat, in_background = background.take_wish(chat)
    runs = request.app[RUNS]
    if in_background:
        limit = snapshot.settings.runs.max_background
        background.check_room(principal, runs.in_background(principal), limit)
    talk = chat.fields.conversation_id
    if talk is not None and not 0 < len(talk) <= MAX_CONVERSATION_ID:
        raise InvalidRequest(
            f"conversation_id has 1 to {MAX_CONVERSATION_ID} characters.", param="conversation_id"
        )
    run = runs.start(
        model=chat.model or upstream.name,
        principal=principal,
        run_id=request.headers.get("x-run-id"),
        conversation_id=talk,
    )
    record.run_id = run.id
    work = _Work(request, record, run, upstream, chat, Call(run=run, depth=depth, credentials=own), mode)
    try:
        if in_background:
            run.background = True
            return work.in_background()
        return await (work.stream() if chat.stream else work.whole())
    finally:
        work.note()


class _Work:
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
    ) -> None:
        self._request = request
        self._record = record
        self._run = run
        self._upstream = upstream
        self._chat = chat
        self._call = call
        self._mode = mode
        self._combination = upstream if isinstance(upstream, Combination) else None
        # The answer of a combination that writes anew is the run's; a relayed one keeps its own id.
        self._own = self._combination is not None and not self._combination.relays

    async def stream(self) -> web.StreamResponse:
        """Write the batches as they come. A failure before the head is a status, later an error event."""
        run = self._run
        encoder = ChunkEncoder(
            model=run.model,
            id=run.response_id,
            created=int(run.created_at),
            include_usage=self._chat.include_usage,
            own_identity=self._own,
        )
        commit_after_s = self._request[SNAPSHOT].settings.server.commit_after_s
        if self._combination is not None:
            commit_after_s = min(commit_after_s, self._combination.commit_after_s)
        began = time.monotonic()
        async with EventStream(self._request, commit_after_s=commit_after_s) as stream:
            self._call.begun = stream.commit
            status = None
            if self._mode != "off":
                status = inband.InBand(self._mode, run, encoder, stream, self._request.app[TASKS])
            try:
                # The run's scope is within: a run that is cancelled ends as an error that can still be told.
                with run.scope(self._request.task):
                    async with aclosing(self._answer()) as batches:
                        async for batch in batches:
                            if self._record.first_token_s is None:
                                self._first_token()
                                stream.waited_s = time.monotonic() - began
                            if status is not None and (said := status.before(batch)):
                                await stream.write(said)
                            if data := encoder.encode(batch):
                                await stream.write(data)
                await stream.write(encoder.finish(run.usage, self._antiphon()))
                await stream.end()
            except ServerError as error:
                if not stream.started:
                    raise
                if status is not None:
                    status.stop()
                await stream.fail(error)
            finally:
                if status is not None:
                    status.stop()
        return stream.response

    async def whole(self) -> web.Response:
        """Collect the same batches into one body."""
        run, record = self._run, self._record
        body = None
        began = time.monotonic()
        with run.scope(self._request.task):
            if self._combination is None:
                batch = await answer_whole(run, self._upstream, self._chat, self._call)
                body = relayed(batch, run.model)
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
        """All deltas of an answer as one completion."""
        completion = self._completion()
        completion.add(batch)
        return self._body(completion)

    def in_background(self) -> web.Response:
        """Have the server carry out the run, and answer at once how it stands."""
        completion = self._completion()
        return background.begin(
            self._request, self._run, self._answer(), completion, lambda: self._body(completion)
        )

    def _completion(self) -> Completion:
        run = self._run
        return Completion(
            model=run.model, id=run.response_id, created=int(run.created_at), own_identity=self._own
        )

    def _body(self, completion: Completion) -> bytes:
        info = self._call.answer
        if info is not None and info.plain_body is not None:
            return info.plain_body
        return completion.encode(self._run.usage, self._antiphon())

    def _answer(self) -> Deltas:
        return answer(self._run, self._upstream, self._chat, self._call)

    def note(self) -> None:
        """Put what is known of the run into the request's record."""
        record, call = self._record, self._call
        record.usage = self._run.usage
        record.channel, record.attempts = call.channel, call.attempts_made
        self._tell_attempts()

    def _first_token(self) -> None:
        self._record.first_token_s = time.monotonic() - self._record.started
        self._tell_attempts()

    def _tell_attempts(self) -> None:
        """Have the client told what was tried, if it was more than one channel, or if that is asked for."""
        names = self._request[SNAPSHOT].settings.routing.tell_channels
        if self._call.tried or names:
            self._record.tried = attempts_told(self._call, names=names)
        if self._call.warnings is not None and self._call.warnings[0] == self._call.channel:
            self._record.warnings = "; ".join(self._call.warnings[1])

    def _antiphon(self) -> bytes | None:
        """The ``antiphon`` field of an answer that the combination made; None for a relayed one."""
        info = self._call.answer
        if not self._own or info is None:
            return None
        return antiphon_field(self._run.id, info)


def attempts_told(call: Call, *, names: bool) -> str:
    """What became of each attempt, oldest first: ``ok`` or an error's code; with the channels' names."""
    outcomes = list(call.tried)
    if len(outcomes) < call.attempts_made:
        outcomes.append((call.channel, "ok"))
    # A code may be an upstream's own word: quoted, it is fit for a header.
    words = [(quote(channel, safe=""), quote(code[:64], safe="")) for channel, code in outcomes]
    return ", ".join(f"{channel}={code}" if names else code for channel, code in words)


def antiphon_field(run_id: str, info: AnswerInfo) -> bytes:
    """How an answer came about, as the ``antiphon`` object that goes with it."""
    members = [
        {
            "id": call.id,
            "model": call.model,
            "state": call.state,
            **({"code": call.code} if call.code else {}),
            "usage": None if call.usage is None else Raw(usage_json(call.usage)),
            "cost": None,
        }
        for call in info.members
    ]
    fields: dict[str, Any] = {
        "run_id": run_id,
        "strategy": info.strategy,
        "level": info.level,
        "answer_by": info.answer_by,
        "members": members,
    }
    if info.agreement is not None:
        fields["agreement"] = info.agreement
    if info.steps:
        fields["steps"] = info.steps
    return msgspec.json.encode(fields)


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
