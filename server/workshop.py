"""Makes what settings say: channels, combinations, their router; a reload keeps what it leaves alone."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec

from server.answer_cache import AnswerCache
from server.app_keys import Snapshot
from server.coordinator import Combination
from server.coordinator.recording import Recordings
from server.metrics import Metrics
from server.router import ModelRouter
from server.routing.channel import ChannelState
from server.routing.upkeep import Upkeep
from server.settings import Channel, Images, Settings
from server.settings import Combination as CombinationSettings
from server.shared_call import SharedCalls
from server.tasks import TaskOwner
from server.upstreams.base import Upstream
from server.upstreams.factory import build_upstreams, client_session
from server.upstreams.listing import Listing
from server.upstreams.local import LocalUpstream

log = logging.getLogger("antiphon.workshop")


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
        self._session = client_session(images, metrics.skipped)
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
