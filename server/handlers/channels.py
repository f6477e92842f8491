"""``/api/channels``: how the channels stand, and whether one answers when it is asked. For an admin's key."""

from __future__ import annotations

import asyncio

import msgspec
from aiohttp import web

from server.app_keys import CURRENT, PRINCIPAL, SNAPSHOT
from server.errors import InvalidRequest, NotAllowed, NotFound
from server.handlers.body import read_body
from server.routing.channel import ChannelState
from server.routing.trial import try_channel
from server.surfaces import chat_models


class _Wish(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    model: str | None = None


async def list_channels(request: web.Request) -> web.Response:
    """Every channel in the order of the configuration: what it serves, and what is against asking it now."""
    _check_admin(request)
    now = asyncio.get_running_loop().time()
    channels = request[SNAPSHOT].router.channels.values()
    return _json({"object": "list", "data": [_card(channel, now) for channel in channels]})


async def test_channel(request: web.Request) -> web.Response:
    """Make a real, tiny call with each of the channel's keys, and answer what became of it.

    200 also where the calls failed: the test was made. A channel whose list of models never came is asked for
    it now. Raises ``NotFound`` for an unknown channel or model.
    """
    _check_admin(request)
    name = request.match_info["channel"]
    channels = request[SNAPSHOT].router.channels
    channel = channels.get(name)
    if channel is None:
        raise NotFound(
            f"There is no channel {name[:100]!r}; there are {', '.join(channels)}.", code="channel_not_found"
        )
    served = channel.settings.served()  # none: it serves what its upstream lists, which never came
    model = _wanted(await read_body(request)).model or next(iter(chat_models(channel.settings)), None)
    if served and model is None:
        raise NotFound("This channel serves no model that takes chats.", code="model_not_found")
    if served and model not in served:
        raise NotFound(
            f"This channel does not serve {(model or '')[:100]!r}; it serves {', '.join(served)}.",
            param="model",
            code="model_not_found",
        )
    found = await try_channel(channel, model, request.app[CURRENT].list_models)
    return _json({"object": "channel.test", **msgspec.to_builtins(found)})


def _wanted(body: bytes) -> _Wish:
    try:
        return msgspec.json.decode(body, type=_Wish) if body.strip() else _Wish()
    except msgspec.MsgspecError as error:
        raise InvalidRequest(f'A test is asked for with {{"model": "NAME"}} or nothing: {error}.') from error


def _card(channel: ChannelState, now: float) -> dict[str, object]:
    """One channel; no key, no address."""
    settings = channel.settings
    models = {model: channel.against(channel.health.of(model), now) or "ready" for model in settings.served()}
    return {
        "object": "channel",
        "name": channel.name,
        "kind": settings.kind,
        "enabled": settings.enabled,
        "priority": settings.priority,
        "weight": settings.weight,
        "keys": len(channel.lanes),
        "in_use": channel.in_use,
        "models": models,
    }


def _check_admin(request: web.Request) -> None:
    if not request[PRINCIPAL].admin:
        raise NotAllowed("Only an admin's key may see channels.", code="not_allowed")


def _json(value: object) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(value),
        content_type="application/json",
        headers={"Cache-Control": "no-store"},
    )
