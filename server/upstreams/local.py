"""Kind ``local``: the embedded model, which speaks OpenAI in a child process of ours.

What the child cannot do is refused before it is asked, in words of ours: it has no eyes, its template
ignores tools, and it gives one choice.

It is always asked for a stream: it computes a plain answer to its end even when nobody waits for it any
more. Asked for its progress too, it writes while it still reads the prompt, and so notices a closed
connection there; those chunks are for it, not for us. It closes a connection after each stream.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec
from yarl import URL

from server.chat import ChatRequest
from server.deltas import Batch
from server.errors import InvalidRequest
from server.settings import Channel
from server.upstreams.base import Call
from server.upstreams.http import HttpClient, Target
from server.upstreams.local_process import INSTALL, LocalProcess
from server.upstreams.openai import OpenAIUpstream, request_headers


class LocalUpstream:
    """One channel of kind ``local``. ``process`` is started at the first call; ``aclose`` ends it."""

    def __init__(self, channel: Channel, client: HttpClient, process: LocalProcess) -> None:
        self.name = channel.name
        self._channel = channel
        self._process = process
        self._openai = OpenAIUpstream(channel, client, find_target=self._find_target, mend=_mend)

    @property
    def unavailable(self) -> str | None:
        """What to install, if the engine or the model is missing."""
        if self._process.state == "absent":
            return f"The embedded model is not installed; run: {INSTALL}."
        return None

    async def stream(self, chat: ChatRequest, call: Call) -> AsyncGenerator[Batch, None]:
        """Yield the answer's batches; see ``upstreams.base.Upstream``."""
        _refuse_what_it_cannot(chat)
        chat = chat.with_values(stream=True, return_progress=True)
        async with aclosing(self._openai.stream(chat, call)) as batches:
            async for batch in batches:
                yield batch

    async def aclose(self) -> None:
        """End the child process."""
        await self._process.aclose()

    async def _find_target(self) -> Target:
        endpoint = await self._process.ready()
        headers = {**request_headers(self._channel, endpoint.key), "Connection": "close"}
        return Target(URL(f"{endpoint.base_url}/chat/completions"), headers)


def _mend(data: bytes) -> bytes | None:
    """A chunk without the engine's own figures; one that only tells of progress is dropped."""
    if b'"prompt_progress"' in data:
        return None
    if b'"timings"' in data:
        fields = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
        fields.pop("timings", None)
        return msgspec.json.encode(fields)
    return data


def _refuse_what_it_cannot(chat: ChatRequest) -> None:
    for place, message in enumerate(chat.messages):
        if isinstance(message.content, list) and any(
            part.type not in ("text", "refusal") for part in message.content
        ):
            raise InvalidRequest(
                "This model cannot see or hear; send text only, or ask a model with vision.",
                param=f"messages[{place}].content",
                code="unsupported_image",
            )
    for field, can in (("tools", not chat.fields.tools), ("n", chat.choices == 1)):
        if not can:
            raise InvalidRequest(
                f"This model does not take {field}; leave it out, or ask another model.",
                param=field,
                code="unsupported_parameter",
            )
