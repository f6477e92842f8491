"""The application: what it is made of, and who owns what is open.

``create_app`` wires; nothing is opened before the application starts. Everything that lives as long as the
server is opened and closed by ``_lifetime``; what a request opens is closed by the request.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from functools import partial

from aiohttp import web

from server.accounting import Accounts
from server.app_keys import (
    ACCOUNTS,
    CURRENT,
    KEPT_RESPONSES,
    METRICS,
    RUNS,
    TASKS,
    TICKETS,
    UPLOADS,
    Current,
    Snapshot,
)
from server.handlers import (
    channels,
    chat,
    completions,
    health,
    messages,
    models,
    responses,
    runs,
    status,
    surfaces,
    tickets,
)
from server.handlers.body import defer_continue
from server.handlers.event_source import WATCHERS
from server.handlers.status_audience import AUDIENCES, Audiences
from server.handlers.web import Page
from server.kept_responses import KeptResponses
from server.metrics import Metrics
from server.middlewares import Handler, attend
from server.run_log import Runs
from server.settings import Settings
from server.spool import UploadRoom
from server.surfaces import EMBEDDINGS, SURFACES
from server.tasks import TaskOwner
from server.tickets import Tickets
from server.watchers import Watchers
from server.workshop import Workshop

# The start waits so long for lists of models; those that come later are served from then on. (seconds)
FIRST_LISTS_S = 3.0


def create_app(settings: Settings) -> web.Application:
    """An application that serves these settings, not started yet."""
    app = web.Application(middlewares=[attend], client_max_size=settings.server.body_bytes)
    metrics = app[METRICS] = Metrics()
    app[TASKS] = TaskOwner()
    app[TICKETS] = Tickets(time.monotonic)
    uploads = app[UPLOADS] = UploadRoom()
    metrics.gauges["upload_bytes"] = ("Bytes of uploads under way, on the disk.", lambda: uploads.taken)
    current = app[CURRENT] = Current()
    runs_kept = app[RUNS] = Runs(settings.runs)
    app[KEPT_RESPONSES] = KeptResponses(settings.responses)
    app[ACCOUNTS] = Accounts(
        metrics,
        known=lambda name: current.snapshot.router.knows(name),
        log=settings.logging.access,
        as_json=settings.logging.format == "json",
    )
    metrics.gauges["runs_in_progress"] = ("Runs under way.", lambda: runs_kept.in_progress)
    metrics.channel_states = lambda: current.snapshot.router.channel_states(asyncio.get_running_loop().time())
    watchers = app[WATCHERS] = Watchers()
    app[AUDIENCES] = Audiences()
    metrics.gauges["watchers"] = ("Watchers connected.", lambda: len(watchers))
    app.on_shutdown.append(status.close_watchers)
    app.cleanup_ctx.append(partial(_lifetime, settings))
    app.add_routes(_routes())
    app.add_routes(Page().routes())
    return app


def replace_settings(app: web.Application, settings: Settings) -> None:
    """Put a new snapshot in force; requests under way keep theirs."""
    current = app[CURRENT]
    current.snapshot = current.make(settings)
    app[ACCOUNTS].log = settings.logging.access


def give_notice(app: web.Application) -> None:
    """From now on not ready; all else goes on."""
    app[CURRENT].leaving = True


def drain(app: web.Application) -> None:
    """From now on not ready, and nothing new is begun."""
    give_notice(app)
    app[CURRENT].draining = True


async def last_words(app: web.Application) -> None:
    """End every run that is still under way; its client is told so, then its watchers are, and are closed."""
    app[RUNS].cancel_all("shutdown")
    try:
        await app[RUNS].all_ended()
    finally:
        app[WATCHERS].send_away()


async def _lifetime(settings: Settings, app: web.Application) -> AsyncIterator[None]:
    """Open what lives as long as the server; close it after the last request, in the reverse order."""
    current = app[CURRENT]

    def install(snapshot: Snapshot) -> None:
        current.snapshot = snapshot

    workshop = Workshop(app[TASKS], app[METRICS], settings.images, install)
    current.make, current.list_models = workshop.snapshot, workshop.list_models
    current.snapshot = workshop.snapshot(settings)
    await workshop.upkeep.first_lists(FIRST_LISTS_S)
    yield
    app[RUNS].cancel_all("shutdown")  # those in the background, which tell it while their tasks unwind
    await app[TASKS].aclose()
    await app[RUNS].aclose()
    await workshop.aclose()
    app[ACCOUNTS].close()


def _routes() -> Iterable[web.RouteDef]:
    """Every route, each with and without ``/v1`` and with and without a slash at the end (B28)."""
    yield web.get("/api/channels", channels.list_channels)
    yield web.post("/api/channels/{channel}/test", channels.test_channel)
    api: list[tuple[str, str, Handler]] = [
        ("GET", "/healthz", health.alive),
        ("GET", "/health", health.alive),
        ("GET", "/readyz", health.ready),
        ("GET", "/metrics", health.metrics),
        ("POST", "/chat/completions", chat.create_chat_completion),
        ("POST", "/completions", completions.create_completion),
        ("POST", "/responses", responses.create_response),
        ("GET", "/responses/{response}", responses.retrieve_response),
        ("DELETE", "/responses/{response}", responses.delete_response),
        ("GET", "/responses/{response}/input_items", responses.list_input_items),
        ("POST", "/responses/{response}/cancel", responses.cancel_response),
        ("POST", "/messages", messages.create_message),
        ("POST", "/messages/count_tokens", messages.count_tokens),
        ("GET", "/models", models.list_models),
        ("GET", "/models/{model:.+}", models.retrieve_model),
        ("GET", "/events", status.watch_events),
        ("POST", "/events/tickets", tickets.make_ticket),
        ("GET", "/runs", runs.list_runs),
        ("GET", "/runs/{run}", runs.retrieve_run),
        ("GET", "/runs/{run}/events", runs.run_events),
        ("POST", "/runs/{run}/cancel", runs.cancel_run),
        ("POST", "/runs/{run}/answer_now", runs.answer_now),
        ("POST", "/runs/{run}/members/{member}/cancel", runs.cancel_member),
    ]
    api += [("POST", one.path, surfaces.handler_of(one)) for one in SURFACES]
    api.append(
        ("POST", "/engines/{model}/embeddings", surfaces.handler_of(EMBEDDINGS))
    )  # as older clients ask
    for method, path, handler in api:
        for prefix in ("/v1", ""):
            for end in ("", "/") if not path.endswith(".+}") else ("",):  # that pattern takes the slash
                yield web.RouteDef(method, prefix + path + end, handler, {"expect_handler": defer_continue})
