"""What the Gemini simulator makes of requests for embeddings."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from server.simulators.errors import Refused
from server.simulators.gemini_embeddings import EMBED, EMBED_ALL, embedded

ONE = {"model": "models/e", "content": {"parts": [{"text": "one two"}]}}


def ask(method: str, body: Any) -> Any:
    return orjson.loads(embedded(orjson.dumps(body), "e", method))


def test_one_and_many() -> None:
    alone = ask(EMBED, {"content": {"parts": [{"text": "one two"}]}})
    many = ask(EMBED_ALL, {"requests": [ONE, {**ONE, "output_dimensionality": 3, "taskType": "CLUSTERING"}]})
    assert many["embeddings"][0] == alone["embedding"]
    assert [len(one["values"]) for one in many["embeddings"]] == [8, 3]
    assert many["usageMetadata"] == {"promptTokenCount": 4}


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"requests": []},
        {"requests": [ONE] * 101},
        {"requests": [{**ONE, "model": "e"}]},
        {"requests": [{**ONE, "content": {"parts": []}}]},
        {"requests": [{**ONE, "content": {"parts": [{"text": ""}]}}]},
        {"requests": [{**ONE, "taskType": "ODD"}]},
        {"requests": [{**ONE, "outputDimensionality": 0}]},
        {"requests": [{**ONE, "outputDimensionality": 4000}]},
        {"requests": [{**ONE, "dimensions": 4}]},
    ],
)
def test_what_the_service_refuses(body: Any) -> None:
    with pytest.raises(Refused) as raised:
        ask(EMBED_ALL, body)
    assert raised.value.fault.status == 400
