"""What can be called: ``GET /v1/models`` and ``GET /v1/models/{id}``."""

from __future__ import annotations

from aiohttp import web

from server import messages_wire
from server.app_keys import PRINCIPAL, SNAPSHOT
from server.openai_wire import model_body, models_body


async def list_models(request: web.Request) -> web.Response:
    """Models and combinations that this key may call, in the order of the configuration."""
    cards = request[SNAPSHOT].router.cards(request[PRINCIPAL])
    body = messages_wire.models_body(cards) if _is_anthropics(request) else models_body(cards)
    return web.Response(body=body, content_type="application/json")


async def retrieve_model(request: web.Request) -> web.Response:
    """One of them; ids may hold slashes."""
    name = request.match_info["model"].rstrip("/")
    card = request[SNAPSHOT].router.card(name, request[PRINCIPAL])
    body = messages_wire.model_body(card) if _is_anthropics(request) else model_body(card)
    return web.Response(body=body, content_type="application/json")


def _is_anthropics(request: web.Request) -> bool:
    """Clients of both dialects ask at the same place; Anthropic's always send a version."""
    return "anthropic-version" in request.headers
