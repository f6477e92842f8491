"""What a run that nobody watches keeps in place of its events."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol, TypeAlias

from server.events import Data, MemberRef, StageRef

if TYPE_CHECKING:
    from server.run_log.run import Run

# Milliseconds since the run's acceptance, the data, and where it belongs.
Told: TypeAlias = tuple[int, Data, StageRef | None, MemberRef | None]

# No story makes more events than these.
MAX_QUIET_EVENTS = 8


class Story(Protocol):
    """What makes a quiet run's events."""

    def tell(self, run: Run) -> Iterable[Told]:
        """All of them so far, oldest first. Called once; a run under way then tells the rest itself."""
