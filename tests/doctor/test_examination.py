"""Faults done to the served application, and what is said of its client's view."""

from __future__ import annotations

from typing import Any

import pytest

from server.doctor.catalogue import catalogue
from server.doctor.examination import Finding, cases, examine
from server.settings import Breaker, Channel, ChannelModel, Routing, Settings, TimeoutsPatch, Tls


def _settings(*channels: Channel, **routing: object) -> Settings:
    return Settings(channels=channels, routing=Routing(**routing))  # type: ignore[arg-type]


def _channel(name: str, **more: object) -> Channel:
    return Channel(name=name, kind="openai", base_url="http://127.0.0.1:9/v1", models=("m",), **more)  # type: ignore[arg-type]


async def _examined(settings: Settings, *names: str) -> list[Finding]:
    planned = cases(settings, [fault for fault in catalogue() if fault.name in names])
    heard: list[Finding] = []
    found = await examine(settings, planned, heard.append)
    assert len(heard) == len(found) == len(planned) > 0
    return found


async def test_a_sound_configuration_passes_and_its_calls_are_counted() -> None:
    found = await _examined(_settings(_channel("a"), _channel("b")), "status-500", "cut-after-content")
    assert [one.wrong for one in found] == [""] * 5
    assert [(one.fault, one.stream, one.rescued, one.calls) for one in found] == [
        ("status-500", True, False, 3),
        ("status-500", True, True, 2),
        ("status-500", False, False, 3),
        ("status-500", False, True, 2),
        ("cut-after-content", True, False, 1),
    ]


async def test_failover_that_is_switched_off_is_found() -> None:
    found = await _examined(_settings(_channel("a"), _channel("b"), attempts=1), "status-500")
    assert ["another channel was well" in one.wrong for one in found] == [False, True] * 2


async def test_a_time_out_that_is_switched_off_is_found() -> None:
    sick = _channel("a", timeouts=TimeoutsPatch(idle_s=0, total_s=0))
    (found,) = await _examined(_settings(sick), "stall-after-content")
    assert "idle_s is switched off" in found.wrong


async def test_a_certificate_that_nobody_checks_is_found() -> None:
    found = await _examined(_settings(_channel("a", tls=Tls(verify=False))), "tls-expired", "tls-good")
    assert ["tls.verify" in one.wrong for one in found] == [False, False, True, True]


async def test_a_breaker_that_never_opens_is_found() -> None:
    off = Breaker(failures=0, rate=0)
    found = await _examined(_settings(_channel("a", breaker=off)), "dead-for-long")
    assert [one.wrong != "" for one in found] == [True, True]


@pytest.mark.parametrize("kind", ["azure", "anthropic", "gemini", "ollama", "spark"])
async def test_siblings_of_other_kinds_rescue_each_other(kind: Any) -> None:
    more = {"app_id": "a", "api_secret": "b"} if kind == "spark" else {}
    models = {"m": ChannelModel(model="spark-max")} if kind == "spark" else ("m",)
    native = Channel(name="n", kind=kind, models=models, api_key="k", **more)  # type: ignore[arg-type]
    found = await _examined(_settings(native, _channel("b", priority=-1)), "no-fault", "connection-refused")
    assert [(one.fault, one.wrong) for one in found if one.wrong] == []
    assert any(one.rescued for one in found)
    rescued = await _examined(_settings(_channel("b", priority=1), native), "status-500")
    assert [one.wrong for one in rescued] == [""] * 4


async def test_a_failure_is_looked_at_twice_and_told_once() -> None:
    found = await _examined(_settings(_channel("a"), _channel("b"), attempts=1), "status-429")
    assert [one.looks for one in found] == [1, 2, 1, 2]
