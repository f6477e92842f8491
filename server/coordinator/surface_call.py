"""The run of a request to a surface beside chats: one call, told as any other, of which no text is known."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from server.chat import ChatRequest, JsonObject
from server.coordinator.one_call import OneCall
from server.deltas import Usage
from server.routed_surface import RoutedSurface
from server.run_log import Run
from server.surfaces import AnswerHead, SurfaceRequest
from server.upstreams.base import Call

# What the run's log takes for what was asked: there is no chat whose tokens could be estimated.
_NO_CHAT = ChatRequest(JsonObject(b"{}"))


class _SurfaceCall(OneCall):
    """Its usage is what the upstream reported, and never an estimate."""

    __slots__ = ()

    @property
    def usage(self) -> Usage | None:
        return self._reported

    def report(self, usage: Usage | None) -> None:
        """Note what the answer tells of its cost."""
        self._reported = usage


async def answer_surface(
    run: Run, model: RoutedSurface, request: SurfaceRequest, call: Call
) -> AsyncGenerator[AnswerHead | bytes, None]:
    """Yield the answer's head and its bytes, and tell all of it in ``run``, which ends with the generator.

    Whoever calls closes it; closing it early is the client's leaving. Raises what the model raises.
    """
    one = _SurfaceCall(run, model.model, _NO_CHAT, prices=model.prices)
    call.observer, call.run = one, run
    try:
        async with aclosing(model.ask(request, call)) as parts:
            async for part in parts:
                if isinstance(part, AnswerHead):
                    one.report(part.usage)
                yield part
    except (Exception, asyncio.CancelledError, GeneratorExit) as error:
        one.broke_off(error)
        raise
    one.complete(call)
