"""What a watcher with the right may do to a run under way: end one call, or have it answered at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from server.coordinator.member import MemberCall
from server.errors import Conflict


class Stage(Protocol):
    """An open stage, as it is steered. ``over`` is set at its end; ``gathers``: may it end early?"""

    members: list[MemberCall]
    over: asyncio.Event
    gathers: bool
    hurried: bool

    @property
    def can_answer(self) -> bool:
        """Is there enough to go on from, if it ended now?"""

    def hurry(self) -> None:
        """End it now, with what there is."""


class Steering:
    """The open stages of one run; see ``run_log.Steered``. Every stage that opens here also closes."""

    def __init__(self) -> None:
        self._open: list[Stage] = []

    def opened(self, stage: Stage) -> None:
        """A stage begins."""
        self._open.append(stage)

    def closed(self, stage: Stage) -> None:
        """A stage has told its end. Idempotent."""
        if stage in self._open:
            self._open.remove(stage)
        stage.over.set()

    def close(self) -> None:
        """The run is over: whatever was left open, nobody waits for it any more."""
        for stage in list(self._open):
            self.closed(stage)

    def cancel_member(self, member: str, told: Callable[[], None]) -> bool:
        """End one call; False if it does not run."""
        for stage in self._open:
            for call in stage.members:
                if call.planned.id == member and call.task is not None and call.outcome is None:
                    told()
                    call.give_up("watcher")
                    return True
        return False

    def answer_now(self, told: Callable[[], None]) -> asyncio.Event | None:
        """End the newest gathering. Raises ``Conflict`` if there is too little to answer from."""
        stage = next((one for one in reversed(self._open) if one.gathers), None)
        if stage is None:
            return None
        if not stage.hurried:
            if not stage.can_answer:
                raise Conflict(
                    "There is too little to answer from yet; the run goes on. Try again, or cancel the run.",
                    code="nothing_to_answer",
                )
            told()
            stage.hurry()
        return stage.over
