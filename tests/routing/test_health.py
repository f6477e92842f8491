"""What a channel's health keeps in mind, on a clock of its own."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from server.errors import (
    ContentFiltered,
    InsufficientQuota,
    InvalidRequest,
    Overloaded,
    RateLimited,
    RequestTooLarge,
    ServerError,
    UpstreamAuth,
    UpstreamCut,
    UpstreamEmpty,
    UpstreamError,
    UpstreamInvalid,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from server.routing.health import (
    MAX_COOLING_S,
    MISSING_S,
    REFUSED_S,
    ChannelHealth,
    Health,
    LeftAlone,
    NoRoom,
)
from server.settings import Breaker

ONE_IS_ENOUGH = Breaker(failures=1)


def health(*secrets: str, breaker: Breaker = ONE_IS_ENOUGH) -> ChannelHealth:
    return ChannelHealth("a", secrets or (None,), breaker)


def fail(
    one: Health, error: ServerError, channel: ChannelHealth, now: float = 100.0, **how: Any
) -> str | None:
    key = channel.keys[how.pop("key", 0)]
    return one.failed(error, key, now, **({"probe": False, "cooldown_s": 10} | how))


@pytest.mark.parametrize(
    "error",
    [
        UpstreamUnreachable("down"),
        UpstreamCut("cut"),
        UpstreamEmpty("empty"),
        UpstreamInvalid("nonsense"),
        UpstreamError("broken", upstream_status=500),
        Overloaded("busy", upstream_status=503),
        UpstreamTimeout("connect", 5),
        UpstreamTimeout("first_token", 5),
        UpstreamTimeout("idle", 5),
        UpstreamTimeout("total", 5),
    ],
    ids=lambda error: error.code,
)
def test_a_fault_of_the_upstream_counts_for_the_breaker(error: ServerError) -> None:
    channel = health()
    one = channel.of("m")
    assert fail(one, error, channel) == "open"
    assert (one.blocked_until, one.avoided_until) == (110, 110)


@pytest.mark.parametrize(
    "error",
    [
        UpstreamRefused("bad"),
        ContentFiltered("no"),
        NoRoom("full", retry_after_s=5),
        LeftAlone("full"),
        RateLimited("slower"),
        UpstreamAuth("no"),
        InsufficientQuota("empty"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_is_no_fault_of_the_upstream_opens_nothing(error: ServerError) -> None:
    channel = health()
    one = channel.of("m")
    fail(one, error, channel)
    assert (one.breaker.state, one.blocked_until) == ("closed", 0)


def test_other_models_of_a_failing_channel_are_asked_as_before() -> None:
    channel = health()
    fail(channel.of("m"), UpstreamUnreachable("down"), channel)
    assert channel.of("other").avoided_until == 0


@pytest.mark.parametrize("error", [RateLimited("x", retry_after_s=30), Overloaded("x", retry_after_s=30)])
def test_a_time_that_was_named_is_kept(error: ServerError) -> None:
    channel = health(breaker=Breaker())
    one = channel.of("m")
    assert fail(one, error, channel) == "cooling"
    assert (one.blocked_until, one.avoided_until) == (130, 130)


def test_a_shorter_time_does_not_shorten_a_longer_one() -> None:
    channel = health()
    one = channel.of("m")
    fail(one, RateLimited("slower", retry_after_s=60), channel)
    fail(one, RateLimited("slower", retry_after_s=1), channel)
    assert one.blocked_until == 160


def test_nobody_is_taken_at_his_word_for_years() -> None:
    channel = health()
    one = channel.of("m")
    fail(one, RateLimited("slower", retry_after_s=1e9), channel)
    assert one.blocked_until == 100 + MAX_COOLING_S


def test_an_account_that_is_empty_is_set_aside_whatever_time_it_names() -> None:
    channel = health("k1", "k2")
    one = channel.of("m")
    assert fail(one, InsufficientQuota("empty", retry_after_s=3600), channel) == "refused"
    assert channel.keys[0].blocked_until("m") == 0
    assert channel.keys[0].avoided_until("m") == 100 + REFUSED_S


def test_a_429_without_a_time_lets_others_come_first_for_a_while() -> None:
    channel = health()
    one = channel.of("m")
    assert fail(one, RateLimited("slower"), channel, cooldown_s=7) == "cooling"
    assert (one.blocked_until, one.avoided_until) == (0, 107)


def missing() -> ServerError:
    error = UpstreamRefused("no such model", status=404, code="model_not_found")
    error.retryable = True
    return error


def test_a_model_that_is_missing_lets_others_come_first_for_a_minute() -> None:
    channel = health()
    one, other = channel.of("m"), channel.of("other")
    assert fail(one, missing(), channel) == "cooling"
    assert (one.breaker.state, one.blocked_until, one.avoided_until) == ("closed", 0, 100 + MISSING_S)
    assert other.avoided_until == 0


def test_a_404_that_is_told_to_the_client_at_once_holds_nothing_against_the_channel() -> None:
    channel = health()
    one = channel.of("m")
    assert fail(one, UpstreamRefused("no", status=404, code="model_not_found"), channel) is None
    assert one.avoided_until == 0


def test_a_refused_key_is_refused_for_every_model() -> None:
    channel = health()
    other = channel.of("other")
    assert fail(channel.of("m"), UpstreamAuth("no"), channel) == "refused"
    assert (other.blocked_until, other.avoided_until) == (0, 100 + REFUSED_S)


# ── several keys ──


def test_while_one_key_is_good_the_channel_is() -> None:
    channel = health("k1", "k2")
    one = channel.of("m")
    fail(one, RateLimited("slower", retry_after_s=30), channel, key=0)
    assert (one.blocked_until, one.avoided_until) == (0, 0)
    fail(one, UpstreamAuth("no"), channel, key=1)
    assert (one.blocked_until, one.avoided_until) == (0, 130)
    fail(one, RateLimited("slower", retry_after_s=50), channel, key=1)
    assert (one.blocked_until, one.avoided_until) == (130, 130)


def test_a_503_with_a_time_speaks_for_every_key() -> None:
    channel = health("k1", "k2", breaker=Breaker())
    one = channel.of("m")
    fail(one, Overloaded("busy", retry_after_s=30), channel)
    assert one.blocked_until == 130


def test_a_log_names_a_key_by_its_place_alone(caplog: pytest.LogCaptureFixture) -> None:
    channel = health("sk-very-secret", "sk-other")
    fail(channel.of("m"), UpstreamAuth("no"), channel, key=1)
    assert caplog.messages == ["channel a, key 2: no"]
    assert "sk-" not in caplog.text


def test_a_reload_keeps_the_standing_of_the_keys_that_stay() -> None:
    channel = health("k1", "k2")
    one = channel.of("m")
    for key in (0, 1):
        fail(one, UpstreamAuth("no"), channel, key=key)
    assert one.avoided_until == 160
    channel.adopt(("k2", "new"), Breaker(failures=9))
    assert [key.refused_until for key in channel.keys] == [160, 0]
    assert (one.avoided_until, one.breaker.settings.failures) == (0, 9)


# ── probes ──


def opened() -> tuple[ChannelHealth, Health]:
    channel = health()
    one = channel.of("m")
    fail(one, UpstreamUnreachable("down"), channel)
    assert one.begin(101)
    assert one.blocked_until == math.inf
    return channel, one


def test_a_probe_that_is_refused_as_a_request_has_shown_that_the_channel_is_there() -> None:
    channel, one = opened()
    assert fail(one, UpstreamRefused("bad"), channel, 111.0, probe=True) == "closed"
    assert one.blocked_until == 0


@pytest.mark.parametrize(
    "error",
    [
        UpstreamAuth("no"),
        NoRoom("full"),
        LeftAlone("full"),
        InvalidRequest("no image"),  # refused before the dial
        RequestTooLarge("long"),
    ],
)
def test_a_probe_that_tells_nothing_of_the_server_leaves_its_turn_to_another(
    error: ServerError,
) -> None:
    channel, one = opened()
    fail(one, error, channel, 111.0, probe=True)
    assert one.blocked_until == 111
    assert one.breaker.state == "half_open"


def test_a_probe_that_fails_opens_it_for_longer() -> None:
    channel, one = opened()
    assert fail(one, UpstreamUnreachable("down"), channel, 111.0, probe=True) == "open"
    assert one.blocked_until == 131


ERRORS = st.sampled_from(
    [
        lambda: UpstreamUnreachable("down"),
        lambda: RateLimited("slower"),
        lambda: RateLimited("slower", retry_after_s=20),
        lambda: Overloaded("busy", retry_after_s=5),
        lambda: UpstreamAuth("no"),
        lambda: InsufficientQuota("empty"),
        lambda: UpstreamRefused("bad"),
        lambda: NoRoom("full", retry_after_s=3),
        lambda: UpstreamTimeout("first_token", 5),
    ]
)


class Life(RuleBasedStateMachine):
    """Outcomes of calls to two models with two keys, in any order: the cached times always say the truth."""

    @initialize()
    def begin(self) -> None:
        self.now = 0.0
        self.channel = health("k1", "k2", breaker=Breaker(failures=2, open_s=10, max_open_s=40))
        self.probes: set[str] = set()

    @rule(seconds=st.floats(0, 100))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(model=st.sampled_from(["m", "n"]), key=st.integers(0, 1), make=ERRORS)
    def call_fails(self, model: str, key: int, make: Any) -> None:
        one = self.channel.of(model)
        if one.blocked_until <= self.now:
            probe = one.begin(self.now)
            fail(one, make(), self.channel, self.now, key=key, probe=probe)

    @rule(model=st.sampled_from(["m", "n"]))
    def call_succeeds(self, model: str) -> None:
        one = self.channel.of(model)
        if one.blocked_until <= self.now:
            if one.begin(self.now):
                one.answered()
            one.breaker.succeeded(self.now)

    @rule(model=st.sampled_from(["m", "n"]))
    def client_leaves(self, model: str) -> None:
        one = self.channel.of(model)
        if one.blocked_until <= self.now and one.begin(self.now):
            one.abandoned(self.now)

    @rule(secrets=st.sampled_from([("k1",), ("k1", "k2"), ("k2", "k3")]))
    def reload(self, secrets: tuple[str, ...]) -> None:
        self.channel.adopt(secrets, self.channel.settings)
        if len(secrets) == 1:
            self.channel.adopt((*secrets, "k9"), self.channel.settings)

    @invariant()
    def the_cached_times_are_those_of_breaker_and_keys(self) -> None:
        for one in self.channel.models:
            keys = self.channel.keys
            blocked = min(key.blocked_until(one.model) for key in keys)
            avoided = min(key.avoided_until(one.model) for key in keys)
            assert one.blocked_until == max(one.breaker.until, blocked)
            assert one.avoided_until == max(one.breaker.until, avoided)
            assert one.avoided_until >= one.blocked_until

    @invariant()
    def nothing_lasts_for_ever(self) -> None:
        for one in self.channel.models:
            assert one.avoided_until <= self.now + REFUSED_S


TestLife = Life.TestCase
TestLife.settings = hypothesis_settings(max_examples=60, stateful_step_count=40, deadline=None)
