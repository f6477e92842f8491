"""Simulated models: upstreams that answer by skill, take their time, and fail as real ones do.

Each stands for a routed model with one channel, so it keeps to what a call says of clocks, attempts and the
time that is left. All its waiting is by the event loop's clock, which is to be a virtual one.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator

import msgspec

from evaluation.chance import Chance
from evaluation.reading import read, value_in
from evaluation.verdicts import reply
from evaluation.world import Skill, World
from server.chat import ChatRequest
from server.deltas import Batch, Finished, Opening, TextDelta, Usage, UsageDelta
from server.errors import RateLimited, ServerError, UpstreamAuth, UpstreamCut, UpstreamTimeout
from server.settings import Timeouts, TimeoutsPatch
from server.upstreams.base import Call

FIRST_WORD = 1 / 3
"""Share of a call's time that passes before its first word."""
VERDICT = 1 / 4
"""A verdict is short: it takes so much of the time that an answer takes."""
BACKOFF_S = 1.0
LASTING = ("hang", "refuse")
"""What the next attempt meets again."""
GARBAGE = "�" * 400
"""What an upstream that is out of order writes; no answer can be found in it."""


class Faults(msgspec.Struct, frozen=True):
    """How often a call goes wrong, each as a share of all; 0 is never.

    ``straggle``: it takes ``times`` as long. ``hang``: nothing comes, whatever is tried. ``stall``: more than
    half of the text comes, and nothing more. ``cut``: so much, and the connection breaks. ``busy``: 429 to
    the first attempt. ``refuse``: 403, to all. ``garbage``: a whole answer without any sense.
    """

    straggle: float = 0.0
    times: float = 8.0
    hang: float = 0.0
    stall: float = 0.0
    cut: float = 0.0
    busy: float = 0.0
    refuse: float = 0.0
    garbage: float = 0.0

    def fate(self, chance: Chance) -> str:
        """What becomes of one call: the name of a field above, or ``whole``."""
        left = chance.uniform()
        for name in ("straggle", "hang", "stall", "cut", "busy", "refuse", "garbage"):
            left -= getattr(self, name)
            if left < 0:
                return name
        return "whole"


class SimulatedModel:
    """An ``Upstream`` that answers the questions of ``world``. Its calls about one question are told apart by
    their order, so that the same combination asked twice gets the same answers.
    """

    vision: bool | None = False
    context_length: int | None = None

    def __init__(self, world: World, skill: Skill, faults: Faults = Faults()) -> None:  # noqa: B008 - frozen
        self.name = skill.name
        self._world = world
        self._skill = skill
        self._faults = faults
        self._item = -1
        self._calls = 0

    async def stream(self, chat: ChatRequest, call: Call) -> AsyncGenerator[Batch, None]:
        """See ``server.upstreams.base.Upstream``."""
        prompt = read(chat)
        if prompt.item != self._item:
            self._item, self._calls = prompt.item, 0
        self._calls += 1
        sample, attempt = self._calls, 0
        text = reply(self._world, self._skill, prompt, sample)
        limits = call.timeouts(TimeoutsPatch()) if call.timeouts is not None else Timeouts()
        clocks = _Clocks(limits)
        chance = Chance(self._world.seed, "course", prompt.item, self.name, sample)
        fate = self._faults.fate(chance)
        seconds = self._skill.median_s * math.exp(self._skill.sigma * chance.normal())
        if fate == "straggle":
            seconds *= self._faults.times
        if value_in(text) is None:
            seconds *= VERDICT
        if fate == "garbage":
            text = GARBAGE
        while True:
            attempt += 1
            call.attempts_made, call.channel = attempt, self.name
            if call.observer is not None:
                call.observer.attempt(attempt, self.name)
            try:
                await self._begin(fate if attempt == 1 or fate in LASTING else "whole", seconds, clocks)
                break
            except ServerError as error:
                await _wait_for_next(error, call, limits, attempt, chance)
        first, middle = text[:30], text[30 : len(text) * 2 // 3]
        yield [Opening(), TextDelta(first)]
        await clocks.wait(seconds * (1 - FIRST_WORD) / 2, "total")
        yield [TextDelta(middle)]
        if fate == "stall":
            await clocks.wait(math.inf, "idle")
        await clocks.wait(seconds * (1 - FIRST_WORD) / 2, "total")
        if fate == "cut":
            raise UpstreamCut("The simulated model's answer broke off.")
        tokens = len(text) // 4
        yield [TextDelta(text[30 + len(middle) :]), Finished("stop"), UsageDelta(Usage(0, tokens, tokens))]

    async def _begin(self, fate: str, seconds: float, clocks: _Clocks) -> None:
        """Wait for the first word. Raises what a real upstream's failure would be."""
        clocks.start()
        if fate == "busy":
            await clocks.wait(seconds * FIRST_WORD / 10, "first_token")
            raise RateLimited("The simulated model is busy.", upstream_status=429)
        if fate == "refuse":
            raise UpstreamAuth("The simulated model refuses.", upstream_status=403)
        await clocks.wait(math.inf if fate == "hang" else seconds * FIRST_WORD, "first_token")


class _Clocks:
    """The clocks of one attempt, in seconds; ``start`` starts them anew, but for that of the whole call."""

    def __init__(self, limits: Timeouts) -> None:
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()

    def start(self) -> None:
        """An attempt begins."""
        self._began = self._loop.time()

    async def wait(self, seconds: float, clock: str) -> None:
        """Sleep. Raises ``UpstreamTimeout`` if this clock, or that of the whole attempt, runs out first."""
        ends = {clock: getattr(self._limits, f"{clock}_s")}
        if self._limits.total_s:
            ends["total"] = max(0.0, self._began + self._limits.total_s - self._loop.time())
        elif clock == "total":
            ends = {}
        first = min((name for name in ends if ends[name]), key=lambda name: ends[name], default=None)
        if first is not None and ends[first] < seconds:
            await asyncio.sleep(ends[first])
            raise UpstreamTimeout(first, getattr(self._limits, f"{first}_s"))
        if math.isinf(seconds):
            await self._loop.create_future()  # until it is given up
        await asyncio.sleep(seconds)


async def _wait_for_next(
    error: ServerError, call: Call, limits: Timeouts, attempt: int, chance: Chance
) -> None:
    """Wait until the next attempt is due; where a routed model would make none, raise ``error``."""
    if not error.retryable or attempt >= (call.attempts or 1):
        raise error
    delay_s = chance.uniform() * BACKOFF_S * 2 ** (attempt - 1)
    now = asyncio.get_running_loop().time()
    if call.deadline is not None and now + delay_s + limits.connect_s > call.deadline:
        raise error
    if call.siblings is not None and call.siblings.enough():
        raise error
    if call.observer is not None:
        call.observer.retrying(error, delay_s=delay_s, next_attempt=attempt + 1, same_channel=True)
    await asyncio.sleep(delay_s)
