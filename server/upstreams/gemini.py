"""Kind ``gemini``: Google's Gemini API in its own dialect."""

from __future__ import annotations

import re
import secrets
import time
from functools import partial

from yarl import URL

from server.chat import ChatRequest, JsonObject
from server.embeddings import EmbeddingsAsked
from server.errors import SurfaceNotOffered
from server.foreign import NativeRequest
from server.gemini_wire import GeminiModel, GeminiReader, gemini_error, generate_request, model_of
from server.gemini_wire.embeddings import embed_request, read_embedded
from server.gemini_wire.images import image_request, read_image
from server.settings import Channel
from server.surfaces import SurfaceRequest, Upload
from server.upstreams.base import Call
from server.upstreams.http import HttpClient, Target, Uploader
from server.upstreams.http_upstream import channel_target, with_own
from server.upstreams.image_fitting import Bounds
from server.upstreams.image_source import ImageSource
from server.upstreams.inlining import InliningUpstream
from server.upstreams.surfaces import EmbeddingsUpstream, InOurWords

BASE_URL = "https://generativelanguage.googleapis.com"
# A request may have 20 MB in all; larger sides are scaled there anyway.
IMAGE_BOUNDS = Bounds(
    types=frozenset({"image/png", "image/jpeg", "image/webp", "image/heic", "image/heif"}),
    max_bytes=10 * 1024 * 1024,
    max_side=8192,
    max_pixels=8192 * 8192,
)
# What the service finds by itself: its own files, and films.
_HELD = re.compile(r"https://[^/?#]+/v1(?:beta|alpha)?/files/|https://(?:www\.)?youtu(?:be\.com|\.be)/")


class GeminiUpstream(InliningUpstream):
    """One channel of kind ``gemini``; see ``HttpUpstream``."""

    skips = "unreadable events or unknown parts"
    read_refusal = staticmethod(gemini_error)
    bounds = IMAGE_BOUNDS
    knows = ("thinking",)

    def __init__(self, channel: Channel, client: HttpClient, images: ImageSource, uploader: Uploader) -> None:
        super().__init__(channel, client, images, _held)
        self.surfaces = _GeminiSurfaces(channel, client, uploader)
        self._targets = {
            (theirs, stream): generate_target(channel, theirs, stream=stream)
            for theirs in self._names.values()
            for stream in (True, False)
        }
        self._models = {theirs: _model(channel, theirs) for theirs in self._names.values()}

    def target(self, chat: ChatRequest, call: Call) -> Target:
        """By the model and by what is wanted, which both stand in the URL."""
        theirs = self._names.get(chat.model, chat.model)
        known = self._targets.get((theirs, chat.stream))
        return known or generate_target(self._channel, theirs, stream=chat.stream)

    def in_dialect(self, chat: ChatRequest) -> NativeRequest:
        """As the service takes it."""
        theirs = self._names.get(chat.model, chat.model)
        model = self._models.get(theirs) or _model(self._channel, theirs)
        return generate_request(chat, model, self._channel.gemini.safety)

    def reader(self, *, stream: bool) -> GeminiReader:
        """It takes a stream and a whole answer alike."""
        return GeminiReader(secrets.token_hex(8))


class _GeminiSurfaces(EmbeddingsUpstream):
    """Embeddings, many texts at once, and images, which models draw as an answer of a chat."""

    most_texts = 100  # source: the vendor's API (batchEmbedContents)
    read_refusal = staticmethod(gemini_error)

    def target(self, request: SurfaceRequest, theirs: str) -> Target:
        """By the model, which stands in the URL."""
        method = "generateContent" if request.surface.name == "images" else "batchEmbedContents"
        known = self._targets.get(place := f"{_resource(theirs)}:{method}")
        if known is None:
            known = self._targets[place] = _target(self._channel, place)
        return known

    def prepared(
        self, request: SurfaceRequest, theirs: str, call: Call
    ) -> tuple[bytes | Upload, InOurWords | None]:
        """See ``SurfaceUpstream``."""
        if request.surface.name != "images":
            return super().prepared(request, theirs, call)
        body = request.body(theirs)
        if not isinstance(body, bytes):
            raise SurfaceNotOffered(
                f"{request.path} cannot be had of this model; show it the image in a chat, and ask for "
                'another with modalities: ["text", "image"].',
                param="model",
            )
        native = image_request(JsonObject(body))
        self.tell_adapted(call, native)
        return native.body, partial(read_image, created=int(time.time()))

    def in_dialect(self, asked: EmbeddingsAsked, theirs: str) -> NativeRequest:
        """See ``EmbeddingsUpstream``."""
        return embed_request(asked, _resource(theirs))

    def read_vectors(self, body: bytes) -> tuple[list[bytes], int | None]:
        """See ``EmbeddingsUpstream``."""
        return read_embedded(body)


def generate_target(channel: Channel, model: str, *, stream: bool) -> Target:
    """Where a channel's requests to a model go."""
    path = _resource(model)
    if stream:
        return _target(channel, f"{path}:streamGenerateContent", alt="sse")
    return _target(channel, f"{path}:generateContent")


def models_target(channel: Channel) -> Target:
    """Where the list of models is."""
    return _target(channel, "models")


def _target(channel: Channel, path: str, **query: str) -> Target:
    """The key is in a header, never in the URL."""
    base = URL((channel.base_url or BASE_URL).rstrip("/"))
    headers = {"x-goog-api-key": channel.api_key} if channel.api_key else {}
    url = base.joinpath(channel.gemini.version, path)
    return channel_target(channel, url.with_query(query) if query else url, headers)


def _resource(model: str) -> str:
    return model if model.startswith(("models/", "tunedModels/")) else f"models/{model}"


def _held(url: str) -> bool:
    return _HELD.match(url) is not None


def _model(channel: Channel, name: str) -> GeminiModel:
    """What a model takes: as its name tells, with the channel's own settings over it."""
    return with_own(model_of(name), channel.gemini.models.get(name))
