"""Kind ``openai``: any server that speaks OpenAI's chat completions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec
from yarl import URL

from server.chat import ChatRequest
from server.deltas import Delta
from server.openai_wire import AnswerReader, decode_whole, narrowed, upstream_error
from server.settings import Channel
from server.upstreams.base import Call, SurfaceCaller
from server.upstreams.exchange import rest
from server.upstreams.http import HttpAnswer, HttpClient, Target
from server.upstreams.http_upstream import HttpUpstream, channel_target

# Fields that are between the client and us.
OURS = ("antiphon", "conversation_id")


class OpenAIUpstream(HttpUpstream):
    """One channel of kind ``openai``; see ``HttpUpstream``.

    ``find_target`` is awaited before each call where the address is not fixed (the embedded model); ``mend``
    repairs each event's data, or drops it by giving None. ``surfaces`` takes what is no chat.
    """

    skips = "unreadable lines"
    read_refusal = staticmethod(upstream_error)

    def __init__(
        self,
        channel: Channel,
        client: HttpClient,
        *,
        find_target: Callable[[], Awaitable[Target]] | None = None,
        mend: Callable[[bytes], bytes | None] | None = None,
        surfaces: SurfaceCaller | None = None,
    ) -> None:
        super().__init__(channel, client)
        self._find_target = find_target
        self.surfaces = surfaces
        self._mend = mend
        self._targets = {} if find_target else {0: fixed_target(channel)}  # by how deep a call is

    def target(self, chat: ChatRequest, call: Call) -> Target | Awaitable[Target]:
        """Where this call goes. From within combinations it says so, lest servers ask each other for ever."""
        if self._find_target is not None:
            return self._find_target()
        target = self._targets.get(call.depth)
        if target is None:
            target = self._targets[call.depth] = fixed_target(self._channel, call.depth)
        return target

    def reader(self, *, stream: bool) -> AnswerReader:
        """For chunks and completions, whichever comes."""
        return AnswerReader(stream=stream, mend=self._mend)

    def read_at_once(self, data: bytes) -> list[Delta] | None:
        """A completion, which nearly all answers are."""
        return decode_whole(data) if data.startswith(b"{") else None

    async def _read_whole(self, answer: HttpAnswer, data: bytes) -> list[Delta]:
        if data.startswith(b"{"):
            return decode_whole(await rest(answer, data))
        return await super()._read_whole(answer, data)

    def body(self, chat: ChatRequest, call: Call) -> bytes:
        """The request's bytes for this upstream: its own model name, usage asked for, the channel's rules."""
        if chat.wide:
            chat, warnings = narrowed(chat)
            if warnings:
                call.warnings = (self.name, warnings)
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


def fixed_target(channel: Channel, depth: int = 0) -> Target:
    """Where a channel's chat requests go. A base URL that already names the endpoint is taken whole.

    ``depth`` is told if a request comes from within so many combinations.
    """
    base = (channel.base_url or "").rstrip("/")
    path = "" if base.endswith("/chat/completions") else "/chat/completions"
    headers = auth_headers(channel, channel.api_key)
    if depth:
        headers["X-Antiphon-Depth"] = str(depth)
    return channel_target(channel, URL(base + path), headers)


def auth_headers(channel: Channel, key: str | None) -> dict[str, str]:
    """The header that carries the key, if there is one."""
    if not key or channel.auth == "none":
        return {}
    return {"Authorization": f"Bearer {key}"} if channel.auth == "bearer" else {channel.auth: key}


def _ask_usage(chat: ChatRequest) -> bytes:
    options = chat.json.raw("stream_options")
    if options is None or not options.startswith(b"{"):
        return b'{"include_usage":true}'
    fields = msgspec.json.decode(options, type=dict[str, msgspec.Raw])
    return msgspec.json.encode(fields | {"include_usage": True})
