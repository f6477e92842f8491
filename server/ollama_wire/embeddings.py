"""A request for embeddings → ``/api/embed``'s, and its answer. Source: the server's API reference."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw

from server.embeddings import EmbeddingsAsked
from server.errors import UpstreamInvalid
from server.foreign import NativeRequest, plain_key, shortened, wrong
from server.ollama_settings import Ollama, OllamaModel

# Of the server's own, for clients that know them.
_OWN = ("truncate", "options", "keep_alive")


class _Answer(msgspec.Struct):
    embeddings: list[Raw]
    prompt_eval_count: int | None = None


def embed_request(asked: EmbeddingsAsked, settings: Ollama, name: str) -> NativeRequest:
    """The request to the model ``name``.

    By itself the server cuts a text that is too long, without a word: it is told not to, unless the client
    says otherwise. Raises ``InvalidRequest`` for ``options`` that are no object.
    """
    body: dict[str, Any] = {"model": name, "input": asked.texts, "truncate": False}
    if asked.dimensions is not None:
        body["dimensions"] = asked.dimensions
    if options := _options(asked, settings, settings.models.get(name, OllamaModel())):
        body["options"] = options
    if settings.keep_alive is not None:
        body["keep_alive"] = settings.keep_alive
    body |= {field: asked.more[field] for field in ("truncate", "keep_alive") if field in asked.more}
    warnings = [f"{plain_key(field)} was left out" for field in asked.more if field not in _OWN]
    return NativeRequest(msgspec.json.encode(body), shortened(warnings))


def _options(asked: EmbeddingsAsked, settings: Ollama, own: OllamaModel) -> dict[str, Any]:
    """The channel's, and over them the client's."""
    options: dict[str, Any] = dict(settings.options)
    if (context := own.num_ctx or settings.num_ctx) is not None:
        options["num_ctx"] = context
    given = msgspec.json.decode(asked.more.get("options", Raw(b"{}")))
    if not isinstance(given, dict):
        raise wrong("options", "must be an object", "invalid_type")
    return options | given


def read_embedded(body: bytes) -> tuple[list[bytes], int | None]:
    """The vectors as they came, in the order of the texts, and how many tokens the texts were.

    The count is None where the server tells none. Raises ``UpstreamInvalid``.
    """
    try:
        answer = msgspec.json.decode(body, type=_Answer)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UpstreamInvalid("The upstream's answer holds no embeddings that can be read.") from error
    return [bytes(one) for one in answer.embeddings], answer.prompt_eval_count
