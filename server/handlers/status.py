"""``GET /v1/events``: the status channel, as a websocket or as server-sent events of a topic."""

from __future__ import annotations

import base64
import binascii

from aiohttp import web

from server.app_keys import CREDENTIALS, CURRENT, PRINCIPAL, RECORD, RUNS, SNAPSHOT, TICKETS
from server.auth import Principal, key_from_headers
from server.bus import ALL, topic_of
from server.errors import AuthenticationError, Gone, InvalidRequest, NotAllowed
from server.handlers.event_source import WATCHERS, stream_feed, wants_event_stream
from server.handlers.runs import awaited_run, run_feed, split
from server.handlers.status_audience import AUDIENCES
from server.handlers.status_feed import (
    Feed,
    TopicFeed,
    chosen_includes,
    chosen_types,
    conversation_in,
    topic_snapshot,
)
from server.handlers.status_messages import BEARER, MAX_MESSAGE, SUBPROTOCOL
from server.handlers.status_session import ACTIVE_RUNS, Session
from server.handlers.websocket import (
    WebSocket,
    asks_for_websocket,
    check_handshake,
    offered_subprotocols,
)
from server.middlewares import authenticates_later, client_address, own_origin
from server.tickets import Ticket

__all__ = ["WATCHERS", "close_watchers", "watch_events"]


async def close_watchers(app: web.Application) -> None:
    """Signal ``on_shutdown``: every watcher hears that the server ends, and is closed.

    While the server drains the runs under way end first, so that their watchers see how.
    """
    if app[CURRENT].draining:
        await app[RUNS].all_ended()
    app[WATCHERS].send_away()


@authenticates_later
async def watch_events(request: web.Request) -> web.StreamResponse:
    """The websocket, or where ``Accept`` asks for it an event stream of ``?topic=``."""
    if asks_for_websocket(request):
        return await _websocket(request)
    principal, ticket = request.get(PRINCIPAL), None
    if "ticket" in request.query and not key_from_headers(request.headers):
        principal, ticket = _spend_ticket(request)
    if principal is None:
        raise _missing_key()
    if not wants_event_stream(request):
        raise InvalidRequest(
            "This is the status channel: open a websocket, or send Accept: text/event-stream.",
            status=426,
            code="upgrade_required",
        )
    return await _event_stream(request, principal, ticket)


async def _websocket(request: web.Request) -> web.StreamResponse:
    settings = request[SNAPSHOT].settings.events
    offered = offered_subprotocols(request)
    token = key_from_headers(request.headers) or _key_from_subprotocol(offered)
    current = request.app[CURRENT]
    address = client_address(request, request[SNAPSHOT])
    ticket: Ticket | None = None

    def authenticate(key: str | None) -> Principal:
        keyring = current.snapshot.keyring  # the one in force, not the handshake's
        if own is not None and key == token:
            return keyring.recall(own.name, address)
        return keyring.recall(ticket.key, address) if ticket else keyring.authenticate(key, address)

    principal = request.get(PRINCIPAL)
    own = principal if CREDENTIALS in request else None
    if token is not None:
        principal = principal or authenticate(token)
    elif "ticket" in request.query:
        principal, ticket = _spend_ticket(request)
    spoken = SUBPROTOCOL in offered
    _check_origin(request)
    if principal is None and not spoken:  # it could not bring a key in connection_init either
        raise _missing_key()
    if (refusal := check_handshake(request)) is not None:
        return refusal
    socket = await WebSocket.accept(
        request,
        subprotocol=SUBPROTOCOL if spoken else None,
        max_size=MAX_MESSAGE,
        max_buffered=settings.outbox_bytes,
    )
    if not spoken:
        socket.close(4406, f"offer the subprotocol {SUBPROTOCOL}")
        await socket.wait_gone()
        return socket.response
    request[RECORD].status = socket.response.status
    session = Session(
        socket,
        runs=request.app[RUNS],
        watchers=request.app[WATCHERS],
        audiences=request.app[AUDIENCES],
        settings=settings,
        authenticate=authenticate,
        principal=principal,
        token=token,
        ticket=ticket,
    )
    await session.run()
    return socket.response


def _spend_ticket(request: web.Request) -> tuple[Principal, Ticket]:
    """Whom ``?ticket=`` stands for, and what it opens. Raises ``AuthenticationError``."""
    ticket = request.app[TICKETS].take(request.query["ticket"])
    snapshot = request[SNAPSHOT]
    principal = snapshot.keyring.recall(ticket.key, client_address(request, snapshot))
    request[PRINCIPAL] = principal
    request[RECORD].key = principal.name
    return principal, ticket


def _missing_key() -> AuthenticationError:
    return AuthenticationError(
        "An access key is missing. Send it as 'Authorization: Bearer KEY'.", code="missing_api_key"
    )


def _key_from_subprotocol(offered: list[str]) -> str | None:
    """The key in ``base64url.bearer.authorization.antiphon.<key>``. Raises ``AuthenticationError``."""
    for name in offered:
        if name.startswith(BEARER):
            coded = name[len(BEARER) :]
            try:
                return base64.b64decode(coded + "=" * (-len(coded) % 4), b"-_", validate=True).decode()
            except (binascii.Error, ValueError):
                raise AuthenticationError(
                    "The key in the subprotocol has to be base64url without padding."
                ) from None
    return None


def _check_origin(request: web.Request) -> None:
    """Browsers say where a script comes from; only its own host, or a listed one, may watch (B8).

    Without keys, loopback origins may too: the middleware has refused all that are neither.
    """
    origin, snapshot = request.headers.get("Origin"), request[SNAPSHOT]
    if origin is None or snapshot.keyring.open or origin == own_origin(request, snapshot):
        return
    settings = snapshot.settings
    if origin not in settings.events.origins and origin not in settings.cors.origins:
        raise NotAllowed(
            "This origin may not watch; see events.origins, or access.trusted_proxies behind a proxy.",
            code="origin_not_allowed",
        )


async def _event_stream(
    request: web.Request, principal: Principal, ticket: Ticket | None
) -> web.StreamResponse:
    query = request.query
    types = chosen_types(split(query.get("types")))
    include = chosen_includes(split(query.get("include")), admin=principal.admin)
    topic_name = query.get("topic", "self")
    if ticket is not None:
        topic_name, types = query.get("topic", ticket.topic), types or ticket.types
        include = include or ticket.include
        if not ticket.opens(topic_name, types, include):
            raise NotAllowed("The ticket was made for something else.", code="not_allowed")
    runs = request.app[RUNS]
    kind, _, name = topic_name.partition(":")
    if kind == "run" and name:
        return await run_feed(request, await awaited_run(request, name), types=types, include=include)
    if topic_name == ALL and not principal.admin:
        raise NotAllowed("Only an admin's key may watch all runs.", code="not_allowed")
    talk = conversation_in(topic_name)
    if topic_name not in ("self", ALL) and talk is None:
        raise InvalidRequest("Topics are run:<id>, conversation:<id>, self and all.", param="topic")
    everyone = topic_name == ALL
    topic = runs.bus.topic(ALL if everyone else topic_of(principal.name))
    epoch = f"{runs.bus.epoch}:"
    last = request.headers.get("Last-Event-ID") or query.get("offset")
    active = runs.active(principal, everyone=everyone, limit=ACTIVE_RUNS, conversation_id=talk)
    if last is None:
        feed: Feed = TopicFeed(
            topic,
            runs,
            topic.head,
            include=include,
            types=types,
            under_way=active,
            conversation_id=talk,
        )
        return await stream_feed(request, feed, topic_snapshot(active, include), epoch)
    offset = last.removeprefix(epoch)
    if offset == last or not offset.isascii() or not offset.isdigit() or len(offset) > 15:
        raise Gone("This place is of another start of the server; begin anew.", param="Last-Event-ID")
    if not topic.first - 1 <= int(offset) <= topic.head:
        raise Gone("This place is no longer kept; begin anew.", param="Last-Event-ID")
    feed = TopicFeed(
        topic,
        runs,
        int(offset),
        include=include,
        types=types,
        under_way=active,
        cursors={},
        conversation_id=talk,
    )
    return await stream_feed(request, feed, None, epoch)
