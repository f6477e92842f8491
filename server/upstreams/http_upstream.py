"""What every channel over HTTP does, whatever its dialect: one request, and its answer read to the end."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Mapping
from typing import Protocol, TypeVar

import msgspec
from yarl import URL

from server.chat import ChatRequest
from server.deltas import Batch, Delta, has_content
from server.errors import ServerError
from server.openai_wire import clean_error
from server.settings import Channel, ParamRules
from server.upstreams.base import Call, OwnTimeouts
from server.upstreams.clocks import Clocks
from server.upstreams.exchange import Exchange, drain, secrets_of
from server.upstreams.http import HttpAnswer, HttpClient, Target, tls_context
from server.upstreams.params import Params

log = logging.getLogger("antiphon.upstream")
Model = TypeVar("Model", bound=msgspec.Struct)

# What is larger is read in a thread: it would hold up everybody else's calls meanwhile. (bytes)
LARGE_BYTES = 1024 * 1024
# What goes with each request of any dialect; nothing of the client's does.
HEADERS = {
    "User-Agent": "antiphon",
    "Accept": "application/json, text/event-stream",
    "Accept-Encoding": "identity",
    "Content-Type": "application/json",
}


class Reader(Protocol):
    """The body of one answer → deltas.

    ``done``: the answer is complete, whatever may still come. ``quiet``: what was fed last held nothing that
    counts as speaking, such as a ping. ``skipped``: how much could not be understood and was passed over.
    """

    @property
    def done(self) -> bool: ...
    @property
    def quiet(self) -> bool: ...
    @property
    def skipped(self) -> int: ...
    def feed(self, data: bytes) -> Batch: ...
    def eof(self) -> Batch: ...


class HttpUpstream(ABC):
    """One channel over HTTP; a subclass for each dialect. The client is shared and closed by its owner.

    A subclass says where a request goes (``target``), what it is (``body``), how its answer is read
    (``reader``, ``read_at_once``) and what its errors mean (``read_refusal``, ``explained``). ``skips`` is
    what its reader passes over, in words for the log; ``skipped`` counts it by channel.
    """

    skips = "unknown or unreadable events"

    def __init__(self, channel: Channel, client: HttpClient) -> None:
        self.name = channel.name
        self.skipped: Counter[str] = Counter()
        self._channel = channel
        self._client = client
        self._timeouts = OwnTimeouts(channel)
        self._names = {name: model.model or name for name, model in channel.served().items()}
        self._secrets = secrets_of(channel)
        self._params = Params(channel.params) if channel.params != ParamRules() else None

    @property
    def unavailable(self) -> str | None:
        """Always None: whether a server answers is only known by asking it."""
        return None

    @abstractmethod
    def target(self, chat: ChatRequest, call: Call) -> Target | Awaitable[Target]:
        """Where this call goes; to be awaited if that has to be found out."""

    @abstractmethod
    def body(self, chat: ChatRequest, call: Call) -> bytes:
        """The request's bytes. What had to be adapted is told in ``call.warnings``."""

    @abstractmethod
    def reader(self, *, stream: bool) -> Reader:
        """What reads the body of an answer to a request that asked for a stream, or did not."""

    @abstractmethod
    def read_refusal(self, status: int, body: bytes, *, wait_s: float | None = None) -> ServerError:
        """A status other than 2xx as one of our errors; ``wait_s`` is its Retry-After."""

    def read_at_once(self, data: bytes) -> list[Delta] | None:
        """A whole body that one read brought, as deltas; None if it takes a reader."""
        return None

    def explained(self, error: ServerError) -> ServerError:
        """The same error, or what it means in the mouth of this vendor."""
        return error

    async def stream(self, chat: ChatRequest, call: Call) -> AsyncGenerator[Batch, None]:
        """Yield the answer's batches; see ``upstreams.base.Upstream``."""
        if not chat.stream:
            yield await self.whole(chat, call)
            return
        exchange = self._exchange(chat, call)
        clocks = exchange.clocks
        reader = self.reader(stream=True)
        try:
            target = self.target(chat, call)
            if not isinstance(target, Target):
                target = await target
            answer = await exchange.begin(target, self.body(chat, call))
            spoken = False
            waiting = 0  # bytes since the last deltas: the next event to end may be as large
            while not reader.done:
                data = await answer.read()
                if not data:
                    break
                waiting += len(data)
                if waiting < LARGE_BYTES:
                    deltas = reader.feed(data)
                else:
                    deltas = await asyncio.to_thread(reader.feed, data)
                if deltas:
                    waiting = 0
                    if not spoken and (spoken := has_content(deltas)):
                        clocks.spoken()
                    clocks.pause()
                    yield deltas
                    clocks.heard()
                elif not reader.quiet:  # an upstream's comments and pings do not feed the idle clock
                    clocks.heard()
            clocks.stop()
            if last := reader.eof() if waiting < LARGE_BYTES else await asyncio.to_thread(reader.eof):
                yield last
            await drain(answer)
        except ServerError as error:
            told = self._told(error, chat.model)
            raise told from error.__cause__ if told is error else error
        finally:
            exchange.end()
            self._tell_skipped(reader)

    async def whole(self, chat: ChatRequest, call: Call) -> Batch:
        """The answer to a plain request, as one batch; see ``upstreams.base.whole``."""
        exchange = self._exchange(chat, call)
        try:
            target = self.target(chat, call)
            if not isinstance(target, Target):
                target = await target
            answer = await exchange.begin(target, self.body(chat, call))
            data = await answer.read()
            deltas = self.read_at_once(data) if answer.at_end else None
            if deltas is None:
                deltas = await self._read_whole(answer, data)
            exchange.clocks.stop()
            if not answer.at_end:
                await drain(answer)
            return deltas
        except ServerError as error:
            told = self._told(error, chat.model)
            raise told from error.__cause__ if told is error else error
        finally:
            exchange.end()

    async def aclose(self) -> None:  # noqa: B027 - most have nothing to close
        """Nothing is kept open beyond the calls; the client belongs to its owner."""

    async def _read_whole(self, answer: HttpAnswer, data: bytes) -> list[Delta]:
        """An answer to a plain request, of which ``data`` has come."""
        reader = self.reader(stream=False)
        deltas: list[Delta] = []
        size = 0
        try:
            while data:
                deltas += reader.feed(data)
                size += len(data)
                if reader.done:
                    break
                data = await answer.read()
            deltas += reader.eof() if size < LARGE_BYTES else await asyncio.to_thread(reader.eof)
            return deltas
        finally:
            self._tell_skipped(reader)

    def _exchange(self, chat: ChatRequest, call: Call) -> Exchange:
        timeouts = self._timeouts.of(call)
        clocks = Clocks(
            self._client.patrol,
            timeouts,
            plain=not chat.stream,
            deadline=call.deadline,
            head_in_time=self._channel.head_in_time,
        )
        return Exchange(self._client, timeouts.connect_s, clocks, self.read_refusal, call.sent_again)

    def _tell_skipped(self, reader: Reader) -> None:
        if reader.skipped:
            self.skipped[self.name] += reader.skipped
            log.warning("channel %s: %d %s skipped", self.name, reader.skipped, self.skips)

    def _tell_adapted(self, call: Call, warnings: tuple[str, ...]) -> None:
        """What had to be adapted in a request, in names of fields alone."""
        call.adapted(self.name, warnings)
        log.info("channel %s: adapted: %s", self.name, "; ".join(warnings))

    def _told(self, error: ServerError, model: str) -> ServerError:
        """The error as it goes on: without our secrets, and by our name of the model."""
        told = self.explained(error)
        clean_error(told, secrets=self._secrets, names={self._names.get(model, model): model})
        return told


def with_own(known: Model, own: msgspec.Struct | None) -> Model:
    """What a model takes as its name tells, with the channel's own settings over it; None says nothing."""
    if own is None:
        return known
    mine = {key: value for key, value in msgspec.structs.asdict(own).items() if value is not None}
    return msgspec.structs.replace(known, **mine)


def channel_target(channel: Channel, url: URL, headers: Mapping[str, str]) -> Target:
    """Where a channel's requests go, with ``HEADERS``, the dialect's, and in place of them its own."""
    own = {name.lower() for name in channel.headers}
    ours = {name: value for name, value in {**HEADERS, **headers}.items() if name.lower() not in own}
    tls = tls_context(channel.tls) if url.scheme == "https" else None
    return Target(url, ours | channel.headers, tls=tls, proxy=channel.proxy)
