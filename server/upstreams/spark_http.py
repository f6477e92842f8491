"""Preset ``spark-http``: Spark's HTTP routes, which speak OpenAI's chat completions with an accent.

What its answers lack (finish reasons, ids, lists of tool calls) is mended for every upstream. Here: turns as
Spark takes them, the switch that gives tool calls as a list, and errors, told by Spark's own codes whatever
the status.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec

from server.chat import ChatRequest, Message
from server.deltas import Batch, Finished, has_content
from server.errors import ContentFiltered, ServerError
from server.spark.codes import frame_error
from server.upstreams.base import Call
from server.upstreams.openai import OpenAIUpstream

_CODE = re.compile(r"1[01]\d{3}")
_SID = re.compile(r"\bsid: *([\w@-]+)")


class SparkHttpUpstream(OpenAIUpstream):
    """One channel with this preset; else as ``OpenAIUpstream``."""

    async def stream(self, chat: ChatRequest, call: Call) -> AsyncGenerator[Batch, None]:
        """Yield the answer's batches; see ``upstreams.base.Upstream``. Where moderation cuts it, it ends."""
        spoken = False
        try:
            async with aclosing(super().stream(chat, call)) as batches:
                async for batch in batches:
                    spoken = spoken or has_content(batch)
                    yield batch
        except ContentFiltered:
            if not spoken:
                raise
            yield [Finished("content_filter")]

    def body(self, chat: ChatRequest, call: Call) -> bytes:
        """The request's bytes: contents as strings; with tools, their calls are asked for as a list."""
        if any(_is_foreign(message) for message in chat.messages):
            turns = zip(chat.raw_messages(), chat.messages, strict=True)
            chat = chat.with_messages([_plain(raw, message) for raw, message in turns])
        if chat.has("tools") and not chat.has("tool_calls_switch"):
            chat = chat.with_values(tool_calls_switch=True)
        return super().body(chat, call)

    def explained(self, error: ServerError) -> ServerError:
        """The same by Spark's code, if it has one: its statuses say 500 for a quota that is spent."""
        if not _CODE.fullmatch(error.upstream_code):
            return error
        sid = _SID.search(error.upstream_said)
        told = frame_error(int(error.upstream_code), error.upstream_said, sid[1] if sid else "")
        told.upstream_status = error.upstream_status
        return told


def _is_foreign(message: Message) -> bool:
    """Is it a turn that Spark refuses (10003), but could be told?

    A turn with more than text stays as it came: it is Spark's to say whether a model takes it.
    """
    parts = message.content
    in_parts = isinstance(parts, list) and bool(parts) and all(part.type == "text" for part in parts)
    return in_parts or message.role == "developer"


def _plain(raw: bytes, message: Message) -> bytes:
    """The turn's JSON with its text as one string, and the role system for a developer."""
    if not _is_foreign(message):
        return raw
    turn = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    if isinstance(message.content, list) and all(part.type == "text" for part in message.content):
        turn["content"] = msgspec.Raw(msgspec.json.encode(message.text))
    if message.role == "developer":
        turn["role"] = msgspec.Raw(b'"system"')
    return msgspec.json.encode(turn)
