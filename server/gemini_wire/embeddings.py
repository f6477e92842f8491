"""A request for embeddings → batchEmbedContents', and its answer. Source: the vendor's API reference."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw

from server.embeddings import EmbeddingsAsked
from server.errors import UpstreamInvalid
from server.foreign import NativeRequest, plain_key, shortened

# Of the vendor's own: they go with each text, for clients that know them.
_OWN = ("taskType", "title")


class _Embedding(msgspec.Struct):
    values: Raw


class _Usage(msgspec.Struct):
    promptTokenCount: int | None = None  # noqa: N815 - the vendor's name


class _Answer(msgspec.Struct):
    embeddings: list[_Embedding]
    usageMetadata: _Usage | None = None  # noqa: N815 - the vendor's name


def embed_request(asked: EmbeddingsAsked, model: str) -> NativeRequest:
    """The request to ``model``, a resource's name such as ``models/gemini-embedding-001``."""
    own: dict[str, Any] = {name: asked.more[name] for name in _OWN if name in asked.more}
    if asked.dimensions is not None:
        own["outputDimensionality"] = asked.dimensions
    requests = [{"model": model, "content": {"parts": [{"text": text}]}, **own} for text in asked.texts]
    warnings = [f"{plain_key(name)} was left out" for name in asked.more if name not in _OWN]
    return NativeRequest(msgspec.json.encode({"requests": requests}), shortened(warnings))


def read_embedded(body: bytes) -> tuple[list[bytes], int | None]:
    """The vectors as they came, in the order of the texts, and how many tokens the texts were.

    The count is None where the service tells none. Raises ``UpstreamInvalid``.
    """
    try:
        answer = msgspec.json.decode(body, type=_Answer)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UpstreamInvalid("The upstream's answer holds no embeddings that can be read.") from error
    usage = answer.usageMetadata
    return [bytes(one.values) for one in answer.embeddings], usage.promptTokenCount if usage else None
