"""Runs that survive their asker: accepted at once, carried out by the server, fetched later."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import aclosing

import msgspec
from aiohttp import web

from server.app_keys import ACCOUNTS, RUNS, TASKS
from server.auth import Principal
from server.chat import ChatRequest
from server.deltas import Deltas
from server.errors import InvalidRequest, NotAllowed, RateLimited, ServerError
from server.handlers.dialect import Collector, Encoder
from server.kept_stream import KeptStream
from server.run_log import Run

log = logging.getLogger("antiphon.runs")


FIELD = "antiphon.background"


def take_wish(chat: ChatRequest) -> tuple[ChatRequest, bool]:
    """The request without ``antiphon.background``, and whether that was true. Raises ``InvalidRequest``.

    Nulls of the ``antiphon`` field go too: they are as good as absent.
    """
    told = chat.fields.antiphon or {}
    asked = {key: value for key, value in told.items() if bytes(value) != b"null"}
    if "background" not in asked:
        return (chat if len(asked) == len(told) else chat.with_values(antiphon=asked or None)), False
    try:
        wanted = msgspec.json.decode(asked["background"], type=bool)
    except msgspec.ValidationError:
        raise InvalidRequest(f"{FIELD} is true or false.", param=FIELD) from None
    if wanted and chat.stream:
        raise InvalidRequest(
            "A background run is not streamed: leave stream out, and watch the run's events.", param=FIELD
        )
    rest = {key: value for key, value in asked.items() if key != "background"}
    return chat.with_values(antiphon=rest or None), wanted


def check_room(principal: Principal, under_way: int, limit: int) -> None:
    """Raise ``NotAllowed`` or ``RateLimited`` if a key with ``under_way`` such runs may not have another."""
    if not principal.background or not limit:
        raise NotAllowed(
            "This key may not start background runs; wait for the answer instead.",
            code="background_not_allowed",
        )
    if under_way >= limit:
        raise RateLimited(
            f"This key has {under_way} background runs under way, and may have {limit}; wait for one to end.",
            code="too_many_background_runs",
            retry_after_s=5,
        )


def begin(
    request: web.Request, run: Run, deltas: Deltas, collector: Collector, body: Callable[[], bytes]
) -> web.Response:
    """Carry out ``run``, whose answer is ``deltas``, and answer 202 with how it stands.

    What they bring is put into ``collector``; ``body`` then makes of it what is kept. The server's task
    owner holds the work; at the server's end the run is cancelled, and tells it.
    """
    work = _carry_out(request.app, run, deltas, collector, body)
    request.app[TASKS].create(work, name=f"background {run.id}")
    return web.Response(
        status=202,
        body=msgspec.json.encode(run.snapshot()),
        content_type="application/json",
        headers={"Location": f"/v1/runs/{run.id}", "Cache-Control": "no-store"},
    )


async def _carry_out(
    app: web.Application, run: Run, deltas: Deltas, collector: Collector, body: Callable[[], bytes]
) -> None:
    try:
        with run.scope():
            async with aclosing(deltas) as batches:
                async for batch in batches:
                    collector.add(batch)
    except ServerError:
        return  # the run has told of it
    finally:
        _settle(app, run)
    app[RUNS].keep_response(run, body())


async def write_out(
    app: web.Application,
    run: Run,
    deltas: Deltas,
    encoder: Encoder,
    kept_stream: KeptStream,
    antiphon: Callable[[], bytes | None],
) -> None:
    """Carry out ``run``, and write its stream into ``kept_stream``, which ends with it."""
    try:
        with run.scope():
            async with aclosing(deltas) as batches:
                async for batch in batches:
                    kept_stream.append(encoder.encode(batch))
        kept_stream.append(encoder.finish(run.usage, antiphon()))
    except ServerError as error:
        kept_stream.append(encoder.fail(error))
    finally:
        kept_stream.end()
        _settle(app, run)


def _settle(app: web.Application, run: Run) -> None:
    """Count what a run used, of one that failed, too; its request has been answered long ago."""
    if (spent := run.spent or run.usage) is not None:
        app[ACCOUNTS].spent(run.model, spent)
    tokens = 0 if run.usage is None else run.usage.total_tokens
    log.info("%s ended in the background: %s, %d tokens", run.id, run.status, tokens)
