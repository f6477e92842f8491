"""The surfaces beside chats: requests that pass through as bytes, only the model's name is exchanged."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

import msgspec

from server.chat import JsonObject
from server.deltas import Usage
from server.multipart import FormScanner, model_field
from server.settings import Channel, ChannelModel
from server.spool import Spool
from server.surface_settings import SurfaceName


class Surface(msgspec.Struct, frozen=True):
    """One endpoint. ``name`` is what channels call it, ``path`` comes after ``/v1``, here and upstream.

    ``form``: its body is ``multipart/form-data``, else a JSON object. ``needs_model``: OpenAI's own wants the
    model named; else the first one that offers the surface stands in.
    """

    name: SurfaceName
    path: str
    form: bool = False
    needs_model: bool = True


EMBEDDINGS = Surface("embeddings", "/embeddings")
SURFACES = (
    EMBEDDINGS,
    Surface("moderations", "/moderations", needs_model=False),
    Surface("speech", "/audio/speech"),
    Surface("images", "/images/generations", needs_model=False),
    Surface("rerank", "/rerank"),
    Surface("transcriptions", "/audio/transcriptions", form=True),
    Surface("translations", "/audio/translations", form=True),
    Surface("images", "/images/edits", form=True, needs_model=False),
    Surface("images", "/images/variations", form=True, needs_model=False),
)


class Upload(Protocol):
    """A body too large to be held in memory. It can be sent again: each ``pieces`` begins anew."""

    size: int

    def pieces(self) -> AsyncIterator[bytes]: ...


class SurfaceRequest(Protocol):
    """One request to a surface, ready to be sent to any channel, and more than once.

    ``model`` is the public name that it was asked under, ``size`` its bytes, ``content_type`` the header.
    """

    surface: Surface
    path: str
    model: str
    size: int
    content_type: str

    def body(self, model: str) -> bytes | Upload:
        """The request as it came, under the model's name ``model``."""


class JsonRequest:
    """A request whose body is a JSON object; see ``SurfaceRequest``."""

    content_type = "application/json"

    def __init__(self, surface: Surface, model: str, json: JsonObject) -> None:
        self.surface = surface
        self.path = surface.path
        self.model = model
        self.size = len(json.data)
        self._json = json

    def body(self, model: str) -> bytes:
        """See ``SurfaceRequest``."""
        name = msgspec.json.encode(model)
        return self._json.data if self._json.raw("model") == name else self._json.edit({"model": name})


class FormRequest:
    """A request whose body is a form with files, which ``spool`` keeps; see ``SurfaceRequest``."""

    def __init__(
        self, surface: Surface, model: str, content_type: str, form: FormScanner, spool: Spool
    ) -> None:
        self.surface = surface
        self.path = surface.path
        self.model = model
        self.size = spool.size
        self.content_type = content_type
        self._form = form
        self._spool = spool

    def body(self, model: str) -> FormUpload:
        """See ``SurfaceRequest``."""
        if self._form.model_at is not None:
            return FormUpload(self._spool, model.encode(), *self._form.model_at)
        at = self._form.begins_at
        return FormUpload(self._spool, model_field(self._form.boundary, model), at, at)


class FormUpload:
    """A form with ``put`` in place of its bytes from ``start`` to ``end``; see ``Upload``."""

    def __init__(self, spool: Spool, put: bytes, start: int, end: int) -> None:
        self.size = spool.size - (end - start) + len(put)
        self._spool = spool
        self._put = put
        self._start = start
        self._end = end

    async def pieces(self) -> AsyncIterator[bytes]:
        """The form's bytes, in pieces."""
        async for piece in self._spool.pieces(0, self._start):
            yield piece
        yield self._put
        async for piece in self._spool.pieces(self._end, self._spool.size):
            yield piece


class AnswerHead(msgspec.Struct, frozen=True):
    """What comes before an answer's bytes. ``length``: how many there will be, None if nobody knows.

    ``usage`` is what a whole answer tells of its cost.
    """

    status: int
    content_type: str
    length: int | None = None
    usage: Usage | None = None

    @property
    def is_events(self) -> bool:
        """Are the bytes server-sent events?"""
        return media_type(self.content_type) == "text/event-stream"


def media_type(content_type: str) -> str:
    """A Content-Type without its parameters, in lower case."""
    return content_type.partition(";")[0].strip().lower()


def offers(channel: Channel, model: ChannelModel, surface: SurfaceName) -> bool:
    """Does the channel take requests of this surface for this model?

    Where nothing is said it takes all that its kind can offer, for the upstream to judge.
    """
    said = channel.surfaces if model.surfaces is None else model.surfaces
    if said is None:
        return surface == "chat" or surface in offered_by(channel)
    return surface in said


def chat_models(channel: Channel) -> list[str]:
    """The public names of a channel's models that take chats, in their order."""
    return [name for name, model in channel.served().items() if offers(channel, model, "chat")]


# What a kind that is not OpenAI's can offer, in OpenAI's shape.
_OFFERED: dict[str, tuple[SurfaceName, ...]] = {
    "azure": ("embeddings", "speech", "images", "transcriptions", "translations"),
    "gemini": ("embeddings", "images"),
    "ollama": ("embeddings",),
}


def offered_by(channel: Channel) -> tuple[SurfaceName, ...]:
    """What a channel of this kind can offer beside chats."""
    if channel.kind == "openai" and channel.preset != "spark-http":
        return tuple(dict.fromkeys(surface.name for surface in SURFACES))
    return _OFFERED.get(channel.kind, ())
