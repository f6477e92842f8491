"""Tasks that outlive the function that starts them, held by one owner."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

log = logging.getLogger("antiphon.tasks")

T = TypeVar("T")


class TaskOwner:
    """Holds tasks, reports those that fail, and ends them all.

    A task that raises is logged with its traceback, unless somebody awaits it (``awaited=True``), who then
    has the exception. ``aclose`` cancels what still runs and waits for it; afterwards nothing can be created.
    """

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False

    def __len__(self) -> int:
        return len(self._tasks)

    def create(self, work: Coroutine[Any, Any, T], *, name: str, awaited: bool = False) -> asyncio.Task[T]:
        """Start ``work``. Raises ``RuntimeError`` after ``aclose``."""
        if self._closed:
            work.close()
            raise RuntimeError("the owner of these tasks is closed")
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._forget if awaited else self._report)
        return task

    async def aclose(self) -> None:
        """Cancel all tasks and wait until they have ended. Idempotent."""
        self._closed = True
        while self._tasks:
            tasks = list(self._tasks)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            self._tasks.difference_update(tasks)

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)

    def _report(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("task %s failed", task.get_name(), exc_info=error)
