"""One HTTP request to an upstream and what comes back, within its clocks; whatever the dialect."""

from __future__ import annotations

import asyncio
import re
import time
from typing import Protocol

from server.anthropic_wire import limit_reset
from server.errors import ServerError, UpstreamError, UpstreamInvalid
from server.openai_wire import MAX_ANSWER_BYTES, retry_after
from server.settings import Channel
from server.surfaces import Upload
from server.upstreams.clocks import Clocks
from server.upstreams.http import Again, HttpAnswer, HttpClient, Target, Uploader, nobody_counts

MAX_ERROR_BYTES = 64 * 1024
# The status tells the most; so long is waited for the words that go with it. (seconds)
ERROR_BODY_S = 5.0
# After the last event the end of the body is on its way; this long is waited for it, so that the connection
# can be used again. (seconds)
DRAIN_S = 0.05
# A header's value of this length is taken for a secret, whatever its name. (characters)
LONG_VALUE = 16
_SECRET_NAME = re.compile("auth|key|token|secret|cookie|password", re.IGNORECASE)


class ReadRefusal(Protocol):
    """Makes a dialect's refusal one of our errors; ``wait_s`` is its Retry-After, in seconds."""

    def __call__(self, status: int, body: bytes, *, wait_s: float | None = None) -> ServerError: ...


class Exchange:
    """One request and what comes back, within its clocks. ``end`` it, whatever happens."""

    __slots__ = ("_again", "_answer", "_client", "_connect_s", "_read_refusal", "clocks")

    def __init__(
        self,
        client: HttpClient,
        connect_s: float,
        clocks: Clocks,
        read_refusal: ReadRefusal,
        again: Again = nobody_counts,
    ) -> None:
        self._again = again
        self._client = client
        self._connect_s = connect_s
        self._read_refusal = read_refusal
        self._answer: HttpAnswer | None = None
        self.clocks = clocks

    async def begin(self, target: Target, body: bytes) -> HttpAnswer:
        """Send the request. Raises what its refusal means, and whatever ``HttpClient.post`` raises."""
        watch = self.clocks.watch
        answer = self._answer = await self._client.post(
            target, body, connect_s=self._connect_s, watch=watch, again=self._again
        )
        watch(answer.fail)
        self.clocks.head_came()
        if not 200 <= answer.status < 300:
            raise await refusal_of(answer, self._read_refusal)
        return answer

    async def begin_upload(self, uploader: Uploader, target: Target, body: Upload) -> HttpAnswer:
        """As ``begin``, with a body that is read while it is sent."""
        watch = self.clocks.watch
        answer = self._answer = await uploader.upload(target, body, connect_s=self._connect_s, watch=watch)
        watch(answer.fail)
        self.clocks.head_came()
        if not 200 <= answer.status < 300:
            raise await refusal_of(answer, self._read_refusal)
        return answer

    def end(self) -> None:
        """Let go of connection and timer."""
        self.clocks.stop()
        if self._answer is not None:
            self._answer.close()


async def refusal_of(answer: HttpAnswer, read: ReadRefusal, *, within_s: float = ERROR_BODY_S) -> ServerError:
    """A status other than 2xx as one of our errors; of its body is read what comes soon, and not much."""
    if answer.status < 400:
        return UpstreamInvalid("The upstream redirects; put its real address into base_url.")
    body = b""
    try:
        async with asyncio.timeout(within_s):
            while len(body) < MAX_ERROR_BYTES and (data := await answer.read()):
                body += data
    except (UpstreamError, TimeoutError):
        pass  # the status alone must do
    wait_s = retry_after(answer.headers, now=time.time)
    if wait_s is None and answer.status == 429:
        wait_s = limit_reset(answer.headers, now=time.time)
    return read(answer.status, body, wait_s=wait_s)


def secrets_of(channel: Channel) -> tuple[str, ...]:
    """What an upstream may not echo to a client: the key, and headers that are one by their name or looks."""
    values = [channel.api_key or ""]
    for name, value in channel.headers.items():
        if len(value) >= LONG_VALUE or _SECRET_NAME.search(name):
            values += [value, *value.split()[1:]]  # also without a scheme before it
    return tuple(filter(None, values))


async def rest(answer: HttpAnswer, data: bytes) -> bytes:
    """A body to its end, of which ``data`` has come. Raises ``UpstreamInvalid`` if it is far too long."""
    pieces = [data]
    size = len(data)
    while piece := await answer.read():
        pieces.append(piece)
        size += len(piece)
        if size > MAX_ANSWER_BYTES:
            raise UpstreamInvalid("The upstream's answer is far too long.")
    return b"".join(pieces)


async def drain(answer: HttpAnswer) -> None:
    """Read the end of a body that has said all, so that its connection can be used again."""
    if answer.at_end:
        return
    try:
        async with asyncio.timeout(DRAIN_S):
            while await answer.read():
                pass
    except (TimeoutError, UpstreamError):
        pass  # the answer is whole; only the connection is lost
