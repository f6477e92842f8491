"""A user's settings, with simulators in place of the vendors."""

from __future__ import annotations

from server.doctor.aiming import SHORTEST, aimed, clocks, targets
from server.doctor.faults import SECRET as DOCTORS
from server.settings import Access, AccessKey, Channel, Settings, TimeoutsPatch, Tls

SECRET = "sk-of-the-user-0123456789"
URL = "http://127.0.0.1:9/v1"


def _channel(name: str, **more: object) -> Channel:
    fields = {"base_url": "https://api.example.com/v1", "models": ("m",), **more}
    return Channel(name=name, kind="openai", **fields)  # type: ignore[arg-type]


def test_no_secret_and_no_address_of_the_user_is_kept() -> None:
    channel = _channel(
        "a", api_key=SECRET, api_keys=(SECRET,), headers={"x-key": SECRET}, proxy=f"http://u:{SECRET}@p"
    )
    settings = Settings(channels=(channel,), access=Access(keys=(AccessKey(name="me", key=SECRET),)))
    made = aimed(settings, [channel], [URL], "ca.pem")
    assert made.channels[0].base_url == URL
    assert made.channels[0].secrets() == (f"{DOCTORS}-0",)
    assert (made.channels[0].headers, made.channels[0].proxy, made.access.keys) == ({}, None, ())


def test_time_outs_are_shortened_but_one_that_is_off_stays_off() -> None:
    channel = _channel("a", timeouts=TimeoutsPatch(idle_s=0, connect_s=0.1))
    made = aimed(Settings(channels=(channel,)), [channel], [URL], "ca.pem").channels[0].timeouts
    assert (made.idle_s, made.connect_s, made.first_token_s) == (0, 0.1, SHORTEST.first_token_s)


def test_one_model_is_asked_for_each_set_of_channels_that_take_calls() -> None:
    settings = Settings(
        channels=(
            _channel("low", models=("m", "n")),
            _channel("high", models=("m", "n"), priority=5),
            _channel("off", enabled=False, models=("o",)),
            Channel(name="local", kind="local", models=("p",)),
        )
    )
    assert [(model, [one.name for one in channels]) for model, channels in targets(settings)] == [
        ("m", ["high", "low"])
    ]


def test_a_pool_of_keys_stays_a_pool_of_as_many() -> None:
    channel = _channel("a", api_keys=(SECRET, f"{SECRET}-2", f"{SECRET}-3"))
    keys = aimed(Settings(channels=(channel,)), [channel], [URL], "ca.pem").channels[0].secrets()
    assert len(set(keys)) == 3
    assert all(str(key).startswith(DOCTORS) for key in keys)


def test_whether_certificates_are_checked_is_kept() -> None:
    channel = _channel("a", tls=Tls(verify=False, ca_file="own.pem"))
    made = aimed(Settings(channels=(channel,)), [channel], [URL], "ca.pem").channels[0].tls
    assert made == Tls(verify=False, ca_file="ca.pem")


def test_the_longest_clock_counts_and_one_that_is_off_is_for_ever() -> None:
    assert (
        clocks([_channel("a"), _channel("b", timeouts=TimeoutsPatch(idle_s=0.1))]).idle_s == SHORTEST.idle_s
    )
    assert clocks([_channel("a"), _channel("b", timeouts=TimeoutsPatch(idle_s=0))]).idle_s == 0


def test_a_channel_that_serves_what_is_listed_has_one_model_to_ask() -> None:
    channel = _channel("a", models="auto")
    [(model, channels)] = targets(Settings(channels=(channel,)))
    assert aimed(Settings(), channels, [URL], "ca.pem").channels[0].models == (model,)
