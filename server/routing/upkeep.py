"""What is done for channels in the background: lists of models read anew, channels tried by a timer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable

import msgspec

from server.errors import ServerError
from server.routing.channel import ChannelState
from server.routing.trial import ListModels, allowed, try_keys
from server.settings import AUTO, Channel
from server.surfaces import chat_models
from server.tasks import TaskOwner

log = logging.getLogger("antiphon.upkeep")

# A list that did not come is asked for again so soon, then after twice the time, up to the usual. (seconds)
RETRY_S = 5.0


class Upkeep:
    """Looks after the channels that want it; its tasks are ``tasks``'.

    ``changed`` is called when a channel's list of models is another one than before. ``state`` finds a
    channel that is in force by its name.
    """

    def __init__(
        self,
        tasks: TaskOwner,
        list_models: ListModels,
        state: Callable[[str], ChannelState | None],
        changed: Callable[[], None],
    ) -> None:
        self._tasks = tasks
        self._list_models = list_models
        self._state = state
        self._changed = changed
        self._listed: dict[str, tuple[str, ...]] = {}
        self._followed: dict[str, tuple[Channel, list[asyncio.Task[None]]]] = {}
        self._unasked: set[str] = set()  # whose first list has neither come nor failed
        self._asked = asyncio.Event()

    def resolved(self, channel: Channel) -> Channel:
        """``channel`` with the models that its upstream lists, if it serves those; none before they came."""
        if channel.models != AUTO:
            return channel
        return msgspec.structs.replace(channel, models=self._listed.get(channel.name, ()))

    def follow(self, channels: Iterable[Channel]) -> None:
        """Look after these from now on, as they are configured, and after no others."""
        wanted = {
            one.name: one for one in channels if one.enabled and (one.models == AUTO or one.test_every_s)
        }
        for name, (channel, tasks) in list(self._followed.items()):
            if wanted.get(name) == channel:
                del wanted[name]
                continue
            for task in tasks:
                task.cancel()
            del self._followed[name]
            self._unasked.discard(name)
            if name not in wanted or not _same_list(channel, wanted[name]):
                self._listed.pop(name, None)
        for name, channel in wanted.items():
            tasks = []
            if channel.models == AUTO:
                self._unasked.add(name)
                tasks.append(self._tasks.create(self._keep_list(channel), name=f"list models of {name}"))
            if channel.test_every_s:
                tasks.append(self._tasks.create(self._keep_trying(channel), name=f"try channel {name}"))
            self._followed[name] = (channel, tasks)
        self._tell_asked()

    async def first_lists(self, patience_s: float) -> None:
        """Wait until each list has come or failed once, ``patience_s`` seconds at most."""
        try:
            async with asyncio.timeout(patience_s):
                await self._asked.wait()
        except TimeoutError:
            pass  # it is said when it comes or fails

    async def _keep_list(self, channel: Channel) -> None:
        retry_s = RETRY_S
        while True:
            try:
                listing = await self._list_models(channel)
            except ServerError as error:
                log.warning("channel %s: its list of models did not come: %s", channel.name, error.message)
                pause_s = retry_s
                retry_s = min(2 * retry_s, max(channel.list_every_s, RETRY_S))
            else:
                self._learn(channel, listing.models if listing is not None else ())
                pause_s, retry_s = channel.list_every_s, RETRY_S
            self._unasked.discard(channel.name)
            self._tell_asked()
            if not pause_s:
                return
            await asyncio.sleep(pause_s)

    def _learn(self, channel: Channel, models: tuple[str, ...]) -> None:
        names = allowed(channel, models)
        if names == self._listed.get(channel.name):
            return
        self._listed[channel.name] = names
        if names:
            log.info("channel %s: serves %d models that its upstream lists", channel.name, len(names))
        else:
            log.warning("channel %s: its upstream lists no model that list_only lets in", channel.name)
        self._changed()

    def _tell_asked(self) -> None:
        if self._unasked:
            self._asked.clear()
        else:
            self._asked.set()

    async def _keep_trying(self, channel: Channel) -> None:
        well = True
        while True:
            await asyncio.sleep(channel.test_every_s)
            state = self._state(channel.name)
            model = next(iter(chat_models(state.settings)), None) if state is not None else None
            if state is None or model is None:
                continue
            failed = [trial for trial in await try_keys(state, model) if not trial.ok]
            if well and failed:
                first = failed[0]
                log.warning("channel %s: does not answer: %s: %s", first.key, first.code, first.message)
            elif failed:
                log.debug("channel %s: still does not answer: %s", failed[0].key, failed[0].code)
            elif not well:
                log.info("channel %s: answers again", channel.name)
            well = not failed


def _same_list(before: Channel, now: Channel) -> bool:
    return now.models == AUTO and (before.kind, before.preset, before.base_url) == (
        now.kind,
        now.preset,
        now.base_url,
    )
