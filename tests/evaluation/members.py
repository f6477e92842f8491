"""Simulated models asked by hand, under a virtual clock."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec

from evaluation.reading import question
from server.chat import ChatRequest, JsonObject
from server.virtual_clock import VirtualClockLoop

T = TypeVar("T")


def at_once(work: Callable[[], Awaitable[T]]) -> T:
    """Run it to its end under a clock that jumps."""

    async def carried_out() -> T:
        return await work()

    with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
        return runner.run(carried_out())


def asked(text: str = "", *, rules: str | None = None) -> ChatRequest:
    """A request as the coordinator sends it."""
    turns = [{"role": "system", "content": rules}] if rules else []
    turns.append({"role": "user", "content": text or question(1)})
    return ChatRequest(JsonObject(msgspec.json.encode({"model": "m", "messages": turns, "stream": True})))


def drafts(*blocks: str, notes: str = "", number: int = 1) -> str:
    """A prompt that shows drafts, as the coordinator builds it."""
    fence = "draft-" + "0123456789abcdef" * 2
    shown = "\n".join(
        f'<{fence} label="{chr(65 + place)}" state="complete">\n{block}\n</{fence}>'
        for place, block in enumerate(blocks)
    )
    told = f'\n<{fence} notes="on the drafts">\n{notes}\n</{fence}>' if notes else ""
    return f"Drafts.\n{shown}{told}\nThe request:\n{question(number)}"
