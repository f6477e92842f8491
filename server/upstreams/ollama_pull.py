"""Models that an Ollama does not have yet, pulled when they are first asked for."""

from __future__ import annotations

import asyncio
import logging
from time import monotonic

import msgspec

from server.errors import UpstreamCut, UpstreamInvalid
from server.ollama_wire import ollama_error
from server.settings import Timeouts
from server.sse import MAX_EVENT_BYTES
from server.upstreams.clocks import Clocks
from server.upstreams.exchange import Exchange
from server.upstreams.http import HttpAnswer, HttpClient, Target

log = logging.getLogger("antiphon.upstream")


class _Line(msgspec.Struct):
    status: str = ""
    error: str = ""


class OllamaPulls:
    """Those of one channel; ``target`` is its ``/api/pull``. Who asks for the same model shares one pull."""

    def __init__(self, channel: str, client: HttpClient, target: Target) -> None:
        self._channel = channel
        self._client = client
        self._target = target
        self._locks: dict[str, asyncio.Lock] = {}  # by model: those that the channel names
        self._pulled: dict[str, int] = {}  # how often

    async def pull(self, model: str, timeouts: Timeouts, deadline: float | None) -> None:
        """Have the server pull ``model``; return when it has, or when somebody else's pull has ended well.

        Raises a ``ServerError``: what the server says, or that the time is over. Cancelling ends the pull;
        the server keeps what it has of the model, and the next one goes on from there.
        """
        before = self._pulled.get(model, 0)
        clocks = Clocks(self._client.patrol, timeouts, plain=True, deadline=deadline)
        lock = self._locks.setdefault(model, asyncio.Lock())
        try:
            async with asyncio.timeout_at(clocks.head_by):  # a pull of somebody else's may have more time
                await lock.acquire()
        except TimeoutError:
            raise clocks.error() from None
        try:
            if self._pulled.get(model, 0) != before:
                return
            log.info("channel %s: pulls the model %s", self._channel, model)
            began = monotonic()
            await self._carry_out(model, timeouts.connect_s, clocks)
            self._pulled[model] = before + 1
            log.info("channel %s: has pulled %s in %.0f s", self._channel, model, monotonic() - began)
        finally:
            lock.release()

    async def _carry_out(self, model: str, connect_s: float, clocks: Clocks) -> None:
        exchange = Exchange(self._client, connect_s, clocks, ollama_error)
        try:
            body = msgspec.json.encode({"model": model, "stream": True})
            await _read(await exchange.begin(self._target, body))
        finally:
            exchange.end()


async def _read(answer: HttpAnswer) -> None:
    """Read how the pull goes on, to its end. Raises if it does not end well."""
    rest = b""
    succeeded = False
    while data := await answer.read():
        *lines, rest = (rest + data).split(b"\n")
        if len(rest) > MAX_EVENT_BYTES:
            raise UpstreamInvalid("The upstream sent a line that is far too long.")
        for line in lines:
            succeeded = _heed(line) or succeeded
    if not (_heed(rest) or succeeded):
        raise UpstreamCut("The upstream's pull of the model was cut off before its end; try again.")


def _heed(line: bytes) -> bool:
    """Does this line say that the model is there? Raises what it says if it tells of an error."""
    if not line.strip():
        return False
    try:
        told = msgspec.json.decode(line, type=_Line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UpstreamInvalid("The upstream's answer to a pull cannot be read; try again.") from error
    if told.error:
        raise ollama_error(500, line)
    return told.status == "success"
