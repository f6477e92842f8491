"""Kind ``openai``: any server that speaks OpenAI's chat completions, over aiohttp's client."""

from __future__ import annotations

import asyncio
import functools
import logging
import ssl
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping

import aiohttp
import msgspec
from aiohttp import ClientResponse, ClientSession, ClientTimeout
from yarl import URL

from server.chat import ChatRequest
from server.deltas import Batch, has_content
from server.errors import ServerError, UpstreamCut, UpstreamInvalid, UpstreamTimeout, UpstreamUnreachable
from server.openai_wire import AnswerReader, clean, retry_after, upstream_error
from server.settings import Channel, Timeouts
from server.upstreams.base import Call
from server.upstreams.clocks import Clocks

log = logging.getLogger("antiphon.upstream")

MAX_ERROR_BYTES = 64 * 1024
# After [DONE] the end of the body is on its way; this long is waited for it, so that the connection can be
# used again. (seconds)
DRAIN_S = 0.05
# Fields that are between the client and us.
OURS = ("antiphon", "conversation_id")


class Target(msgspec.Struct, frozen=True):
    """Where requests go, and what goes with each."""

    url: URL
    headers: Mapping[str, str]


class OpenAIUpstream:
    """One channel of kind ``openai``. The session is shared and closed by its owner.

    ``find_target`` is awaited before each call where the address is not fixed (the embedded model); ``mend``
    repairs each event's data, or drops it by giving None.
    """

    def __init__(
        self,
        channel: Channel,
        session: ClientSession,
        *,
        find_target: Callable[[], Awaitable[Target]] | None = None,
        mend: Callable[[bytes], bytes | None] | None = None,
    ) -> None:
        self.name = channel.name
        self._channel = channel
        self._session = session
        self._find_target = find_target or self._fixed
        self._mend = mend
        self._target = None if find_target else fixed_target(channel)
        self._timeouts = channel.timeouts.over(Timeouts())
        self._names = {name: model.model or name for name, model in channel.served().items()}
        self._ssl = tls_context(channel)
        self._secrets = tuple(filter(None, (channel.api_key, *channel.headers.values())))

    @property
    def unavailable(self) -> str | None:
        """Always None: whether a server answers is only known by asking it."""
        return None

    async def stream(self, chat: ChatRequest, call: Call) -> AsyncGenerator[Batch, None]:
        """Yield the answer's batches; see ``upstreams.base.Upstream``."""
        target = self._target or await self._find_target()
        timeouts = call.timeouts or self._timeouts
        clocks = Clocks(timeouts, plain=not chat.stream, deadline=call.deadline)
        reader = AnswerReader(stream=chat.stream, mend=self._mend)
        response: ClientResponse | None = None
        try:
            async with asyncio.timeout_at(clocks.head_by):
                response = await self._post(target, self.body(chat), timeouts)
                if not 200 <= response.status < 300:
                    raise await self._refusal(response)
            content = response.content
            clocks.watch(content.set_exception)
            spoken = False
            while not reader.done:
                data = await content.readany()
                if not data:
                    break
                deltas = reader.feed(data)
                if deltas:
                    if spoken:
                        clocks.heard()
                    elif spoken := has_content(deltas):
                        clocks.spoken()
                    yield deltas
                elif not data.startswith(b":"):  # an upstream's comments do not feed the idle clock
                    clocks.heard()
            yield reader.eof()
            await _drain(response)
        except ServerError as error:
            names = {self._names.get(chat.model, chat.model): chat.model}
            error.message = clean(error.message, secrets=self._secrets, names=names)
            raise
        except TimeoutError as error:  # ours; those of the client were caught where they arise
            raise clocks.error() from error
        except (aiohttp.ClientError, OSError) as error:
            raise UpstreamCut("The upstream's answer was cut off before its end; try again.") from error
        finally:
            clocks.stop()
            if reader.skipped:
                log.warning("channel %s: %d unreadable lines skipped", self.name, reader.skipped)
            if response is not None and not response.closed:
                if response.content.at_eof():
                    response.release()
                else:
                    response.close()

    async def aclose(self) -> None:
        """Nothing is kept open beyond the calls; the session belongs to its owner."""

    def body(self, chat: ChatRequest) -> bytes:
        """The request's bytes for this upstream: its own model name, and usage asked for; else as it came."""
        changes: dict[str, bytes | None] = {}
        theirs = self._names.get(chat.model, chat.model)
        if theirs != chat.model:
            changes["model"] = msgspec.json.encode(theirs)
        changes |= {field: None for field in OURS if field in chat.json}
        if self._channel.stream_usage == "refused":
            changes["stream_options"] = None
        elif self._channel.stream_usage == "ask" and chat.stream and not chat.include_usage:
            changes["stream_options"] = _ask_usage(chat)
        return chat.json.edit(changes) if changes else chat.body

    async def _fixed(self) -> Target:
        return fixed_target(self._channel)

    async def _post(self, target: Target, body: bytes, timeouts: Timeouts) -> ClientResponse:
        """Send one request; the answer's head has come when this returns."""
        try:
            return await self._session.request(
                "POST",
                target.url,
                data=body,
                headers=target.headers,
                allow_redirects=False,
                ssl=self._ssl,
                proxy=self._channel.proxy,
                timeout=_client_timeout(timeouts.connect_s),
            )
        except aiohttp.ServerTimeoutError as error:
            raise UpstreamTimeout("connect", timeouts.connect_s) from error
        except aiohttp.ServerDisconnectedError as error:
            raise UpstreamUnreachable("The upstream closed the connection before it answered.") from error
        except (aiohttp.ClientResponseError, aiohttp.ClientPayloadError) as error:
            raise UpstreamInvalid("The upstream's answer is not HTTP that can be read.") from error
        except (aiohttp.ClientConnectionError, ConnectionError) as error:
            raise UpstreamUnreachable(
                "The upstream cannot be reached; check address, DNS, TLS and proxy of the channel."
            ) from error

    async def _refusal(self, response: ClientResponse) -> ServerError:
        """A status other than 2xx as one of our errors; a bounded part of its body is read."""
        if response.status < 400:
            return UpstreamInvalid("The upstream redirects; put its real address into base_url.")
        body = b""
        try:
            while len(body) < MAX_ERROR_BYTES and (data := await response.content.readany()):
                body += data
        except aiohttp.ClientError:
            pass  # the status alone must do
        wait_s = retry_after(response.headers, now=time.time)
        return upstream_error(response.status, body, wait_s=wait_s)


def fixed_target(channel: Channel) -> Target:
    """Where a channel's chat requests go. A base URL that already names the endpoint is taken whole."""
    base = (channel.base_url or "").rstrip("/")
    path = "" if base.endswith("/chat/completions") else "/chat/completions"
    return Target(URL(base + path), request_headers(channel))


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
    return headers | channel.headers


def tls_context(channel: Channel) -> ssl.SSLContext | bool:
    """What verifies the upstream's certificate: True for the system's own rules."""
    tls = channel.tls
    if not (tls.ca_file or tls.cert_file) and tls.verify:
        return True
    context = ssl.create_default_context(cafile=tls.ca_file)
    if tls.cert_file:
        context.load_cert_chain(tls.cert_file, tls.key_file)
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


@functools.lru_cache(maxsize=64)
def _client_timeout(connect_s: float) -> ClientTimeout:
    """Only the connect clock is the client's; a healthy long stream is never cut by one of its defaults."""
    return ClientTimeout(
        total=None, connect=connect_s or None, sock_connect=connect_s or None, sock_read=None
    )


def _ask_usage(chat: ChatRequest) -> bytes:
    options = chat.json.raw("stream_options")
    if options is None or not options.startswith(b"{"):
        return b'{"include_usage":true}'
    fields = msgspec.json.decode(options, type=dict[str, msgspec.Raw])
    return msgspec.json.encode(fields | {"include_usage": True})


async def _drain(response: ClientResponse) -> None:
    """Read the end of a body that has said all, so that its connection returns to the pool."""
    if response.content.at_eof():
        return
    try:
        async with asyncio.timeout(DRAIN_S):
            while await response.content.readany():
                pass
    except (TimeoutError, aiohttp.ClientError):
        response.close()  # the answer is whole; only the connection is lost
