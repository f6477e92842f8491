"""Kind ``local``: the embedded model, which speaks OpenAI in a child process of ours.

What the child cannot do is refused before it is asked, in words of ours: it has no eyes, its template
ignores tools, it gives one choice, and it knows the roles of OpenAI alone. What it refuses itself is told in
our words too. A request that sets no limit gets one: so small a model may talk until its context is full.

It is always asked for a stream: it computes a plain answer to its end even when nobody waits for it any
more. Asked for its progress too, it writes while it still reads the prompt, and so notices a closed
connection there; those chunks are for it, not for us. It closes a connection after each stream.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec
from yarl import URL

from server.chat import ChatRequest
from server.deltas import Batch
from server.errors import InvalidRequest, ServerError, UpstreamRefused
from server.settings import Channel
from server.upstreams.base import Call
from server.upstreams.http import HttpClient, Target
from server.upstreams.http_upstream import channel_target
from server.upstreams.local_process import LocalProcess
from server.upstreams.openai import OpenAIUpstream, auth_headers

ROLES = ("system", "developer", "user", "assistant", "tool", "function")

ANSWER_TOKENS = 1024
"""How long an answer may be, in tokens, if nobody says so; at most half of the context."""

_JARGON = re.compile(
    r"\[json\.exception[^\]]*\]\s*|^Field '[^']*':\s*|^.*Automatic parser generation failed:\s*"
)
_LIMITS = ("max_tokens", "max_completion_tokens")


class LocalUpstream:
    """One channel of kind ``local``. ``process`` is started at the first call; ``aclose`` ends it."""

    def __init__(self, channel: Channel, client: HttpClient, process: LocalProcess) -> None:
        self.name = channel.name
        self._channel = channel
        self._process = process
        limited = _with_limit(channel)
        self._openai = OpenAIUpstream(limited, client, find_target=self._find_target, mend=_mend)

    @property
    def unavailable(self) -> str | None:
        """What to install, if the engine or the model is missing."""
        return self._process.absent

    async def check(self) -> None:
        """Try whether the engine can be loaded; ``unavailable`` tells."""
        await self._process.check()

    async def stream(self, chat: ChatRequest, call: Call) -> AsyncGenerator[Batch, None]:
        """Yield the answer's batches; see ``upstreams.base.Upstream``."""
        refuse_what_it_cannot(chat)
        chat = chat.with_values(stream=True, return_progress=True)
        with self._process.call():
            try:
                async with aclosing(self._openai.stream(chat, call)) as batches:
                    async for batch in batches:
                        yield batch
            except UpstreamRefused as error:
                raise _in_our_words(error, chat) from None

    async def aclose(self) -> None:
        """End the child process."""
        await self._process.aclose()

    async def _find_target(self) -> Target:
        endpoint = await self._process.ready()
        headers = {**auth_headers(self._channel, endpoint.key), "Connection": "close"}
        return channel_target(self._channel, URL(f"{endpoint.base_url}/chat/completions"), headers)


def _mend(data: bytes) -> bytes | None:
    """A chunk without the engine's own figures; one that only tells of progress is dropped."""
    if b'"prompt_progress"' in data:
        return None
    if b'"timings"' in data:
        fields = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
        fields.pop("timings", None)
        return msgspec.json.encode(fields)
    return data


def refuse_what_it_cannot(chat: ChatRequest) -> None:
    """Raise ``InvalidRequest`` for what the embedded model has no means for."""
    for place, message in enumerate(chat.messages):
        if message.role not in ROLES:
            raise InvalidRequest(
                f"This model knows no such role; use one of {', '.join(ROLES)}.",
                param=f"messages[{place}].role",
            )
        if isinstance(message.content, list) and any(
            part.type not in ("text", "refusal") for part in message.content
        ):
            raise InvalidRequest(
                "This model cannot see or hear; send text only, or ask a model with vision.",
                param=f"messages[{place}].content",
                code="unsupported_image",
            )
    last = chat.messages[-1]
    if last.role == "assistant" and not last.content:
        raise InvalidRequest(
            "The last message is the assistant's and says nothing that this model could go on from; "
            "leave it out, or give it text.",
            param=f"messages[{len(chat.messages) - 1}].content",
        )
    if (limit := chat.max_tokens) is not None and limit < 0:
        field = "max_tokens" if chat.fields.max_completion_tokens is None else "max_completion_tokens"
        raise InvalidRequest(f"{field} must not be below 0.", param=field)
    if chat.has("n_predict"):
        raise InvalidRequest(
            "n_predict is not taken here; use max_tokens.", param="n_predict", code="unsupported_parameter"
        )
    for field, can in (("tools", not chat.fields.tools), ("n", chat.choices == 1)):
        if not can:
            raise InvalidRequest(
                f"This model does not take {field}; leave it out, or ask another model.",
                param=field,
                code="unsupported_parameter",
            )


def _with_limit(channel: Channel) -> Channel:
    """The channel with a default limit of the answer's length, unless its rules have one."""
    rules = channel.params
    if any(name in rules.default or name in rules.set for name in _LIMITS):
        return channel
    default = {**rules.default, "max_tokens": min(ANSWER_TOKENS, max(1, channel.context // 2))}
    return msgspec.structs.replace(channel, params=msgspec.structs.replace(rules, default=default))


def _in_our_words(error: UpstreamRefused, chat: ChatRequest) -> ServerError:
    """llama.cpp's refusal without its jargon, naming the field if its words do; others stay as they are."""
    if error.code is None or not error.code.isdigit():
        return error  # too long a prompt has words of its own already
    words = set(re.findall(r"\w+", error.message))
    if "JSON schema" in error.message:
        words.add("response_format")
    field = next((name for name in chat.json if name in words and name != "model"), None)
    what = _JARGON.sub("", error.message).strip().rstrip(".")
    return InvalidRequest(f"The embedded model cannot take {field or 'this request'}: {what}.", param=field)
