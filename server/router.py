"""Model name → who answers: the channels of a model, or a combination.

A model's channels are tried one after another, before the first delta only: strict priority, then weight.
A channel that asks for patience gets no traffic of that model until its time has come; one that refused our
credentials is asked only when no other is left.
"""

from __future__ import annotations

import asyncio
import difflib
import logging
import random
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from typing import Protocol

from server.auth import Principal
from server.chat import ChatRequest
from server.deltas import Batch, Delta, has_content
from server.errors import (
    InsufficientQuota,
    InvalidRequest,
    ModelNotFound,
    NoChannel,
    NotAllowed,
    Overloaded,
    RateLimited,
    ServerError,
    UpstreamAuth,
    UpstreamError,
)
from server.openai_wire import ModelCard
from server.settings import Channel, ChannelModel, Settings, Timeouts
from server.settings import Combination as CombinationSettings
from server.upstreams.base import Call, Upstream

log = logging.getLogger("antiphon.router")

ATTEMPTS = 3
BACKOFF_S = 0.25
MAX_BACKOFF_S = 8.0
# A channel whose credentials were refused, or whose account is empty, comes last for this long (seconds).
REFUSED_S = 60.0
# ``created`` of a model must be the same after each restart; we do not know better than a constant.
CREATED = 1_763_683_200


class ChannelUpstream(Upstream, Protocol):
    """An upstream that is a channel.

    ``unavailable`` says what to do when it cannot serve at all. ``aclose`` ends what it keeps open beyond
    its calls, and is called by whoever built it.
    """

    @property
    def unavailable(self) -> str | None: ...

    async def aclose(self) -> None: ...


class ChannelState:
    """One channel as the router sees it: its limits, and whether it is to be left alone for now.

    ``count`` is told of each attempt's outcome: the channel's name, and ``ok`` or an error's code.
    """

    def __init__(
        self,
        settings: Channel,
        upstream: ChannelUpstream,
        count: Callable[[str, str], None] = lambda channel, outcome: None,
    ) -> None:
        self.settings = settings
        self.upstream = upstream
        self.count = count
        self.timeouts = settings.timeouts.over(Timeouts())
        self.refused_until = 0.0  # event loop time; until then others are asked first
        # The embedded model computes as many answers at a time as it has slots; the others wait here.
        limit = settings.max_concurrency or (settings.slots if settings.kind == "local" else 0)
        self._slots = asyncio.Semaphore(limit) if limit else None
        self._waiting = 0
        self._in_use = 0
        self.idle = asyncio.Event()  # no call is under way
        self.idle.set()

    @property
    def name(self) -> str:
        """The channel's name."""
        return self.settings.name

    async def take(self, call: Call) -> None:
        """Begin a call, in one of the channel's slots if they are limited; ``give`` ends it.

        Raises ``Overloaded`` at once when too many wait already, or when the call's deadline comes first.
        """
        if self._slots is not None:
            await self._wait_for_slot(self._slots, call)
        self._in_use += 1
        self.idle.clear()

    def give(self) -> None:
        """End a call that ``take`` began."""
        if self._slots is not None:
            self._slots.release()
        self._in_use -= 1
        if not self._in_use:
            self.idle.set()

    async def _wait_for_slot(self, slots: asyncio.Semaphore, call: Call) -> None:
        if slots.locked():
            if self._waiting >= self.settings.max_waiting:
                raise Overloaded("Too many requests wait for this channel; try again later.", retry_after_s=1)
            if call.observer is not None:
                call.observer.queued(self.name)
        self._waiting += 1
        try:
            async with asyncio.timeout_at(call.deadline):
                await slots.acquire()
        except TimeoutError:
            raise Overloaded("No slot of the channel became free in time; try again later.") from None
        finally:
            self._waiting -= 1


class RoutedModel:
    """One public model over its channels; an ``Upstream``."""

    def __init__(
        self, name: str, channels: Sequence[tuple[ChannelState, ChannelModel]], rng: random.Random
    ) -> None:
        self.name = name
        self.channels = list(channels)
        self._rng = rng
        self._cooling: dict[str, float] = {}  # channel → event loop time before which it is not asked
        self._fit = [
            state for state, _ in self.channels if state.settings.enabled and state.settings.weight > 0
        ]

    @property
    def vision(self) -> bool | None:
        """Can it see? None where no channel says."""
        said = [model.vision for _, model in self.channels]
        return True if True in said else (False if said and None not in said else None)

    @property
    def context_length(self) -> int | None:
        """Tokens of context that every channel offers, if they say so."""
        lengths = [model.context_length for _, model in self.channels if model.context_length]
        return min(lengths) if lengths else None

    async def stream(self, chat: ChatRequest, call: Call) -> AsyncGenerator[Batch, None]:
        """Yield the answer of the first channel that gives one; see ``upstreams.base.Upstream``."""
        if chat.model != self.name:  # an alias, or the default for an unknown name
            chat = chat.with_values(model=self.name)
        loop = asyncio.get_running_loop()
        tried: list[ChannelState] = []
        errors: list[ServerError] = []
        spoken = False
        while True:
            state = self._pick(tried, loop.time())
            if call.deadline is None and state.timeouts.total_s:
                call.deadline = loop.time() + (call.timeouts or state.timeouts).total_s
            tried.append(state)
            call.channel, call.attempts_made = state.name, len(tried)
            try:
                await state.take(call)
                try:
                    if call.observer is not None:
                        call.observer.attempt(len(tried), state.name)
                    held: list[Delta] = []
                    async with aclosing(state.upstream.stream(chat, call)) as deltas:
                        async for batch in deltas:
                            if spoken:
                                yield batch
                                continue
                            # A lone role is no first delta: kept, so that failover stays possible.
                            held += batch
                            if spoken := has_content(held):
                                yield held
                finally:
                    state.give()
                state.count(state.name, "ok")
                return
            except ServerError as error:
                state.count(state.name, error.code)
                if spoken:
                    raise
                errors.append(error)
                await self._before_next(state, tried, errors, call)

    def _pick(self, tried: list[ChannelState], now: float) -> ChannelState:
        """The channel to ask: of the highest priority that is left, one by weight. Never one that cools."""
        able = [state for state in self._fit if state.upstream.unavailable is None]
        if not able:
            reason = next((state.upstream.unavailable for state in self._fit), None)
            raise NoChannel(reason or f"No channel serves {self.name} now; ask the operator.")
        ready = [state for state in able if self._cooling.get(state.name, 0.0) <= now]
        if not ready:
            wait_s = min(self._cooling[state.name] for state in able) - now
            raise NoChannel(f"Every channel of {self.name} is cooling down.", retry_after_s=wait_s)
        if len(ready) == 1:
            return ready[0]
        fresh = [state for state in ready if state not in tried] or ready
        fresh = [state for state in fresh if state.refused_until <= now] or fresh
        top = max(state.settings.priority for state in fresh)
        best = [state for state in fresh if state.settings.priority == top]
        return self._rng.choices(best, [state.settings.weight for state in best])[0]

    async def _before_next(
        self, state: ChannelState, tried: list[ChannelState], errors: list[ServerError], call: Call
    ) -> None:
        """Wait as long as is due before the next attempt, or raise if there is to be none."""
        error, now = errors[-1], asyncio.get_running_loop().time()
        if isinstance(error, UpstreamAuth | InsufficientQuota):
            state.refused_until = now + REFUSED_S
            log.error("channel %s: %s", state.name, error.message)
        elif error.retry_after_s:
            self._cooling[state.name] = now + error.retry_after_s
        if not error.retryable or len(tried) >= (call.attempts or ATTEMPTS):
            raise _meaningful(errors, spent=len(tried) > 1)
        others = [
            one
            for one in self._fit
            if one not in tried
            and one.upstream.unavailable is None
            and self._cooling.get(one.name, 0.0) <= now
        ]
        delay_s = 0.0
        if not others:
            # A lone channel is asked once more, not for ever.
            if isinstance(error, UpstreamAuth | InsufficientQuota) or tried.count(state) > 1:
                raise _meaningful(errors, spent=len(tried) > 1)
            longest = min(MAX_BACKOFF_S, BACKOFF_S * 2 ** (len(tried) - 1))
            delay_s = max(self._rng.uniform(0, longest), self._cooling.get(state.name, now) - now)
        if call.deadline is not None and now + delay_s + state.timeouts.connect_s > call.deadline:
            raise _meaningful(errors, spent=len(tried) > 1)
        if not others and error.retry_after_s and error.retry_after_s > MAX_BACKOFF_S:
            raise _meaningful(errors, spent=len(tried) > 1)  # the client hears for how long
        if call.observer is not None:
            call.observer.retrying(
                error, delay_s=delay_s, next_attempt=len(tried) + 1, same_channel=not others
            )
        if delay_s:
            await asyncio.sleep(delay_s)


def _meaningful(errors: list[ServerError], *, spent: bool) -> ServerError:
    """The cause worth telling: one that names a time first, then one that an upstream said, then the last."""
    said = [error for error in errors if error.retry_after_s] or [
        error for error in errors if isinstance(error, RateLimited) or error.upstream_status
    ]
    error = (said or errors)[-1]
    if not errors[-1].retryable:
        error = errors[-1]
    if spent and isinstance(error, UpstreamError):
        error.should_retry = False  # our own attempts were really spent: the SDK's would multiply them
    return error


class ModelRouter:
    """All names that a client may put into ``model``. Immutable: a reload makes a new one.

    ``combine`` builds the upstream of a combination from its settings and a look-up of models by name.
    """

    def __init__(
        self,
        settings: Settings,
        channels: Mapping[str, ChannelState],
        combine: Callable[[CombinationSettings, Callable[[str], Upstream]], Upstream],
        rng: random.Random | None = None,
    ) -> None:
        rng = rng or random.Random()
        self._settings = settings
        self.channels = dict(channels)
        served: dict[str, list[tuple[ChannelState, ChannelModel]]] = {}
        for channel in settings.channels:
            for name, model in channel.served().items():
                served.setdefault(name, []).append((self.channels[channel.name], model))
        self.models = {name: RoutedModel(name, states, rng) for name, states in served.items()}
        self.combinations: dict[str, Upstream] = {}
        for one in settings.combinations:
            self.combinations[one.name] = combine(one, self.find)
        self._aliases = dict(settings.aliases) | {
            alias: one.name for one in settings.combinations for alias in one.aliases
        }

    def find(self, name: str) -> Upstream:
        """The model or combination of this name. Raises ``ModelNotFound`` with near names."""
        real = self._real(name)
        if (found := self.combinations.get(real) or self.models.get(real)) is not None:
            return found
        raise _not_found(name, self.names())

    def choose(self, name: str, principal: Principal) -> Upstream:
        """Who answers a client's request for ``name``.

        Raises ``ModelNotFound``, ``NotAllowed``, or ``InvalidRequest`` where no name was given.
        """
        real = self._real(name)
        if real not in self.combinations and real not in self.models:
            default = self._settings.default_combination
            if self._settings.unknown_model != "default" or default is None:
                if not name:
                    raise InvalidRequest(
                        "model is missing. Name a model; GET /v1/models lists them.",
                        param="model",
                        code="missing_required_parameter",
                    )
                raise _not_found(name, [one for one in self.names() if principal.may_call(one)])
            name = real = default
        if not (principal.may_call(name) or principal.may_call(real)):
            raise NotAllowed(
                f"This key may not call {name}; GET /v1/models lists what it may.", param="model"
            )
        return self.find(real)

    def knows(self, name: str) -> bool:
        """Is this a configured name?"""
        return name in self.models or name in self.combinations or name in self._aliases

    def names(self) -> list[str]:
        """Every public name in the order of the configuration, aliases last."""
        return [*self.combinations, *self.models, *self._aliases]

    def cards(self, principal: Principal) -> list[ModelCard]:
        """What this key may call and somebody serves, in the order of the configuration."""
        return [self._card(name) for name in self.names() if self._listed(name, principal)]

    def card(self, name: str, principal: Principal) -> ModelCard:
        """One model; an alias answers under its own name. Raises ``ModelNotFound``."""
        if self._real(name) not in (*self.combinations, *self.models) or not principal.may_call(name):
            raise _not_found(name, [one.id for one in self.cards(principal)])
        return self._card(name)

    def _real(self, name: str) -> str:
        seen: set[str] = set()
        while name in self._aliases and name not in seen:  # loops are refused at load
            seen.add(name)
            name = self._aliases[name]
        return name

    def _listed(self, name: str, principal: Principal) -> bool:
        if not principal.may_call(name):
            return False
        model = self.models.get(self._real(name))
        return model is None or any(
            state.settings.enabled and state.upstream.unavailable is None for state, _ in model.channels
        )

    def _card(self, name: str) -> ModelCard:
        real = self._real(name)
        alias: dict[str, object] = {"alias_of": real} if real != name else {}
        model = self.models.get(real)
        if model is None:
            settings = next(one for one in self._settings.combinations if one.name == real)
            extra = {
                "kind": "combination",
                "strategy": settings.strategy,
                "description": settings.description,
            }
            if settings.members:
                extra["members"] = [one.model for one in settings.members]  # type: ignore[assignment]
            return ModelCard(name, CREATED, "antiphon", alias | extra)
        kinds = {state.settings.kind for state, _ in model.channels}
        known = {"context_length": model.context_length, "vision": model.vision}
        extra_fields: dict[str, object] = {"kind": "model"} | {
            k: v for k, v in known.items() if v is not None
        }
        if kinds == {"local"}:
            extra_fields["description"] = "demo model: fluent English, unreliable facts, poor Chinese"
            return ModelCard(name, CREATED, "antiphon-local", alias | extra_fields)
        return ModelCard(name, CREATED, model.channels[0][0].name, alias | extra_fields)


def _not_found(name: str, names: Iterable[str]) -> ModelNotFound:
    near = difflib.get_close_matches(name, list(names), n=3, cutoff=0.5)
    hint = f" Did you mean {', '.join(near)}?" if near else " GET /v1/models lists what there is."
    return ModelNotFound(f"There is no model {name[:200]!r}.{hint}", param="model")
