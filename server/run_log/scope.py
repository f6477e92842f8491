"""The tasks around a run: the one that carries it out, and those that wait for its news."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import TYPE_CHECKING, Any

from server import errors

if TYPE_CHECKING:
    from server.run_log.run import Run


class Scope:
    """A context manager around all that carries out a run. Used once, by the task that does.

    ``Run.cancel`` then cancels what that task awaits, and the scope turns this one cancellation into
    ``errors.RunCancelled`` (``ShuttingDown`` at the server's end); any other passes. Whatever leaves the
    scope, the run has ended: if nobody told how, the scope does.
    """

    __slots__ = ("_before", "_interrupted", "_run", "_task")

    def __init__(self, run: Run, task: asyncio.Task[Any] | None = None) -> None:
        """``task`` is the current one, where it is known: asking for it is a system call."""
        self._run = run
        self._task = task
        self._before = 0
        self._interrupted = False

    def __enter__(self) -> Run:
        run = self._run
        task = self._task = self._task or asyncio.current_task()
        assert task is not None
        if run.is_cancelled():
            self._task = None
            run.close()
            raise self._cancellation()
        self._before = task.cancelling()
        run.carried_out_in = self
        return run

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        task, self._task = self._task, None
        self._run.carried_out_in = None
        try:
            if self._interrupted and task is not None:
                mine = task.uncancel() <= self._before
                if isinstance(error, asyncio.CancelledError) and mine:
                    raise self._cancellation() from None
        finally:
            self._run.close(error)

    def interrupt(self) -> None:
        """Cancel what the task awaits."""
        if self._task is not None and self._task is _current_task():
            # Cancelled from within, a task that then leaves the scope would be hit behind it.
            self._task.get_loop().call_soon(self._interrupt)
        else:
            self._interrupt()

    def _interrupt(self) -> None:
        if self._task is not None:
            self._interrupted = True
            self._task.cancel()

    def _cancellation(self) -> errors.ServerError:
        if self._run.cancelled_by == "shutdown":
            return errors.ShuttingDown("The server is shutting down and ended the run; send it again.")
        return errors.RunCancelled("The run was cancelled; send the request again to start a new one.")


class Nap:
    """A sleeper that is one task."""

    __slots__ = ("woken",)

    def __init__(self) -> None:
        self.woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def wake(self) -> None:
        if not self.woken.done():
            self.woken.set_result(None)


def _current_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None  # called from outside of the event loop
