"""The application: what it is made of, and who owns what is open.

``create_app`` wires; nothing is opened before the application starts. Everything that lives as long as the
server is opened and closed by ``_lifetime``; what a request opens is closed by the request.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable
from functools import partial
from pathlib import Path

import msgspec
from aiohttp import web

from server.accounting import Accounts
from server.answer_cache import AnswerCache
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
from server.coordinator import Combination
from server.coordinator.recording import Recordings
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
from server.router import ModelRouter
from server.routing.channel import ChannelState
from server.routing.upkeep import Upkeep
from server.run_log import Runs
from server.settings import Channel, Images, Settings
from server.settings import Combination as CombinationSettings
from server.shared_call import SharedCalls
from server.spool import UploadRoom
from server.surfaces import EMBEDDINGS, SURFACES
from server.tasks import TaskOwner
from server.tickets import Tickets
from server.upstreams.base import Upstream
from server.upstreams.factory import build_upstreams, client_session
from server.upstreams.listing import Listing
from server.upstreams.local import LocalUpstream
from server.watchers import Watchers

log = logging.getLogger("antiphon.app")

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


class Workshop:
    """Makes snapshots: the channels of a reload that did not change are kept, with their state.

    Owns the client session and the child processes; ``aclose`` ends them. Needs a running event loop.
    ``install`` is given a snapshot that the workshop makes unasked, since a list of models has changed.
    """

    def __init__(
        self, tasks: TaskOwner, metrics: Metrics, images: Images, install: Callable[[Snapshot], None]
    ) -> None:
        self._tasks = tasks
        self._metrics = metrics
        self._install = install
        self._session = client_session(images)
        self._channels: dict[str, ChannelState] = {}
        self._cache = AnswerCache(Settings().cache, metrics.looked_up)
        self._calls = SharedCalls(tasks)
        metrics.gauges["cache_answers"] = ("Answers that are kept.", lambda: len(self._cache))
        metrics.gauges["cache_bytes"] = ("Bytes of kept answers, about.", lambda: self._cache.size)
        self._settings = Settings()
        self.upkeep = Upkeep(tasks, self.list_models, self._state, self._remake)

    def snapshot(self, settings: Settings) -> Snapshot:
        """Everything that is made from these settings. Raises OSError, and nothing has changed then."""
        made = self._make(settings)
        self._settings = settings
        self.upkeep.follow(settings.channels)
        return made

    def _make(self, settings: Settings) -> Snapshot:
        settings = msgspec.structs.replace(
            settings, channels=tuple(self.upkeep.resolved(channel) for channel in settings.channels)
        )
        before, channels = self._channels, dict[str, ChannelState]()
        fresh: list[ChannelState] = []
        for channel in settings.channels:
            kept = before.get(channel.name)
            if kept is None or kept.settings != channel:
                upstreams = build_upstreams(channel, self._session)
                kept = ChannelState(channel, upstreams, self._count, before=kept)
                if channel.enabled:
                    fresh.append(kept)
            channels[channel.name] = kept
        cache = self._cache if settings.cache.on else None
        folder = settings.runs.record_to
        recordings = None if not folder else Recordings(Path(folder), settings.runs.max_recordings)
        combine = partial(self._combine, recordings)
        made = Snapshot(settings, ModelRouter(settings, channels, combine, cache=cache, calls=self._calls))
        self._cache.rules = settings.cache
        if not settings.cache.on:
            self._cache.clear()
        self._channels = channels  # only now: what was in force stays owned if something above fails
        for name, state in before.items():
            now = channels.get(name)
            if now is None or not now.takes_calls:
                state.dismiss()
            if now is not state:
                self._tasks.create(self._retire(state), name=f"retire channel {name}")
        for state in fresh:
            if state.settings.kind == "local" or state.upstream.unavailable:
                self._tasks.create(self._check(state), name=f"check channel {state.name}")
        return made

    def _state(self, name: str) -> ChannelState | None:
        return self._channels.get(name)

    def _remake(self) -> None:
        """A channel serves other models than before."""
        try:
            self._install(self._make(self._settings))
        except OSError:  # its certificates, which are read again
            log.exception("the models that are listed now cannot be served")

    async def list_models(self, channel: Channel) -> Listing | None:
        """What models a channel's upstream says it has; see ``ModelLister.list``."""
        return await self._session.lister.list(channel)

    async def aclose(self) -> None:
        """End the children, close the session."""
        await asyncio.gather(*(state.aclose() for state in self._channels.values()))
        await self._session.close()

    def _count(self, channel: str, outcome: str) -> None:
        self._metrics.attempted(channel, outcome)

    async def _check(self, state: ChannelState) -> None:
        """Tell if a channel cannot serve at all, before its first request comes."""
        if isinstance(state.upstream, LocalUpstream):
            await state.upstream.check()
        if reason := state.upstream.unavailable:
            log.warning("channel %s cannot serve: %s", state.name, reason)

    async def _retire(self, state: ChannelState) -> None:
        """End what a channel that is no longer configured keeps open, once its last call has ended."""
        await state.idle.wait()
        await state.aclose()

    def _combine(
        self, recordings: Recordings | None, settings: CombinationSettings, find: Callable[[str], Upstream]
    ) -> Upstream:
        return Combination(settings, find, self._tasks, recordings=recordings)
