"""What is asked of embeddings, and their answer in OpenAI's shape."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.chat import JsonObject
from server.embeddings import EmbeddingsAsked, embeddings_answer, read_embeddings
from server.errors import InvalidRequest, UpstreamInvalid


def asked(**fields: Any) -> EmbeddingsAsked:
    return read_embeddings(JsonObject(json.dumps({"model": "m", "input": "a", **fields}).encode()))


def test_a_text_and_a_list_of_texts() -> None:
    assert asked().texts == ["a"]
    assert asked(input=["b \u2028", "二🎶", " "]).texts == ["b \u2028", "二🎶", " "]
    assert (asked().dimensions, asked(dimensions=3).dimensions) == (None, 3)
    assert (asked().packed, asked(encoding_format="base64").packed) == (False, True)
    assert not asked(encoding_format="float").packed


def test_fields_without_a_name_here_come_along_but_for_nulls() -> None:
    more = asked(user="u", taskType="CLUSTERING", x=None).more
    assert {name: bytes(raw) for name, raw in more.items()} == {"user": b'"u"', "taskType": b'"CLUSTERING"'}


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"input": None}, "input", "missing_required_parameter"),
        ({"input": ""}, "input", "invalid_value"),
        ({"input": []}, "input", "invalid_value"),
        ({"input": ["a", ""]}, "input", "invalid_value"),
        ({"input": [1, 2]}, "input", "unsupported_parameter"),
        ({"input": [[1, 2]]}, "input", "unsupported_parameter"),
        ({"input": [{"image": "x"}]}, "input", "invalid_type"),
        ({"input": {"a": 1}}, "input", "invalid_type"),
        ({"dimensions": "x"}, "dimensions", "invalid_type"),
        ({"encoding_format": 1}, "encoding_format", "invalid_type"),
        ({"encoding_format": "int8"}, "encoding_format", "invalid_value"),
    ],
)
def test_what_cannot_be_read_is_named(fields: dict[str, Any], param: str, code: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        asked(**fields)
    assert (raised.value.param, raised.value.code) == (param, code)


def test_numbers_come_as_they_came() -> None:
    vectors = [b"[1.0,1e-7,-0.1000000000000000055]", b"[0,1,2]"]
    said = embeddings_answer(asked(input=["a", "b"]), vectors, "m", 7)
    assert b'"embedding":[1.0,1e-7,-0.1000000000000000055]' in said
    told = json.loads(said)
    assert [one["index"] for one in told["data"]] == [0, 1]
    assert told["usage"] == {"prompt_tokens": 7, "total_tokens": 7}
    assert (told["object"], told["model"]) == ("list", "m")


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), max_size=20))
def test_packed_vectors_are_floats_of_32_bits(values: list[float]) -> None:
    vector = json.dumps(values).encode()
    (one,) = json.loads(embeddings_answer(asked(encoding_format="base64"), [vector], "m", 1))["data"]
    data = base64.b64decode(one["embedding"])
    assert list(struct.unpack(f"<{len(data) // 4}f", data)) == values


def test_what_nobody_counted_is_estimated_and_says_so() -> None:
    usage = json.loads(embeddings_answer(asked(input="four"), [b"[]"], "m", None))["usage"]
    assert usage == {"prompt_tokens": 1, "total_tokens": 1, "estimated": True}


@pytest.mark.parametrize("vectors", [[], [b"[1]", b"[2]"], [b'["a"]'], [b"{}"], [b"[1e300]"]])
def test_other_than_a_vector_for_each_text_is_no_answer(vectors: list[bytes]) -> None:
    with pytest.raises(UpstreamInvalid):
        embeddings_answer(asked(encoding_format="base64"), vectors, "m", 1)
