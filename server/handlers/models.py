"""What can be called: ``GET /v1/models`` and ``GET /v1/models/{id}``."""

from __future__ import annotations

from aiohttp import web

from server.app_keys import PRINCIPAL, SNAPSHOT
from server.openai_wire import model_body, models_body


async def list_models(request: web.Request) -> web.Response:
    """Models and combinations that this key may call, in the order of the configuration."""
    cards = request[SNAPSHOT].router.cards(request[PRINCIPAL])
    return web.Response(body=models_body(cards), content_type="application/json")


async def retrieve_model(request: web.Request) -> web.Response:
    """One of them; ids may hold slashes."""
    name = request.match_info["model"].rstrip("/")
    card = request[SNAPSHOT].router.card(name, request[PRINCIPAL])
    return web.Response(body=model_body(card), content_type="application/json")
