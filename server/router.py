"""Model name → who answers: a model, which is served by channels, or a combination."""

from __future__ import annotations

import difflib
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeAlias

from server.answer_cache import AnswerCache
from server.auth import Principal
from server.cached_model import CachedModel, identity_of, scopes_of
from server.errors import InvalidRequest, ModelNotFound, NotAllowed
from server.hedged_model import HedgedModel
from server.openai_wire import ModelCard
from server.routed_model import RoutedModel
from server.routed_surface import RoutedSurface, SurfacesOnly, combination_asked, not_offered
from server.routing.channel import ChannelState, lent
from server.settings import Channel, ChannelModel, Settings
from server.settings import Combination as CombinationSettings
from server.shared_call import SharedCalls
from server.spark_ws import find_model, served_as, with_overrides
from server.surface_settings import SurfaceName
from server.surfaces import Surface, offers
from server.upstreams.base import Upstream

# A longer name than any model has is not searched for near ones: the search costs its length. (characters)
MAX_NAME = 200
# ``created`` of a model must be the same after each restart; we do not know better than a constant.
CREATED = 1_763_683_200


# A channel, and how it serves a model.
Served: TypeAlias = tuple[ChannelState, ChannelModel]


class ModelRouter:
    """All names that a client may put into ``model``. Immutable: a reload makes a new one.

    ``combine`` builds the upstream of a combination from its settings and a look-up of models by name.
    ``cache`` has the answers that the settings want kept, ``calls`` those that are shared; None: none are.
    """

    def __init__(
        self,
        settings: Settings,
        channels: Mapping[str, ChannelState],
        combine: Callable[[CombinationSettings, Callable[[str], Upstream]], Upstream],
        rng: random.Random | None = None,
        cache: AnswerCache | None = None,
        calls: SharedCalls | None = None,
    ) -> None:
        rng = self._rng = rng or random.Random()
        self._settings = settings
        self.channels = dict(channels)
        served: dict[str, list[Served]] = {}
        for channel in settings.channels:
            for name, model in _served(channel).items():
                served.setdefault(name, []).append((self.channels[channel.name], model))
        self._served = served
        self.models = {name: self._chats(name, states) for name, states in served.items()}
        self._surfaces: dict[tuple[str, SurfaceName], RoutedSurface] = {}  # filled as they are asked for
        lenders = {name: _lenders(states) for name, states in served.items()}
        self._lenders = {name: states for name, states in lenders.items() if states}
        after_s = {name: settings.routing.of(name).hedge_after_s for name in self.models}
        self._hedged = {
            name: HedgedModel(model, after_s[name]) for name, model in self.models.items() if after_s[name]
        }
        # Who is asked under a model's name: all that stands before its channels.
        self._askable: dict[str, Upstream] = {**self.models, **self._hedged}
        self.cached = cache is not None
        if cache is not None:
            self._askable = {name: self._cached(one, cache, calls) for name, one in self._askable.items()}
        self.combinations: dict[str, Upstream] = {}
        for one in settings.combinations:
            self.combinations[one.name] = combine(one, self.find)
        self._aliases = dict(settings.aliases) | {
            alias: one.name for one in settings.combinations for alias in one.aliases
        }
        # The names that callers with credentials of their own may ask for.
        self.lent = frozenset(name for name in self.names() if self._real(name) in self._lenders)

    def find(self, name: str) -> Upstream:
        """The model or combination of this name. Raises ``ModelNotFound`` with near names."""
        real = self._real(name)
        found = self.combinations.get(real) or self._askable.get(real)
        if found is not None:
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
                raise _not_found(name, [one for one in self.names() if self.may(principal, one)])
            name = default
        if not self.may(principal, name):
            raise NotAllowed(
                f"This key may not call {name}; GET /v1/models lists what it may.", param="model"
            )
        return self.find(name)

    def choose_surface(self, name: str, surface: Surface, principal: Principal) -> RoutedSurface:
        """Who answers a client's request to a surface beside chats.

        Raises as ``choose``, and ``SurfaceNotOffered`` where nobody would.
        """
        if not name and not surface.needs_model:
            name = self._first_with(surface.name, principal)
        real = self.choose(name, principal).name
        if real in self.combinations:
            raise combination_asked(real, surface.name)
        if (made := self._surfaces.get((real, surface.name))) is not None:
            return made
        states = [one for one in self._served[real] if offers(one[0].settings, one[1], surface.name)]
        if not states:
            raise not_offered(real, surface.name, [state.name for state, _ in self._served[real]])
        made = RoutedSurface(real, surface.name, states, self._rng, self._settings.routing.of(real))
        self._surfaces[real, surface.name] = made
        return made

    def lend(self, name: str, principal: Principal) -> Upstream:
        """Who answers a client's request that brings credentials of its own: for this request alone.

        Raises as ``choose``, and ``NotAllowed`` where the credentials would be of no use.
        """
        self.choose(name, principal)
        real = self._real(name)
        lenders = self._lenders.get(real)
        if lenders is None:
            raise NotAllowed(
                f"Your own Spark credentials are for Spark's models: {', '.join(sorted(self.lent))}. "
                "Name one of them, or leave the credentials out.",
                param="model",
            )
        states = [(lent(state), model) for state, model in lenders]
        return RoutedModel(real, states, self._rng, self._settings.routing.of(real))

    def knows(self, name: str) -> bool:
        """Is this a configured name?"""
        return name in self.models or name in self.combinations or name in self._aliases

    def channel_states(self, now: float) -> Iterator[tuple[str, str, str]]:
        """Channel, model, and ``ready`` or what is against asking it; ``now`` is the event loop's time."""
        for name, channel in self.channels.items():
            for model in channel.settings.served():
                yield name, model, channel.against(channel.health.of(model), now) or "ready"

    def names(self) -> list[str]:
        """Every public name in the order of the configuration, aliases last."""
        return list(dict.fromkeys((*self.combinations, *self.models, *self._aliases)))

    def cards(self, principal: Principal) -> list[ModelCard]:
        """What this key may call and somebody serves, in the order of the configuration."""
        return [self._card(name) for name in self.names() if self._listed(name, principal)]

    def card(self, name: str, principal: Principal) -> ModelCard:
        """One model; an alias answers under its own name. Raises ``ModelNotFound``."""
        if self._real(name) not in (*self.combinations, *self.models) or not self.may(principal, name):
            raise _not_found(name, [one.id for one in self.cards(principal)])
        return self._card(name)

    def _chats(self, name: str, states: list[Served]) -> RoutedModel:
        """Who answers the chats of a model."""
        routing = self._settings.routing.of(name)
        takers = [one for one in states if offers(one[0].settings, one[1], "chat")]
        if not takers:
            return SurfacesOnly(name, states, self._rng, routing)
        return RoutedModel(name, takers, self._rng, routing)

    def _cached(self, upstream: Upstream, cache: AnswerCache, calls: SharedCalls | None) -> Upstream:
        settings = self._settings
        served = [(state.settings, model) for state, model in self._served[upstream.name]]
        identity = identity_of(upstream.name, served, settings.images)
        scopes = scopes_of(settings.access.keys)
        return CachedModel(upstream, cache, settings.cache, identity, scopes, calls)

    def _first_with(self, surface: SurfaceName, principal: Principal) -> str:
        """The first model whose channel says that it offers ``surface``; "" if none does."""
        for name, states in self._served.items():
            if self.may(principal, name) and any(surface in _said(*one) for one in states):
                return name
        return ""

    def _real(self, name: str) -> str:
        seen: set[str] = set()
        while name in self._aliases and name not in seen:  # loops are refused at load
            seen.add(name)
            name = self._aliases[name]
        return name

    def may(self, principal: Principal, name: str) -> bool:
        """May ``name`` be called? An alias may by who may call it, or what it stands for."""
        return principal.may_call(name) or principal.may_call(self._real(name))

    def _listed(self, name: str, principal: Principal) -> bool:
        return self.may(principal, name) and self._works(self._real(name))

    def _works(self, name: str) -> bool:
        """Could somebody answer: a channel, or for a combination one of those that draft for it?"""
        model = self.models.get(name)
        if model is not None:
            return model.served
        settings = self._settings_of(name)
        if settings is None:
            return False  # a model that may be listed later
        asked = [one.model for one in (*settings.members, *settings.vision_members)]
        drafting = asked or [one for one in (settings.model, settings.vision_model) if one is not None]
        return any(self._works(self._real(one)) for one in drafting)  # nesting in a circle is refused at load

    def _settings_of(self, name: str) -> CombinationSettings | None:
        return next((one for one in self._settings.combinations if one.name == name), None)

    def _card(self, name: str) -> ModelCard:
        real = self._real(name)
        alias: dict[str, object] = {"alias_of": real} if real != name else {}
        model = self.models.get(real)
        if model is None:
            settings = self._settings_of(real)
            assert settings is not None  # it is a configured name
            extra = {
                "kind": "combination",
                "strategy": settings.strategy,
                "description": settings.description,
            }
            if settings.members:
                extra["members"] = [one.model for one in settings.members]  # type: ignore[assignment]
            return ModelCard(name, CREATED, "antiphon", alias | extra)
        states = [state for state, _ in model.channels]
        at_work = [state for state in states if state.able()] or states
        kinds = {state.settings.kind for state in at_work}
        known = {"context_length": model.context_length, "vision": model.vision}
        extra_fields: dict[str, object] = {"kind": "model"} | {
            k: v for k, v in known.items() if v is not None
        }
        if surfaces := list(dict.fromkeys(one for served in self._served[real] for one in _said(*served))):
            extra_fields["surfaces"] = surfaces
        if kinds == {"local"}:
            extra_fields["description"] = "demo model: fluent English, unreliable facts, poor Chinese"
            return ModelCard(name, CREATED, "antiphon-local", alias | extra_fields)
        return ModelCard(name, CREATED, at_work[0].name, alias | extra_fields)


def _said(state: ChannelState, model: ChannelModel) -> tuple[SurfaceName, ...]:
    """The surfaces that the configuration names for a channel's model."""
    said = state.settings.surfaces if model.surfaces is None else model.surfaces
    return said or ()


def _served(channel: Channel) -> dict[str, ChannelModel]:
    """What a channel serves; of the vendor's models we know more than the configuration may say."""
    served = channel.served()
    if channel.kind != "spark":
        return served
    models = with_overrides(channel.spark.models)
    return {name: served_as(one, find_model(one.model or name, None, models)) for name, one in served.items()}


def _lenders(states: list[Served]) -> list[Served]:
    """The channels that serve callers with credentials of their own."""
    return [
        (state, model)
        for state, model in states
        if state.settings.kind == "spark" and state.settings.spark.client_credentials
    ]


def _not_found(name: str, names: Iterable[str]) -> ModelNotFound:
    near = difflib.get_close_matches(name, list(names), n=3, cutoff=0.5) if len(name) <= MAX_NAME else []
    hint = f" Did you mean {', '.join(near)}?" if near else " GET /v1/models lists what there is."
    return ModelNotFound(f"There is no model {name[:MAX_NAME]!r}.{hint}", param="model")
