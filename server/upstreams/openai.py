"""Kind ``openai``: any server that speaks OpenAI's chat completions."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping

import msgspec
from yarl import URL

from server.chat import ChatRequest
from server.deltas import Batch, Delta, has_content
from server.errors import ServerError
from server.openai_wire import (
    AnswerReader,
    clean_error,
    decode_whole,
    upstream_error,
)
from server.settings import Channel, ParamRules, Timeouts
from server.upstreams.base import Call
from server.upstreams.clocks import Clocks
from server.upstreams.exchange import Exchange, drain, rest, secrets_of
from server.upstreams.http import HttpAnswer, HttpClient, Target, tls_context
from server.upstreams.params import Params

log = logging.getLogger("antiphon.upstream")

# Fields that are between the client and us.
OURS = ("antiphon", "conversation_id")


class OpenAIUpstream:
    """One channel of kind ``openai``. The client is shared and closed by its owner.

    ``find_target`` is awaited before each call where the address is not fixed (the embedded model); ``mend``
    repairs each event's data, or drops it by giving None.
    """

    def __init__(
        self,
        channel: Channel,
        client: HttpClient,
        *,
        find_target: Callable[[], Awaitable[Target]] | None = None,
        mend: Callable[[bytes], bytes | None] | None = None,
    ) -> None:
        self.name = channel.name
        self._channel = channel
        self._client = client
        self._find_target = find_target or self._fixed
        self._mend = mend
        self._target = None if find_target else fixed_target(channel)
        self._nested: dict[int, Target] = {}  # by how many combinations a call is within
        self._timeouts = channel.timeouts.over(Timeouts())
        self._names = {name: model.model or name for name, model in channel.served().items()}
        self._secrets = secrets_of(channel)
        self._params = Params(channel.params) if channel.params != ParamRules() else None

    @property
    def unavailable(self) -> str | None:
        """Always None: whether a server answers is only known by asking it."""
        return None

    async def stream(self, chat: ChatRequest, call: Call) -> AsyncGenerator[Batch, None]:
        """Yield the answer's batches; see ``upstreams.base.Upstream``."""
        if not chat.stream:
            yield await self.whole(chat, call)
            return
        exchange = self._exchange(chat, call)
        clocks = exchange.clocks
        reader = AnswerReader(stream=True, mend=self._mend)
        try:
            answer = await exchange.begin(self._target_of(call) or await self._find_target(), self.body(chat))
            spoken = False
            while not reader.done:
                data = await answer.read()
                if not data:
                    break
                deltas = reader.feed(data)
                if deltas:
                    if not spoken and (spoken := has_content(deltas)):
                        clocks.spoken()
                    clocks.pause()
                    yield deltas
                    clocks.heard()
                elif not reader.quiet:  # an upstream's comments do not feed the idle clock
                    clocks.heard()
            clocks.stop()
            if last := reader.eof():
                yield last
            await drain(answer)
        except ServerError as error:
            self._clean(error, chat.model)
            raise
        finally:
            exchange.end()
            self._tell_skipped(reader)

    async def whole(self, chat: ChatRequest, call: Call) -> Batch:
        """The answer to a plain request, as one batch; see ``upstreams.base.whole``."""
        exchange = self._exchange(chat, call)
        try:
            answer = await exchange.begin(self._target_of(call) or await self._find_target(), self.body(chat))
            data = await answer.read()
            if data.startswith(b"{"):  # as nearly all begin
                deltas = decode_whole(data if answer.at_end else await rest(answer, data))
            else:
                deltas = await self._read_whole(answer, data)
            exchange.clocks.stop()
            if not answer.at_end:
                await drain(answer)
            return deltas
        except ServerError as error:
            self._clean(error, chat.model)
            raise
        finally:
            exchange.end()

    async def _read_whole(self, answer: HttpAnswer, data: bytes) -> list[Delta]:
        """An answer to a plain request that begins otherwise than with an object: a stream, perhaps."""
        reader = AnswerReader(stream=False, mend=self._mend)
        deltas: list[Delta] = []
        try:
            while data:
                deltas += reader.feed(data)
                if reader.done:
                    break
                data = await answer.read()
            return deltas + reader.eof()
        finally:
            self._tell_skipped(reader)

    def _exchange(self, chat: ChatRequest, call: Call) -> Exchange:
        timeouts = call.timeouts or self._timeouts
        clocks = Clocks(
            self._client.patrol,
            timeouts,
            plain=not chat.stream,
            deadline=call.deadline,
            head_in_time=self._channel.head_in_time,
        )
        return Exchange(self._client, timeouts.connect_s, clocks, upstream_error)

    def _tell_skipped(self, reader: AnswerReader) -> None:
        if reader.skipped:
            log.warning("channel %s: %d unreadable lines skipped", self.name, reader.skipped)

    async def aclose(self) -> None:
        """Nothing is kept open beyond the calls; the client belongs to its owner."""

    def body(self, chat: ChatRequest) -> bytes:
        """The request's bytes for this upstream: its own model name, usage asked for, the channel's rules."""
        changes: dict[str, bytes | None] = {} if self._params is None else self._params.changes(chat)
        theirs = self._names.get(chat.model, chat.model)
        if theirs != chat.model:
            changes["model"] = msgspec.json.encode(theirs)
        for field in OURS:
            if field in chat.json:
                changes[field] = None
        if self._channel.stream_usage == "refused":
            changes["stream_options"] = None
        elif self._channel.stream_usage == "ask" and chat.stream and not chat.include_usage:
            changes["stream_options"] = _ask_usage(chat)
        return chat.json.edit(changes) if changes else chat.body

    async def _fixed(self) -> Target:
        return fixed_target(self._channel)

    def _target_of(self, call: Call) -> Target | None:
        """Where this call goes; None if that has to be found out.

        From within combinations it says so, lest servers ask each other for ever.
        """
        if self._target is None or not call.depth:
            return self._target
        target = self._nested.get(call.depth)
        if target is None:
            target = self._nested[call.depth] = fixed_target(self._channel, call.depth)
        return target

    def _clean(self, error: ServerError, model: str) -> None:
        """Take our secrets, and the upstream's name of the model, out of its words."""
        names = {self._names.get(model, model): model}
        clean_error(error, secrets=self._secrets, names=names)


def fixed_target(channel: Channel, depth: int = 0) -> Target:
    """Where a channel's chat requests go. A base URL that already names the endpoint is taken whole.

    ``depth`` is told if a request comes from within so many combinations.
    """
    base = (channel.base_url or "").rstrip("/")
    path = "" if base.endswith("/chat/completions") else "/chat/completions"
    url = URL(base + path)
    tls = tls_context(channel.tls) if url.scheme == "https" else None
    headers = dict(request_headers(channel))
    if depth:
        headers["X-Antiphon-Depth"] = str(depth)
    return Target(url, headers, tls=tls, proxy=channel.proxy)


def request_headers(channel: Channel, api_key: str | None = None) -> Mapping[str, str]:
    """The headers of each request: ours and the channel's, nothing of the client's."""
    headers = {
        "User-Agent": "antiphon",
        "Accept": "application/json, text/event-stream",
        "Accept-Encoding": "identity",
        "Content-Type": "application/json",
    }
    key = api_key or channel.api_key
    if key and channel.auth != "none":
        if channel.auth == "bearer":
            headers["Authorization"] = f"Bearer {key}"
        else:
            headers[channel.auth] = key
    own = {name.lower() for name in channel.headers}
    return {name: value for name, value in headers.items() if name.lower() not in own} | channel.headers


def _ask_usage(chat: ChatRequest) -> bytes:
    options = chat.json.raw("stream_options")
    if options is None or not options.startswith(b"{"):
        return b'{"include_usage":true}'
    fields = msgspec.json.decode(options, type=dict[str, msgspec.Raw])
    return msgspec.json.encode(fields | {"include_usage": True})
