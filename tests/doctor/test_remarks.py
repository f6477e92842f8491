"""What is said of a configuration beside the scorecard."""

from __future__ import annotations

from server.doctor.remarks import remarks
from server.settings import Breaker, Channel, Routing, Settings, TimeoutsPatch, Tls


def _channel(name: str, **more: object) -> Channel:
    return Channel(name=name, kind="openai", models=("m",), **more)  # type: ignore[arg-type]


def test_of_two_sound_channels_there_is_nothing_to_say() -> None:
    assert remarks(Settings(channels=(_channel("a"), _channel("b")))) == []


def test_what_a_configuration_switches_off_is_said() -> None:
    first = _channel(
        "a", timeouts=TimeoutsPatch(idle_s=0), breaker=Breaker(failures=0, rate=0), tls=Tls(verify=False)
    )
    said = "\n".join(remarks(Settings(channels=(first, _channel("b")), routing=Routing(attempts=1))))
    for words in ("attempts 1", "idle_s is switched off", "breaker never opens", "tls.verify"):
        assert words in said


def test_what_no_fault_can_be_done_to_is_said() -> None:
    here = Channel(name="here", kind="local", models=("l",))
    channels = (_channel("a"), _channel("b"), _channel("c", enabled=False), _channel("d", weight=0), here)
    (said,) = remarks(Settings(channels=channels))
    assert said == (
        "not examined: here (embedded, with no upstream of its own); c (disabled); d (of weight 0)."
    )


def test_a_model_that_has_one_channel_is_said_and_one_that_is_disabled_is_not() -> None:
    off = _channel("b", enabled=False, timeouts=TimeoutsPatch(idle_s=0))
    assert remarks(Settings(channels=(_channel("a"), off))) == [
        "not examined: b (disabled).",
        "m has one channel, a: nobody can answer in its place.",
    ]
