"""Kind ``anthropic``: Anthropic's Messages API, and other vendors who serve its dialect."""

from __future__ import annotations

from yarl import URL

from server.anthropic_wire import (
    AnthropicModel,
    MessagesReader,
    anthropic_error,
    messages_request,
    model_of,
)
from server.chat import ChatRequest
from server.settings import Channel
from server.upstreams.base import Call
from server.upstreams.http import HttpClient, Target
from server.upstreams.http_upstream import HttpUpstream, channel_target, with_own

BASE_URL = "https://api.anthropic.com"


class AnthropicUpstream(HttpUpstream):
    """One channel of kind ``anthropic``; see ``HttpUpstream``."""

    read_refusal = staticmethod(anthropic_error)

    def __init__(self, channel: Channel, client: HttpClient) -> None:
        super().__init__(channel, client)
        self._target = messages_target(channel)
        self._models = {theirs: _model(channel, theirs) for theirs in self._names.values()}

    def target(self, chat: ChatRequest, call: Call) -> Target:
        """The same for every call."""
        return self._target

    def body(self, chat: ChatRequest, call: Call) -> bytes:
        """What is sent for ``chat``. What had to be adapted is told, in names of fields alone."""
        if self._params is not None:
            chat = chat.edit(self._params.changes(chat))
        theirs = self._names.get(chat.model, chat.model)
        model = self._models.get(theirs)
        request = messages_request(chat, model or _model(self._channel, theirs), theirs)
        if request.warnings:
            self._tell_adapted(call, request.warnings)
        return request.body

    def reader(self, *, stream: bool) -> MessagesReader:
        """It takes a stream and a whole message alike."""
        return MessagesReader()


def messages_target(channel: Channel) -> Target:
    """Where a channel's requests go, and the headers that go with each."""
    settings = channel.anthropic
    headers = {"anthropic-version": settings.version}
    if settings.beta:
        headers["anthropic-beta"] = ",".join(settings.beta)
    if channel.api_key and settings.auth == "bearer":
        headers["Authorization"] = f"Bearer {channel.api_key}"
    elif channel.api_key:
        headers["x-api-key"] = channel.api_key
    url = URL((channel.base_url or BASE_URL).rstrip("/") + "/v1/messages")
    return channel_target(channel, url, headers)


def _model(channel: Channel, name: str) -> AnthropicModel:
    """What a model takes: as its name tells, with the channel's own settings over it."""
    return with_own(model_of(name), channel.anthropic.models.get(name))
