"""What is known of a channel's health: for each model its breaker and its speed, for each key its standing.

It outlives a reload that keeps the channel's name and address. Times are the event loop's, in seconds.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Literal, TypeAlias

from server.errors import (
    ImagesBusy,
    InsufficientQuota,
    InvalidRequest,
    NoChannel,
    Overloaded,
    RateLimited,
    RequestTooLarge,
    ServerError,
    UpstreamAuth,
    UpstreamError,
)
from server.errors import UpstreamTimeout as Slow
from server.routing.breaker import Breaker
from server.settings import Breaker as BreakerSettings

log = logging.getLogger("antiphon.router")

# A key that was refused, or whose account is empty, comes last for this long (seconds).
REFUSED_S = 60.0
# A model that a channel does not have, nor has a key of it, comes last there for this long (seconds).
MISSING_S = 60.0
# Nobody is taken at his word for longer, lest one absurd Retry-After switch a channel off for good. (seconds)
MAX_COOLING_S = 24 * 3600.0
# What a new time to the first token weighs in the average.
NEW = 0.3
# A time that was measured so long ago counts half: who is slow is tried again some day. (seconds)
HALF_LIFE_S = 60.0

Change: TypeAlias = Literal["open", "closed", "cooling", "refused"]


class NoRoom(RateLimited):
    """Too many wait for a channel, or one has waited in vain: the channel itself has said nothing."""


class LeftAlone(NoChannel):
    """The channel is no longer to be asked, since the request began to wait for it: nobody was asked."""


class KeyHealth:
    """One key of a channel: ``label`` names it in logs, without a letter of it.

    ``cooling`` and ``tired`` say for each model until when it is not asked, and until when others come first.
    """

    __slots__ = ("cooling", "label", "refused_until", "tired")

    def __init__(self, label: str) -> None:
        self.label = label
        self.refused_until = 0.0
        self.cooling: dict[str, float] = {}
        self.tired: dict[str, float] = {}

    def blocked_until(self, model: str) -> float:
        """Until then this key is not used for this model."""
        return self.cooling.get(model, 0.0)

    def avoided_until(self, model: str) -> float:
        """Until then others are used first."""
        return max(self.cooling.get(model, 0.0), self.tired.get(model, 0.0), self.refused_until)


class Health:
    """One channel's health for one model.

    ``blocked_until``: no call before; ``avoided_until``: others come first. Both are kept up to date, so that
    a choice among many channels is one comparison for each.
    """

    __slots__ = (
        "_channel",
        "_measured_at",
        "_speed_s",
        "avoided_until",
        "blocked_until",
        "breaker",
        "last_code",
        "model",
    )

    def __init__(self, channel: ChannelHealth, model: str) -> None:
        self._channel = channel
        self.model = model
        self.breaker = Breaker(channel.settings)
        self.blocked_until = 0.0
        self.avoided_until = 0.0
        self.last_code = ""  # of the last attempt that failed
        self._speed_s = 0.0
        self._measured_at = 0.0

    def begin(self, now: float) -> bool:
        """A call begins. Is it the breaker's probe?"""
        probe = self.breaker.begin(now)
        if probe:
            self.refresh()
        return probe

    def silent(self, now: float) -> bool:
        """Is it kept away by nothing but a probe that has been silent for long?"""
        return (
            self.breaker.silent(now)
            and min(key.blocked_until(self.model) for key in self._channel.keys) <= now
        )

    def measured(self, first_token_s: float, now: float) -> None:
        """Count one time to the first token into the moving average."""
        old = self._speed_s
        self._speed_s = first_token_s if not old else old + NEW * (first_token_s - old)
        self._measured_at = now

    def speed_s(self, now: float) -> float:
        """The time to the first token that is to be expected; it fades while nobody measures it."""
        age_s = now - self._measured_at
        return self._speed_s * 0.5 ** (age_s / HALF_LIFE_S) if self._speed_s else 0.0

    def answered(self) -> None:
        """The probe has said something."""
        log.info("channel %s: answers calls of %s again", self._channel.name, self.model)
        self.breaker.answered()
        self.refresh()

    def recovered(self, key: KeyHealth, now: float) -> None:
        """A call outside the usual choice was answered, wholly: nothing is held against the key any more."""
        held = key.avoided_until(self.model) or self.breaker.until
        key.refused_until = 0.0
        key.cooling.pop(self.model, None)
        key.tired.pop(self.model, None)
        if self.breaker.state != "closed":
            self.breaker.answered()
        self.breaker.succeeded(now)
        self._channel.refresh()
        if held:
            log.info("channel %s: answers calls of %s again", key.label, self.model)

    def failed(
        self,
        error: ServerError,
        key: KeyHealth,
        now: float,
        *,
        probe: bool,
        cooldown_s: float,
        run: str = "",
    ) -> Change | None:
        """Keep in mind what a failed attempt tells; what has changed is returned.

        ``cooldown_s``: so long a 429 that names no time lets others come first. ``run`` made the call.
        """
        change: Change | None = None
        self.last_code = error.code
        if isinstance(error, NoRoom | LeftAlone | ImagesBusy | InvalidRequest | RequestTooLarge):
            if probe:  # it was refused here: nobody was asked
                self.breaker.abandoned(now)
        elif isinstance(error, UpstreamAuth | InsufficientQuota):
            key.refused_until = now + REFUSED_S
            log.error("channel %s: %s", key.label, error.message)
            change = "refused"
            if probe:
                self.breaker.abandoned(now)
        elif is_fault(error):
            if self.breaker.failed(now, probe=probe, run=run):
                change = "open"
                log.warning(
                    "channel %s: no calls of %s for %.0f s, since the last %d failed; the cause now: %s",
                    self._channel.name,
                    self.model,
                    self.breaker.until - now,
                    self.breaker.failures,
                    error.code,
                )
        elif probe:
            self.breaker.answered()  # it judged the request, so it is there
            change = "closed"
        if isinstance(error, NoRoom | LeftAlone | ImagesBusy):
            pass  # it names our own time, not the channel's
        elif error.retry_after_s and not isinstance(error, InsufficientQuota):
            self._cool(error, key, now + min(error.retry_after_s, MAX_COOLING_S))
            change = change or "cooling"
        elif isinstance(error, RateLimited) or is_missing(error):
            key.tired[self.model] = now + (cooldown_s if isinstance(error, RateLimited) else MISSING_S)
            change = change or "cooling"
        self._channel.refresh()
        return change

    def abandoned(self, now: float) -> None:
        """The probe ended without telling anything."""
        self.breaker.abandoned(now)
        self.refresh()

    def refresh(self) -> None:
        """Bring both times up to date."""
        keys = self._channel.keys
        self.blocked_until = max(self.breaker.until, min(key.blocked_until(self.model) for key in keys))
        self.avoided_until = max(self.breaker.until, min(key.avoided_until(self.model) for key in keys))

    def _cool(self, error: ServerError, key: KeyHealth, until: float) -> None:
        """A 429 is about the key; whoever else asks for patience speaks for the whole channel."""
        keys = [key] if isinstance(error, RateLimited) else self._channel.keys
        for one in keys:
            one.cooling[self.model] = max(until, one.cooling.get(self.model, 0.0))


class ChannelHealth:
    """The health of one channel: of its ``keys``, in their order (one at least), and by model.

    ``adopt`` puts the settings of a reload into it.
    """

    def __init__(self, name: str, secrets: Sequence[str | None], settings: BreakerSettings) -> None:
        self.name = name
        self._models: dict[str, Health] = {}
        self._by_secret: dict[str | None, KeyHealth] = {}
        self.adopt(secrets, settings)

    def adopt(self, secrets: Sequence[str | None], settings: BreakerSettings) -> None:
        """Use these keys and these limits from now on; a key that stays keeps its standing."""
        self.settings = settings
        before, self._by_secret = self._by_secret, {}
        for at, secret in enumerate(secrets or (None,)):
            label = self.name if len(secrets) < 2 else f"{self.name}, key {at + 1}"
            kept = self._by_secret[secret] = before.get(secret) or KeyHealth(label)
            kept.label = label
        self.keys = list(self._by_secret.values())
        for health in self._models.values():
            health.breaker.settings = settings
        self.refresh()

    def of(self, model: str) -> Health:
        """The health for ``model``."""
        health = self._models.get(model)
        if health is None:
            health = self._models[model] = Health(self, model)
            health.refresh()
        return health

    @property
    def models(self) -> list[Health]:
        """The health for each model that was asked for yet."""
        return list(self._models.values())

    def refresh(self) -> None:
        """Bring every model's times up to date."""
        for health in self._models.values():
            health.refresh()


def is_fault(error: ServerError) -> bool:
    """Is it a fault of the upstream's, that says something about the calls to come?

    A total time that ran out is one only if the caller did not shorten it, which shows in ``retryable``.
    """
    return isinstance(error, UpstreamError | Overloaded | Slow) and not isinstance(error, UpstreamAuth)


def is_missing(error: ServerError) -> bool:
    """Does the channel not have the model, by its own word, so that another one may?"""
    return error.code == "model_not_found" and error.retryable


def is_about_key(error: ServerError) -> bool:
    """May another key of the same channel succeed where this one failed?"""
    about = isinstance(error, UpstreamAuth | RateLimited | InsufficientQuota)
    return about and not isinstance(error, NoRoom)
