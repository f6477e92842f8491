"""A user's settings, with simulators in place of the vendors."""

from __future__ import annotations

from server.doctor.aiming import SHORTEST, aimed, targets
from server.settings import Access, AccessKey, Channel, Settings, TimeoutsPatch

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
    made = aimed(settings, [channel], [URL])
    assert made.channels[0].base_url == URL
    assert made.channels[0].secrets() == ("doctor",)
    assert (made.channels[0].headers, made.channels[0].proxy, made.access.keys) == ({}, None, ())


def test_time_outs_are_shortened_but_one_that_is_off_stays_off() -> None:
    channel = _channel("a", timeouts=TimeoutsPatch(idle_s=0, connect_s=0.1))
    made = aimed(Settings(channels=(channel,)), [channel], [URL]).channels[0].timeouts
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
