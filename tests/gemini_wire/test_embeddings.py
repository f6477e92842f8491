"""Embeddings in Gemini's words."""

from __future__ import annotations

import json
from typing import Any

import pytest

from server.chat import JsonObject
from server.embeddings import read_embeddings
from server.errors import UpstreamInvalid
from server.gemini_wire.embeddings import embed_request, read_embedded


def made(**fields: Any) -> tuple[Any, tuple[str, ...]]:
    json_object = JsonObject(json.dumps({"model": "m", "input": ["a", "b"], **fields}).encode())
    request = embed_request(read_embeddings(json_object), "models/embed-x")
    return json.loads(request.body), request.warnings


def test_each_text_is_a_request_of_its_own() -> None:
    body, warnings = made(dimensions=64, encoding_format="base64")
    assert body == {
        "requests": [
            {"model": "models/embed-x", "content": {"parts": [{"text": text}]}, "outputDimensionality": 64}
            for text in "ab"
        ]
    }
    assert warnings == ()


def test_its_own_fields_go_along_and_others_are_left_out_and_told() -> None:
    body, warnings = made(taskType="RETRIEVAL_DOCUMENT", title="T", user="u")
    assert [(one["taskType"], one["title"]) for one in body["requests"]] == [("RETRIEVAL_DOCUMENT", "T")] * 2
    assert warnings == ("user was left out",)


def test_vectors_and_their_count_if_there_is_one() -> None:
    said = (
        b'{"embeddings": [{"values": [1.0, 2]}, {"values": [3]}], "usageMetadata": {"promptTokenCount": 4}}'
    )
    assert read_embedded(said) == ([b"[1.0, 2]", b"[3]"], 4)
    assert read_embedded(b'{"embeddings": [], "x": 1}') == ([], None)


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[]", b'{"embeddings": [1]}', b'{"embeddings": [{}]}', b"\xff"]
)
def test_what_holds_no_vectors_is_no_answer(body: bytes) -> None:
    with pytest.raises(UpstreamInvalid):
        read_embedded(body)
