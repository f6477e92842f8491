"""What Gemini answers to embedContent and batchEmbedContents. Source: the vendor's API reference (v1beta)."""

from __future__ import annotations

from typing import Any

import orjson

from server.simulators.answers import vector
from server.simulators.asked import read_object
from server.simulators.errors import Fault, Refused
from server.simulators.gemini_asked import bad, fields_of

EMBED, EMBED_ALL = "embedContent", "batchEmbedContents"
MOST = 100  # texts in one request
DIMENSIONS = 8
_REQUEST = frozenset(("model", "content", "taskType", "title", "outputDimensionality"))
_TASKS = frozenset(
    (
        *("RETRIEVAL_QUERY", "RETRIEVAL_DOCUMENT", "SEMANTIC_SIMILARITY", "CLASSIFICATION", "CLUSTERING"),
        *("QUESTION_ANSWERING", "FACT_VERIFICATION", "CODE_RETRIEVAL_QUERY"),
    )
)


def embedded(body: bytes, model: str, method: str) -> bytes:
    """The answer to a request of either method. Raises Refused for its first fault."""
    asked = read_object(body)
    if method == EMBED:
        told, tokens = _one(asked, model, "")
        return _spelled({"embedding": told}, tokens)
    requests = fields_of(asked, frozenset({"requests"}), "").get("requests")
    if not isinstance(requests, list) or not requests:
        raise bad("* BatchEmbedContentsRequest.requests: requests is not specified\n", "requests")
    if len(requests) > MOST:
        words = f"at most {MOST} requests can be in one batch"
        raise bad(f"* BatchEmbedContentsRequest.requests: {words}\n", "requests")
    both = [_one(one, model, f"requests[{at}]", named=True) for at, one in enumerate(requests)]
    return _spelled({"embeddings": [told for told, _ in both]}, sum(tokens for _, tokens in both))


def _one(given: object, model: str, where: str, *, named: bool = False) -> tuple[dict[str, Any], int]:
    """An embedding, and the words of its text."""
    asked = fields_of(given, _REQUEST, where)
    if (named or "model" in asked) and asked.get("model") != f"models/{model}":
        raise bad("* BatchEmbedContentsRequest.requests[0].model: model does not match\n", where)
    content = fields_of(asked.get("content"), frozenset({"role", "parts"}), f"{where}.content")
    parts = content.get("parts")
    texts = [part.get("text") for part in parts] if isinstance(parts, list) else []
    if not texts or not all(isinstance(text, str) and text for text in texts):
        raise bad("* EmbedContentRequest.content: contents is not specified\n", f"{where}.content")
    if asked.get("taskType", "CLUSTERING") not in _TASKS:
        raise bad(f"Invalid value at '{where}.task_type'", where)
    size = asked.get("outputDimensionality", DIMENSIONS)
    if not isinstance(size, int) or size < 1:
        raise bad(f"Invalid value at '{where}.output_dimensionality'", where)
    if size > 3072:
        raise Refused(Fault(400, "output_dimensionality must be in [1, 3072]", type="INVALID_ARGUMENT"))
    text = "\n".join(texts)
    return {"values": vector(text.encode(), size)}, len(text.split())


def _spelled(told: dict[str, Any], tokens: int) -> bytes:
    return orjson.dumps({**told, "usageMetadata": {"promptTokenCount": tokens}}, option=orjson.OPT_INDENT_2)
