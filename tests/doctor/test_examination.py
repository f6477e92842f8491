"""Faults done to the served application, and what is said of its client's view."""

from __future__ import annotations

from typing import Any

import pytest

from server.doctor.catalogue import catalogue
from server.doctor.examination import Finding, cases, examine, what_was_seen
from server.settings import Channel, Routing, Settings, TimeoutsPatch


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
    assert [one.wrong for one in found] == ["", "", ""]
    assert [(one.fault, one.rescued, one.calls) for one in found] == [
        ("status-500", False, 3),
        ("status-500", True, 2),
        ("cut-after-content", False, 1),
    ]


async def test_failover_that_is_switched_off_is_found() -> None:
    found = await _examined(_settings(_channel("a"), _channel("b"), attempts=1), "status-500")
    assert ["another channel was well" in one.wrong for one in found] == [False, True]


async def test_a_time_out_that_is_switched_off_is_found() -> None:
    sick = _channel("a", timeouts=TimeoutsPatch(idle_s=0, total_s=0))
    (found,) = await _examined(_settings(sick), "stall-after-content")
    assert "time-out switched off" in found.wrong


@pytest.mark.parametrize("kind", ["anthropic", "gemini"])
async def test_other_dialects_have_faults_of_their_own_and_rescue_as_siblings(kind: Any) -> None:
    native = Channel(name="n", kind=kind, models=("m",), api_key="k")
    own = [fault.name for fault in catalogue() if fault.kind == kind]
    assert len(own) > 10
    found = await _examined(_settings(native, _channel("b")), *own)
    assert [(one.fault, one.wrong) for one in found if one.wrong] == []
    assert any(one.rescued for one in found)
    rescued = await _examined(_settings(_channel("b", priority=1), native), "status-500")
    assert [one.wrong for one in rescued] == ["", ""]


@pytest.mark.parametrize(
    ("status", "data", "seen"),
    [
        (502, b'{"error": {"code": "upstream_cut"}}', ("error", "upstream_cut")),
        (502, b"<html>", ("error", None)),
        (200, b"data: {}\n\ndata: [DONE]\n\n", ("whole", None)),
        (200, b'data: {}\n\ndata: {"error": {"code": "upstream_cut"}}\n\n', ("cut", "upstream_cut")),
        (200, b"", ("cut", None)),
    ],
)
def test_what_a_client_saw_is_told_by_its_bytes(status: int, data: bytes, seen: object) -> None:
    assert what_was_seen(status, data) == seen
