"""Runs whose time passes when a test says so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from server.auth import Principal
from server.events import ModelRetrying
from server.run_log import Run, Runs
from server.settings import Runs as RunsSettings

ANN, BOB, ROOT = Principal("ann"), Principal("bob"), Principal("root", admin=True)
NOISE = ModelRetrying("x", 500, 1, 2, True)


class Clock:
    """Time that passes when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def runs_with(**settings: Any) -> tuple[Runs, Clock]:
    clock = Clock()
    wall: Callable[[], float] = lambda: 1795251600.0 + clock.now  # noqa: E731
    return Runs(RunsSettings(**settings), wall=wall, monotonic=clock), clock


def types(run: Run) -> list[str]:
    return [event.type for event in run.events_after(0)]
