"""A model that asks a second channel when the first is slow to speak; who speaks first is relayed.

Only streams are hedged: of a whole answer nobody knows whether it is slow or long. A hedge is paid out of the
model's budget of further attempts, so that slow upstreams are not asked twice as much by everybody.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from server.chat import ChatRequest
from server.deltas import Batch
from server.errors import ServerError
from server.routed_model import RoutedModel
from server.upstreams.base import Call, Observer

# What became of an attempt that somebody else was faster than.
OVERTAKEN = "overtaken"


class HedgedModel:
    """``model``, asked twice where it is silent for ``after_s`` seconds; an ``Upstream``."""

    def __init__(self, model: RoutedModel, after_s: float) -> None:
        self.name = model.name
        self.prices = model.prices
        self._model = model
        self._after_s = after_s

    @property
    def context_length(self) -> int | None:
        """As ``RoutedModel``'s."""
        return self._model.context_length

    async def stream(self, chat: ChatRequest, call: Call) -> AsyncGenerator[Batch, None]:
        """Yield the batches of whoever spoke first; see ``upstreams.base.Upstream``."""
        async with aclosing(self._model.stream(chat, call)) as first:
            if not chat.stream:
                async for batch in first:
                    yield batch
                return
            observer = _Beside(call, self._after_s)
            beside = Call(
                timeouts=call.timeouts, attempts=1, observer=observer, run=call.run, depth=call.depth
            )
            async with aclosing(self._model.stream(chat, beside)) as second:
                winner, batch = await self._race(first, second, call, beside)
                loser = second if winner is first else first
                await loser.aclose()
                yield batch
                async for batch in winner:
                    yield batch

    async def _race(
        self,
        first: AsyncGenerator[Batch, None],
        second: AsyncGenerator[Batch, None],
        call: Call,
        beside: Call,
    ) -> tuple[AsyncGenerator[Batch, None], Batch]:
        """Who spoke first, and what was said. Raises what the first attempt failed with if both fail."""
        async with asyncio.TaskGroup() as group:
            one = group.create_task(_first_words(first), name="first attempt")
            other: asyncio.Task[Batch | ServerError] | None = None
            await asyncio.wait({one}, timeout=self._after_s)
            if not one.done() and self._model.may_hedge(call):
                beside.deadline = call.deadline
                beside.avoid = (call.channel, *(channel for channel, _ in call.tried))
                other = group.create_task(_first_words(second), name="attempt beside it")
                pending = {one, other}
                while pending and not (_spoken(one) or _spoken(other)):
                    _, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for task in pending:
                    task.cancel()
        if other is not None and (_spoken(one) or _spoken(other)):
            won = not _spoken(one)
            _note_both(call, beside, won=won)
            return (second, _said(other.result())) if won else (first, _said(one.result()))
        return first, _said(one.result())


class _Beside:
    """Hears the second attempt, and tells the run of it as one step of the call's."""

    def __init__(self, call: Call, after_s: float) -> None:
        self._call = call
        self._after_s = after_s

    def queued(self, channel: str) -> None:
        """See ``Observer``: the call as a whole does not wait."""

    def attempt(self, number: int, channel: str) -> None:
        """See ``Observer``."""
        self._call.avoid = (channel,)
        self.noted(channel, "hedged", for_s=self._after_s)

    def retrying(self, error: ServerError, *, delay_s: float, next_attempt: int, same_channel: bool) -> None:
        """See ``Observer``: it has one attempt."""

    def noted(
        self, channel: str, state: str, *, reason: str | None = None, for_s: float | None = None
    ) -> None:
        """See ``Observer``."""
        observer: Observer | None = self._call.observer
        if observer is not None:
            observer.noted(channel, state, reason=reason, for_s=for_s)

    def adapted(self, channel: str, warnings: tuple[str, ...]) -> None:
        """See ``Observer``."""
        if self._call.observer is not None:
            self._call.observer.adapted(channel, warnings)


async def _first_words(stream: AsyncGenerator[Batch, None]) -> Batch | ServerError:
    """The first batch; a failure is a value, so that it does not end the other attempt."""
    try:
        return await anext(stream)
    except ServerError as error:
        return error


def _spoken(task: asyncio.Task[Batch | ServerError]) -> bool:
    return task.done() and not task.cancelled() and not isinstance(task.result(), ServerError)


def _said(result: Batch | ServerError) -> Batch:
    if isinstance(result, ServerError):
        raise result
    return result


def _note_both(call: Call, beside: Call, *, won: bool) -> None:
    """Put into ``call`` what became of both attempts; ``won``: the second one speaks."""
    loser = call if won else beside
    overtaken = ((loser.channel, OVERTAKEN),) if len(loser.tried) < loser.attempts_made else ()
    call.tried = (*call.tried, *beside.tried, *overtaken)
    call.attempts_made = len(call.tried) + 1
    if won:
        call.channel, call.warnings = beside.channel, beside.warnings
