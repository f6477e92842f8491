"""``POST /v1/events/tickets``: a ticket for a page that cannot send a key."""

from __future__ import annotations

import time

import msgspec
from aiohttp import web

from server.app_keys import PRINCIPAL, TICKETS
from server.bus import ALL
from server.errors import InvalidRequest, NotAllowed
from server.events import timestamp
from server.handlers.body import read_body
from server.handlers.status_feed import chosen_includes, chosen_types
from server.tickets import KEEP_S, Ticket

MAX_TOPIC = 256


class _Wish(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    topic: str
    types: list[str] | None = None
    include: list[str] | None = None


async def make_ticket(request: web.Request) -> web.Response:
    """Answer with a ticket for this key's view of a topic. Raises ``InvalidRequest`` and ``NotAllowed``."""
    principal = request[PRINCIPAL]
    try:
        wish = msgspec.json.decode(await read_body(request), type=_Wish)
    except msgspec.MsgspecError as error:
        raise InvalidRequest(f"A ticket is asked for with topic, types and include: {error}.") from error
    kind, _, name = wish.topic.partition(":")
    if wish.topic == ALL and not principal.admin:
        raise NotAllowed("Only an admin's key may watch all runs.", code="not_allowed")
    if (
        not (wish.topic in ("self", ALL) or (kind in ("run", "conversation") and name))
        or len(wish.topic) > MAX_TOPIC
    ):
        raise InvalidRequest("Topics are run:<id>, conversation:<id>, self and all.", param="topic")
    ticket = Ticket(
        principal.name,
        wish.topic,
        chosen_types(wish.types),
        chosen_includes(wish.include, admin=principal.admin),
    )
    told = {"ticket": request.app[TICKETS].make(ticket), "expires_at": timestamp(time.time() + KEEP_S)}
    return web.Response(
        body=msgspec.json.encode(told),
        content_type="application/json",
        headers={"Cache-Control": "no-store"},
    )
