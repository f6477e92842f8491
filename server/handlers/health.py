"""Is it alive, is it ready, what does it count."""

from __future__ import annotations

import asyncio
import ipaddress

import msgspec
from aiohttp import web

from server.app_keys import ACCOUNTS, CURRENT, METRICS, PRINCIPAL, SNAPSHOT
from server.auth import key_from_headers
from server.metrics import CONTENT_TYPE
from server.middlewares import needs_no_key


@needs_no_key
async def alive(request: web.Request) -> web.Response:
    """200 while the process can answer; asks nobody."""
    return _json({"status": "healthy"})


@needs_no_key
async def ready(request: web.Request) -> web.Response:
    """503 while draining, and while notice of that is given.

    A sick upstream alone does not make us unready; it is shown.
    """
    current = request.app[CURRENT]
    parts: dict[str, str] = {"server": "draining" if current.leaving else "ready"}
    states: dict[str, set[str]] = {}
    for channel, _, state in current.snapshot.router.channel_states(asyncio.get_running_loop().time()):
        states.setdefault(channel, set()).add(state)
    for channel, found in states.items():
        # While one of its models may be asked, it is ready; /metrics tells them apart.
        parts[f"channel:{channel}"] = "ready" if "ready" in found else ", ".join(sorted(found))
    status = 503 if current.leaving else 200
    return _json({"status": parts["server"], "parts": parts}, status=status)


@needs_no_key
async def metrics(request: web.Request) -> web.Response:
    """Prometheus text. Needs a key, unless asked from loopback without keys, or opened."""
    snapshot = request[SNAPSHOT]
    if not (snapshot.settings.server.metrics_open or _is_local(request)):
        request[PRINCIPAL] = snapshot.keyring.authenticate(key_from_headers(request.headers), request.remote)
    request.app[ACCOUNTS].flush()
    return web.Response(body=request.app[METRICS].render(), headers={"Content-Type": CONTENT_TYPE})


def _is_local(request: web.Request) -> bool:
    """From this machine itself, and not on behalf of somebody else."""
    if "X-Forwarded-For" in request.headers or "Forwarded" in request.headers:
        return False
    try:
        return ipaddress.ip_address(request.remote or "").is_loopback
    except ValueError:
        return False


def _json(value: object, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), content_type="application/json", status=status)
