"""Embeddings in Ollama's words."""

from __future__ import annotations

import json
from typing import Any

import pytest

from server.chat import JsonObject
from server.embeddings import read_embeddings
from server.errors import InvalidRequest, UpstreamInvalid
from server.ollama_settings import Ollama, OllamaModel
from server.ollama_wire.embeddings import embed_request, read_embedded


def made(settings: Ollama | None = None, **fields: Any) -> tuple[Any, tuple[str, ...]]:
    json_object = JsonObject(json.dumps({"model": "m", "input": ["a", "b"], **fields}).encode())
    request = embed_request(read_embeddings(json_object), settings or Ollama(), "nomic")
    return json.loads(request.body), request.warnings


def test_a_text_that_is_too_long_is_not_cut_in_silence() -> None:
    assert made() == ({"model": "nomic", "input": ["a", "b"], "truncate": False}, ())
    assert made(truncate=True)[0]["truncate"] is True


def test_the_channels_settings_go_along_and_the_clients_win() -> None:
    settings = Ollama(num_ctx=4096, keep_alive="10m", options={"seed": 1, "num_thread": 2})
    body, warnings = made(settings, dimensions=64, options={"seed": 2}, user="u")
    assert body["options"] == {"seed": 2, "num_thread": 2, "num_ctx": 4096}
    assert (body["keep_alive"], body["dimensions"]) == ("10m", 64)
    assert warnings == ("user was left out",)
    own = Ollama(num_ctx=4096, models={"nomic": OllamaModel(num_ctx=8192)})
    body, _ = made(own, keep_alive=-1)
    assert (body["options"], body["keep_alive"]) == ({"num_ctx": 8192}, -1)


def test_options_that_are_none_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="options must be an object"):
        made(options=[1])


def test_vectors_and_their_count_if_there_is_one() -> None:
    assert read_embedded(b'{"embeddings": [[1.0, 2], [3]], "prompt_eval_count": 4}') == (
        [b"[1.0, 2]", b"[3]"],
        4,
    )
    assert read_embedded(b'{"embeddings": []}') == ([], None)


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'{"embeddings": 1}', b"\xff"])
def test_what_holds_no_vectors_is_no_answer(body: bytes) -> None:
    with pytest.raises(UpstreamInvalid):
        read_embedded(body)
