"""Kind ``openai``: any server that speaks OpenAI's chat completions."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
from yarl import URL

from server.chat import ChatRequest
from server.deltas import Delta
from server.errors import ServerError
from server.openai_wire import AnswerReader, decode_whole, narrowed, upstream_error
from server.presets import base_url_of, preset_of, usage_of
from server.settings import Channel
from server.upstreams.base import Call, SurfaceCaller
from server.upstreams.exchange import rest
from server.upstreams.http import HttpAnswer, HttpClient, Target
from server.upstreams.http_upstream import LARGE_BYTES, HttpUpstream, channel_target
from server.upstreams.preset_rules import PresetRules, fit

CHAT_PATH = "/chat/completions"
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
        preset = preset_of(channel)
        self._usage = usage_of(channel)
        self._preset = PresetRules(preset) if channel.preset is not None or preset.models else None
        self._stops_at_calls = preset.stops_at_calls
        self._find_target = find_target
        self.surfaces = surfaces
        self._mend = self._preset.mend if self._preset is not None and self._preset.mends else mend
        # By how deep a call is, and the path of models that have one of their own.
        self._targets = {} if find_target else {(0, CHAT_PATH): fixed_target(channel)}

    def target(self, chat: ChatRequest, call: Call) -> Target | Awaitable[Target]:
        """Where this call goes. From within combinations it says so, lest servers ask each other for ever."""
        if self._find_target is not None:
            return self._find_target()
        path = CHAT_PATH if self._preset is None else self._preset.of(self._their_name(chat)).path
        target = self._targets.get((call.depth, path))
        if target is None:
            target = self._targets[call.depth, path] = fixed_target(self._channel, call.depth, path)
        return target

    def reader(self, *, stream: bool) -> AnswerReader:
        """For chunks and completions, whichever comes."""
        return AnswerReader(stream=stream, mend=self._mend, stops_at_calls=self._stops_at_calls)

    def read_at_once(self, data: bytes) -> list[Delta] | None:
        """A completion, which nearly all answers are."""
        return self._decode(data) if data.startswith(b"{") else None

    def explained(self, error: ServerError) -> ServerError:
        """By the preset's codes."""
        return error if self._preset is None else self._preset.explained(error)

    async def _read_whole(self, answer: HttpAnswer, data: bytes) -> list[Delta]:
        if data.startswith(b"{"):
            whole = await rest(answer, data)
            large = len(whole) > LARGE_BYTES
            return await asyncio.to_thread(self._decode, whole) if large else self._decode(whole)
        return await super()._read_whole(answer, data)

    def _decode(self, data: bytes) -> list[Delta]:
        mended = data if self._mend is None else self._mend(data) or data
        return decode_whole(mended, stops_at_calls=self._stops_at_calls)

    def _their_name(self, chat: ChatRequest) -> str:
        return self._names.get(chat.model, chat.model)

    def body(self, chat: ChatRequest, call: Call) -> bytes:
        """The request's bytes for this upstream: its own model name, usage asked for, the channel's rules."""
        theirs = self._their_name(chat)
        warnings: tuple[str, ...] = ()
        if chat.wide:
            chat, warnings = narrowed(chat)
        changes: dict[str, bytes | None] = {} if self._params is None else self._params.changes(chat)
        if self._preset is not None:
            asks = self._usage == "ask"
            chat, more = fit(chat.edit(changes), self._preset.of(theirs), ask_usage=asks)
            changes, warnings = {}, warnings + more
        if warnings:
            self._tell_adapted(call, warnings)
        if theirs != chat.model:
            changes["model"] = msgspec.json.encode(theirs)
        for field in OURS:
            if field in chat.json:
                changes[field] = None
        if self._usage == "refused":
            changes["stream_options"] = None
        elif self._usage == "ask" and chat.stream and not chat.include_usage:
            changes["stream_options"] = _ask_usage(chat)
        return chat.json.edit(changes) if changes else chat.body


def fixed_target(channel: Channel, depth: int = 0, path: str = CHAT_PATH) -> Target:
    """Where a channel's chat requests go. A base URL that already names the endpoint is taken whole.

    ``depth`` is told if a request comes from within so many combinations.
    """
    base = base_url_of(channel)
    path = "" if base.endswith(CHAT_PATH) else path
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
