"""A server with combinations over one simulated upstream, and who was asked there."""

from __future__ import annotations

from typing import Any

from server.settings import Combination, Member, Settings, Summary
from server.simulators.openai import OpenAISimulator
from server.simulators.script import Script
from tests.behaviour.running import QUIET, channel

MEMBERS = (Member(model="m1"), Member(model="m2"), Member(model="m3", temperature=0.5))
DRAFT = "A draft that is long enough to be one."


def panel(**fields: Any) -> Combination:
    given: dict[str, Any] = {"members": MEMBERS, "summary": Summary(model="s"), "quorum": 3, "grace_s": 30}
    return Combination(name="panel", **{**given, **fields})


def serving(*combinations: Combination, **fields: Any) -> Any:
    def settings(sim: OpenAISimulator) -> Settings:
        channels = (channel(sim, "m", "m1", "m2", "m3", "s", "s2", "seeing"),)
        return Settings(**{"channels": channels, "combinations": combinations, "logging": QUIET, **fields})

    return settings


def asked_models(sim: OpenAISimulator) -> list[str]:
    return sorted(request.model for request in sim.requests)


def failing(sim: OpenAISimulator, *models: str, script: Script | None = None) -> None:
    for model in models:
        sim.script(script or Script(status=400, error_message="No."), model=model, times=2)
