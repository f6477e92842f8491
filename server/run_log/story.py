"""What a run knows of whoever carries it out: how its events are made, and how it is steered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Protocol, TypeAlias

from server.events import Data, MemberRef, StageRef

if TYPE_CHECKING:
    from server.run_log.run import Run

# Milliseconds since the run's acceptance, the data, and where it belongs.
Told: TypeAlias = tuple[int, Data, StageRef | None, MemberRef | None]

# No story makes more events than these.
MAX_QUIET_EVENTS = 8


class Steered(Protocol):
    """A run under way whose stages a watcher with the right may cut short.

    ``told`` is called just before a command takes effect, and only if it does.
    """

    def cancel_member(self, member: str, told: Callable[[], None]) -> bool:
        """End one call; False if it does not run."""

    def answer_now(self, told: Callable[[], None]) -> asyncio.Event | None:
        """End the gathering; the event is set when it has ended. None if nothing is being gathered.

        Raises ``Conflict`` (``nothing_to_answer``) if there is too little to answer from; the run goes on.
        """


class Story(Protocol):
    """What makes a quiet run's events."""

    def tell(self, run: Run) -> Iterable[Told]:
        """All of them so far, oldest first. Called once; a run under way then tells the rest itself."""
