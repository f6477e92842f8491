"""Kind ``anthropic``: Anthropic's Messages API, and other vendors who serve its dialect."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator

import msgspec
from yarl import URL

from server.anthropic_wire import (
    AnthropicModel,
    MessagesReader,
    MessagesRequest,
    anthropic_error,
    messages_request,
    model_of,
)
from server.chat import ChatRequest
from server.deltas import Batch, Delta, has_content
from server.errors import ServerError
from server.openai_wire import clean_error
from server.settings import Channel, ParamRules, Timeouts
from server.upstreams.base import Call
from server.upstreams.clocks import Clocks
from server.upstreams.exchange import Exchange, drain, secrets_of
from server.upstreams.http import HttpClient, Target, tls_context
from server.upstreams.params import Params

log = logging.getLogger("antiphon.upstream")

BASE_URL = "https://api.anthropic.com"


class AnthropicUpstream:
    """One channel of kind ``anthropic``. The client is shared and closed by its owner."""

    def __init__(self, channel: Channel, client: HttpClient) -> None:
        self.name = channel.name
        self._channel = channel
        self._client = client
        self._target = messages_target(channel)
        self._timeouts = channel.timeouts.over(Timeouts())
        self._names = {name: model.model or name for name, model in channel.served().items()}
        self._models = {theirs: _model(channel, theirs) for theirs in self._names.values()}
        self._secrets = secrets_of(channel)
        self._params = Params(channel.params) if channel.params != ParamRules() else None

    @property
    def unavailable(self) -> str | None:
        """Always None: whether the service answers is only known by asking it."""
        return None

    async def stream(self, chat: ChatRequest, call: Call) -> AsyncGenerator[Batch, None]:
        """Yield the answer's batches; see ``upstreams.base.Upstream``."""
        if not chat.stream:
            yield await self.whole(chat, call)
            return
        request = self.request(chat, call)
        exchange = self._exchange(chat, call)
        clocks = exchange.clocks
        reader = MessagesReader()
        try:
            answer = await exchange.begin(self._target, request.body)
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
                elif not reader.quiet:  # the service's pings do not feed the idle clock
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
        request = self.request(chat, call)
        exchange = self._exchange(chat, call)
        reader = MessagesReader()
        try:
            answer = await exchange.begin(self._target, request.body)
            deltas: list[Delta] = []
            while not reader.done and (data := await answer.read()):
                deltas += reader.feed(data)
            exchange.clocks.stop()
            deltas += reader.eof()
            await drain(answer)
            return deltas
        except ServerError as error:
            self._clean(error, chat.model)
            raise
        finally:
            exchange.end()
            self._tell_skipped(reader)

    async def aclose(self) -> None:
        """Nothing is kept open beyond the calls; the client belongs to its owner."""

    def request(self, chat: ChatRequest, call: Call) -> MessagesRequest:
        """What is sent for ``chat``. What had to be adapted is told, in names of fields alone."""
        if self._params is not None:
            chat = chat.edit(self._params.changes(chat))
        theirs = self._names.get(chat.model, chat.model)
        model = self._models.get(theirs)
        request = messages_request(chat, model or _model(self._channel, theirs), theirs)
        if request.warnings:
            call.warnings = (self.name, request.warnings)
            log.info("channel %s: adapted: %s", self.name, "; ".join(request.warnings))
        return request

    def _exchange(self, chat: ChatRequest, call: Call) -> Exchange:
        timeouts = call.timeouts or self._timeouts
        clocks = Clocks(
            self._client.patrol,
            timeouts,
            plain=not chat.stream,
            deadline=call.deadline,
            head_in_time=self._channel.head_in_time,
        )
        return Exchange(self._client, timeouts.connect_s, clocks, anthropic_error)

    def _tell_skipped(self, reader: MessagesReader) -> None:
        if reader.skipped:
            log.warning("channel %s: %d unknown events skipped", self.name, reader.skipped)

    def _clean(self, error: ServerError, model: str) -> None:
        """Take our secrets, and the upstream's name of the model, out of its words."""
        clean_error(error, secrets=self._secrets, names={self._names.get(model, model): model})


def messages_target(channel: Channel) -> Target:
    """Where a channel's requests go, and the headers that go with each."""
    settings = channel.anthropic
    url = URL((channel.base_url or BASE_URL).rstrip("/") + "/v1/messages")
    headers = {
        "User-Agent": "antiphon",
        "Accept": "application/json, text/event-stream",
        "Accept-Encoding": "identity",
        "Content-Type": "application/json",
        "anthropic-version": settings.version,
    }
    if settings.beta:
        headers["anthropic-beta"] = ",".join(settings.beta)
    if channel.api_key and settings.auth == "bearer":
        headers["Authorization"] = f"Bearer {channel.api_key}"
    elif channel.api_key:
        headers["x-api-key"] = channel.api_key
    own = {name.lower() for name in channel.headers}
    headers = {name: value for name, value in headers.items() if name.lower() not in own} | channel.headers
    tls = tls_context(channel.tls) if url.scheme == "https" else None
    return Target(url, headers, tls=tls, proxy=channel.proxy)


def _model(channel: Channel, name: str) -> AnthropicModel:
    """What a model takes: as its name tells, with the channel's own settings over it."""
    own = channel.anthropic.models.get(name)
    known = model_of(name)
    if own is None:
        return known
    mine = {key: value for key, value in msgspec.structs.asdict(own).items() if value is not None}
    return msgspec.structs.replace(known, **mine)
