"""``/v1/runs``: what runs there are, how one stands, its events, and its end by a watcher's hand."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping

import msgspec
from aiohttp import web
from msgspec import Raw

from server.app_keys import PRINCIPAL, RUNS, SNAPSHOT
from server.errors import InvalidRequest, NotFound, ShuttingDown
from server.events import encode
from server.handlers import control
from server.handlers.event_source import WATCHERS, stream_feed, wants_event_stream
from server.handlers.status_feed import RunFeed, chosen_includes, chosen_types
from server.run_log import Run

STATUSES = ("queued", "in_progress", "completed", "incomplete", "failed", "cancelled")
MAX_RUNS = 100
MAX_EVENTS = 1000
_NUMBER = re.compile(r"[0-9]{1,15}")


async def list_runs(request: web.Request) -> web.Response:
    """A page of runs, newest first, without text; an admin sees everybody's."""
    query = request.query
    status = query.get("status") or None
    if status is not None and status not in STATUSES:
        raise InvalidRequest(f"status is one of {', '.join(STATUSES)}.", param="status")
    found, has_more = request.app[RUNS].page(
        request[PRINCIPAL],
        limit=number(query, "limit", low=1, high=MAX_RUNS) or 20,
        after=query.get("after") or None,
        status=status,
        model=query.get("model") or None,
    )
    page = {
        "object": "list",
        "data": [run.snapshot() for run in found],
        "first_id": found[0].id if found else None,
        "last_id": found[-1].id if found else None,
        "has_more": has_more,
    }
    return _json(msgspec.json.encode(page))


async def retrieve_run(request: web.Request) -> web.Response:
    """One run as it stands; ``?include=drafts,answer`` adds the texts that are kept.

    ``answer`` adds to a run that was in the background what it answers, as ``response``.
    """
    run = _run(request)
    include = chosen_includes(split(request.query.get("include")), admin=request[PRINCIPAL].admin)
    told = run.snapshot(include)
    if "answer" in include and (response := request.app[RUNS].response(run)) is not None:
        told["response"] = Raw(response)
    return _json(msgspec.json.encode(told))


async def run_events(request: web.Request) -> web.StreamResponse:
    """A run's events: an event stream where ``Accept`` asks for it, else a page of JSON."""
    if wants_event_stream(request):
        return await run_feed(request, await awaited_run(request, request.match_info["run"]))
    run = _run(request)
    query = request.query
    include = chosen_includes(split(query.get("include")), admin=request[PRINCIPAL].admin)
    types = chosen_types(split(query.get("types")))
    limit = number(query, "limit", low=1, high=MAX_EVENTS) or MAX_EVENTS
    events = run.events_after(number(query, "starting_after") or 0, limit)
    last = events[-1].sequence_number if events else run.head
    told = b",".join(encode(event, include) for event in events if types is None or event.type in types)
    has_more = b"true" if last < run.head else b"false"
    return _json(
        b'{"object":"list","data":[%b],"head":%d,"last":%d,"has_more":%b}' % (told, run.head, last, has_more)
    )


async def cancel_run(request: web.Request) -> web.Response:
    """End a run, and answer how it stands once it has ended. Idempotent."""
    run = _run(request)
    await control.cancel_run(run, request[PRINCIPAL])
    return _json(msgspec.json.encode(run.snapshot()))


async def cancel_member(request: web.Request) -> web.Response:
    """End one call of a run, and answer how the run stands. Idempotent."""
    run = _run(request)
    await control.cancel_member(run, request[PRINCIPAL], request.match_info["member"])
    return _json(msgspec.json.encode(run.snapshot()))


async def answer_now(request: web.Request) -> web.Response:
    """End a run's gathering, and answer how the run stands. Idempotent; 409 if there is too little."""
    run = _run(request)
    await control.answer_now(run, request[PRINCIPAL])
    return _json(msgspec.json.encode(run.snapshot()))


async def awaited_run(request: web.Request, run_id: str) -> Run:
    """The run of this id; with ``?wait=true`` one that has not begun is waited for, ``events.expect_s`` long.

    Raises ``NotFound`` if there is none by then, ``RateLimited`` if the key has too many connections.
    """
    runs, principal = request.app[RUNS], request[PRINCIPAL]
    try:
        return runs.get(run_id, principal)
    except NotFound:
        if request.query.get("wait") != "true":
            raise
    begun: asyncio.Future[Run] = asyncio.get_running_loop().create_future()

    def begin(run: Run) -> None:
        if not begun.done() and (principal.admin or run.key == principal.name):
            begun.set_result(run)

    settings, watchers = request[SNAPSHOT].settings.events, request.app[WATCHERS]
    waiting = _Waiting(begun)
    end = runs.expect(run_id, begin)
    try:
        watchers.add(waiting, principal.name, settings.max_connections)
        async with asyncio.timeout(settings.expect_s):
            return await begun
    except TimeoutError:
        raise NotFound("No run of this id has begun in time.", code="run_not_found") from None
    finally:
        end()
        watchers.remove(waiting)


class _Waiting:
    """A watcher of a run that has not begun."""

    def __init__(self, begun: asyncio.Future[Run]) -> None:
        self._begun = begun

    def go_away(self) -> None:
        if not self._begun.done():
            self._begun.set_exception(ShuttingDown("The server is shutting down; try again in a moment."))


async def run_feed(
    request: web.Request,
    run: Run,
    *,
    types: frozenset[str] | None = None,
    include: frozenset[str] | None = None,
) -> web.StreamResponse:
    """A run's events as an event stream: from a place on, or a snapshot and what follows.

    ``types`` and ``include`` are the query's where they are not given. A client that comes back after the end
    gets 204, which tells EventSource to stop. Raises ``Gone`` if the place is no longer kept.
    """
    query = request.query
    if include is None:
        include = chosen_includes(split(query.get("include")), admin=request[PRINCIPAL].admin)
    if types is None:
        types = chosen_types(split(query.get("types")))
    last = request.headers.get("Last-Event-ID")
    # The header counts more than the query, which stays the same on each return.
    place = number({"Last-Event-ID": last}, "Last-Event-ID") if last else number(query, "starting_after")
    if place is None and query.get("wait") == "true":
        place = 0  # whatever it has told since it was waited for
    if place is None:
        feed = RunFeed(run, run.head, include=include, types=types, cursors=None)
        return await stream_feed(request, feed, run.snapshot(include))
    place = min(place, run.head)
    if run.ended and place == run.head:
        return web.Response(status=204)
    run.events_after(place, 1)  # raises what the client has to hear as a status
    return await stream_feed(request, RunFeed(run, place, include=include, types=types), None)


def split(names: str | None) -> list[str] | None:
    """The names in a comma-separated query parameter; None if it is absent or empty."""
    return [name.strip() for name in names.split(",") if name.strip()] if names else None


def number(query: Mapping[str, str], name: str, *, low: int = 0, high: int = 10**15) -> int | None:
    """The whole number of a query parameter; None if it is absent. Raises ``InvalidRequest``."""
    text = query.get(name)
    if text is None:
        return None
    if not _NUMBER.fullmatch(text) or not low <= int(text) <= high:
        raise InvalidRequest(f"{name} has to be a whole number from {low} to {high}.", param=name)
    return int(text)


def _run(request: web.Request) -> Run:
    return request.app[RUNS].get(request.match_info["run"], request[PRINCIPAL])


def _json(body: bytes) -> web.Response:
    headers = {"Cache-Control": "no-store"}
    return web.Response(body=body, content_type="application/json", headers=headers)
