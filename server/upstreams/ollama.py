"""Kind ``ollama``: an Ollama in its own dialect, which knows the size of the context and how long to stay."""

from __future__ import annotations

import logging
import secrets
from collections.abc import AsyncGenerator
from contextlib import aclosing

from yarl import URL

from server.chat import ChatRequest
from server.deltas import Batch
from server.embeddings import EmbeddingsAsked
from server.errors import ServerError, UpstreamRefused
from server.foreign import NativeRequest
from server.ollama_wire import MAX_ANSWER_BYTES, OllamaReader, chat_request, ollama_error
from server.ollama_wire.embeddings import embed_request, read_embedded
from server.ollama_wire.errors import NOT_PULLED
from server.openai_wire import clean_error
from server.openai_wire.errors import clean
from server.settings import Channel
from server.sse import MAX_EVENT_BYTES
from server.surfaces import AnswerHead, SurfaceRequest
from server.upstreams.base import Call
from server.upstreams.exchange import secrets_of
from server.upstreams.http import HttpClient, Target, Uploader
from server.upstreams.http_upstream import channel_target
from server.upstreams.image_fitting import Bounds
from server.upstreams.image_source import ImageSource
from server.upstreams.inlining import InliningUpstream
from server.upstreams.ollama_pull import OllamaPulls
from server.upstreams.surfaces import EmbeddingsUpstream

log = logging.getLogger("antiphon.upstream")

BASE_URL = "http://127.0.0.1:11434"


class OllamaUpstream(InliningUpstream):
    """One channel of kind ``ollama``; see ``HttpUpstream``."""

    skips = "unreadable lines"
    read_refusal = staticmethod(ollama_error)
    bounds = Bounds(
        types=frozenset({"image/png", "image/jpeg"}),
        max_bytes=20 * 1024 * 1024,
        max_side=8192,
        max_pixels=8192 * 8192,
    )

    def __init__(self, channel: Channel, client: HttpClient, images: ImageSource, uploader: Uploader) -> None:
        super().__init__(channel, client, images, lambda url: False)
        self._target = ollama_target(channel, "/api/chat")
        self._pulls: OllamaPulls | None = None
        if channel.ollama.pull:
            self._pulls = OllamaPulls(channel.name, client, ollama_target(channel, "/api/pull"))
        self.surfaces = _OllamaEmbeddings(channel, client, uploader, self._pulls)

    def stream(self, chat: ChatRequest, call: Call) -> AsyncGenerator[Batch, None]:
        """Yield the answer's batches; see ``upstreams.base.Upstream``."""
        if self._pulls is None or not chat.stream:
            return super().stream(chat, call)
        return self._stream_of_pulled(self._pulls, chat, call)

    async def whole(self, chat: ChatRequest, call: Call) -> Batch:
        """The answer to a plain request, as one batch; see ``upstreams.base.whole``."""
        if self._pulls is None:
            return await super().whole(chat, call)
        try:
            return await super().whole(chat, call)
        except UpstreamRefused as error:
            await self._pull(self._pulls, chat, call, error)
        return await super().whole(chat, call)

    async def _stream_of_pulled(
        self, pulls: OllamaPulls, chat: ChatRequest, call: Call
    ) -> AsyncGenerator[Batch, None]:
        try:
            async with aclosing(super().stream(chat, call)) as batches:
                async for batch in batches:
                    yield batch
            return
        except UpstreamRefused as error:  # its status, so nothing was said yet
            await self._pull(pulls, chat, call, error)
        async with aclosing(super().stream(chat, call)) as batches:
            async for batch in batches:
                yield batch

    async def _pull(self, pulls: OllamaPulls, chat: ChatRequest, call: Call, error: UpstreamRefused) -> None:
        """Have the model pulled if that is what was missing; else raise the error again."""
        if error.upstream_code != NOT_PULLED:
            raise error
        try:
            theirs = self._names.get(chat.model, chat.model)
            await pulls.pull(theirs, self._timeouts.of(call), call.deadline)
        except ServerError as failure:
            raise self._told(failure, chat.model) from failure

    def target(self, chat: ChatRequest, call: Call) -> Target:
        """The same for every call."""
        return self._target

    def in_dialect(self, chat: ChatRequest) -> NativeRequest:
        """As the server takes it."""
        return chat_request(chat, self._channel.ollama, self._names.get(chat.model, chat.model))

    def reader(self, *, stream: bool) -> OllamaReader:
        """It takes lines and a whole answer alike."""
        most = MAX_EVENT_BYTES if stream else MAX_ANSWER_BYTES
        return OllamaReader(secrets.token_hex(8), line_bytes=most)

    def explained(self, error: ServerError) -> ServerError:
        """A model that is not pulled is the operator's trouble, who is told."""
        return _explained(error, self._channel)


class _OllamaEmbeddings(EmbeddingsUpstream):
    """Embeddings by ``/api/embed``."""

    read_refusal = staticmethod(ollama_error)

    def __init__(
        self, channel: Channel, client: HttpClient, uploader: Uploader, pulls: OllamaPulls | None
    ) -> None:
        super().__init__(channel, client, uploader)
        self._target = ollama_target(channel, "/api/embed")
        self._pulls = pulls

    async def ask(
        self, request: SurfaceRequest, model: str, call: Call
    ) -> AsyncGenerator[AnswerHead | bytes, None]:
        """See ``SurfaceUpstream``; a model that is missing is pulled where the channel wants it so."""
        try:
            async with aclosing(super().ask(request, model, call)) as answer:
                async for one in answer:
                    yield one
            return
        except UpstreamRefused as error:  # its status, so nothing was answered yet
            if self._pulls is None or error.upstream_code != NOT_PULLED:
                raise
        theirs = self._names.get(model, model)
        try:
            await self._pulls.pull(theirs, self._timeouts.of(call), call.deadline)
        except ServerError as failure:
            clean_error(self.explained(failure), secrets=self.secrets(), names={theirs: model})
            raise
        async with aclosing(super().ask(request, model, call)) as answer:
            async for one in answer:
                yield one

    def target(self, request: SurfaceRequest, theirs: str) -> Target:
        """The same for every call."""
        return self._target

    def in_dialect(self, asked: EmbeddingsAsked, theirs: str) -> NativeRequest:
        """See ``EmbeddingsUpstream``."""
        return embed_request(asked, self._channel.ollama, theirs)

    def read_vectors(self, body: bytes) -> tuple[list[bytes], int | None]:
        """See ``EmbeddingsUpstream``."""
        return read_embedded(body)

    def explained(self, error: ServerError) -> ServerError:
        """See ``OllamaUpstream``."""
        return _explained(error, self._channel)


def _explained(error: ServerError, channel: Channel) -> ServerError:
    if error.upstream_code == NOT_PULLED:
        said = clean(error.upstream_said, secrets=secrets_of(channel))
        log.warning("channel %s: a model is not pulled: %s", channel.name, said)
    return error


def ollama_target(channel: Channel, path: str) -> Target:
    """Where a channel's requests go; a key is sent as a bearer, which proxies before it may want."""
    url = URL((channel.base_url or BASE_URL).rstrip("/") + path)
    headers = {"Authorization": f"Bearer {channel.api_key}"} if channel.api_key else {}
    return channel_target(channel, url, headers)
