"""Kind ``anthropic``: Anthropic's Messages API, and other vendors who serve its dialect."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec
from yarl import URL

from server.anthropic_wire import (
    AnthropicModel,
    MessagesReader,
    anthropic_error,
    messages_request,
    model_of,
)
from server.chat import ChatRequest
from server.foreign import wrong
from server.settings import Channel
from server.upstreams.base import Call
from server.upstreams.http import HttpClient, Target
from server.upstreams.http_upstream import HttpUpstream, channel_target, with_own

BASE_URL = "https://api.anthropic.com"
_Name: TypeAlias = Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9_.-]{1,100}$")]


class AnthropicUpstream(HttpUpstream):
    """One channel of kind ``anthropic``; see ``HttpUpstream``."""

    read_refusal = staticmethod(anthropic_error)

    def __init__(self, channel: Channel, client: HttpClient) -> None:
        super().__init__(channel, client)
        self._target = messages_target(channel)
        self._models = {theirs: _model(channel, theirs) for theirs in self._names.values()}

    def target(self, chat: ChatRequest, call: Call) -> Target:
        """The same for every call, but for the features in test that a client names."""
        if not chat.has("anthropic_beta") or not self._channel.anthropic.pass_beta:
            return self._target
        return messages_target(self._channel, _named(chat))

    def body(self, chat: ChatRequest, call: Call) -> bytes:
        """What is sent for ``chat``. What had to be adapted is told, in names of fields alone."""
        if self._params is not None:
            chat = chat.edit(self._params.changes(chat))
        theirs = self._names.get(chat.model, chat.model)
        model = self._models.get(theirs)
        request = messages_request(chat, model or _model(self._channel, theirs), theirs)
        warnings = request.warnings
        if chat.has("anthropic_beta") and not self._channel.anthropic.pass_beta:
            warnings += ("the header anthropic-beta was left out",)
        if warnings:
            self._tell_adapted(call, warnings)
        return request.body

    def reader(self, *, stream: bool) -> MessagesReader:
        """It takes a stream and a whole message alike."""
        return MessagesReader()


def messages_target(channel: Channel, beta: tuple[str, ...] = ()) -> Target:
    """Where a channel's requests go, and the headers that go with each; ``beta`` as well as its own."""
    settings = channel.anthropic
    headers = {"anthropic-version": settings.version}
    if names := dict.fromkeys((*settings.beta, *beta)):
        headers["anthropic-beta"] = ",".join(names)
    if channel.api_key and settings.auth == "bearer":
        headers["Authorization"] = f"Bearer {channel.api_key}"
    elif channel.api_key:
        headers["x-api-key"] = channel.api_key
    url = URL((channel.base_url or BASE_URL).rstrip("/") + "/v1/messages")
    return channel_target(channel, url, headers)


def _named(chat: ChatRequest) -> tuple[str, ...]:
    """The features in test that the client names. Raises ``InvalidRequest`` for what is no list of names."""
    raw = chat.json.raw("anthropic_beta") or b"[]"
    try:
        return tuple(msgspec.json.decode(raw, type=list[_Name]))
    except msgspec.ValidationError:
        raise wrong("anthropic_beta", "must be a list of names", "invalid_type") from None


def _model(channel: Channel, name: str) -> AnthropicModel:
    """What a model takes: as its name tells, with the channel's own settings over it."""
    return with_own(model_of(name), channel.anthropic.models.get(name))
