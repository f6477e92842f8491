"""Runs that survive their asker: accepted at once, carried out by the server, fetched later."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing

import msgspec
from aiohttp import web

from server.app_keys import RUNS, TASKS
from server.chat import ChatRequest
from server.deltas import Deltas
from server.errors import InvalidRequest, RateLimited, ServerError
from server.openai_wire import Completion
from server.run_log import Run, Runs

FIELD = "antiphon.background"


def take_wish(chat: ChatRequest) -> tuple[ChatRequest, bool]:
    """The request without ``antiphon.background``, and whether that was true. Raises ``InvalidRequest``."""
    asked = chat.fields.antiphon
    if not asked or "background" not in asked:
        return chat, False
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


def check_room(under_way: int, limit: int) -> None:
    """Raise ``RateLimited`` if a key with ``under_way`` background runs may have no more."""
    if under_way >= limit:
        raise RateLimited(
            f"This key has {under_way} background runs under way, and may have {limit}; wait for one to end.",
            code="too_many_background_runs",
            retry_after_s=5,
        )


def begin(
    request: web.Request, run: Run, deltas: Deltas, completion: Completion, body: Callable[[], bytes]
) -> web.Response:
    """Carry out ``run``, whose answer is ``deltas``, and answer 202 with how it stands.

    What they bring is put into ``completion``; ``body`` then makes of it what is kept. The server's task
    owner holds the work; at the server's end the run is cancelled, and tells it.
    """
    work = _carry_out(request.app[RUNS], run, deltas, completion, body)
    request.app[TASKS].create(work, name=f"background {run.id}")
    return web.Response(
        status=202,
        body=msgspec.json.encode(run.snapshot()),
        content_type="application/json",
        headers={"Location": f"/v1/runs/{run.id}", "Cache-Control": "no-store"},
    )


async def _carry_out(
    runs: Runs, run: Run, deltas: Deltas, completion: Completion, body: Callable[[], bytes]
) -> None:
    try:
        with run.scope():
            async with aclosing(deltas) as batches:
                async for batch in batches:
                    completion.add(batch)
    except ServerError:
        return  # the run has told of it
    runs.keep_response(run, body())
