"""From a script and what was asked to the answer that is played."""

from __future__ import annotations

import base64
import hashlib
import struct
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import Any

import orjson

from server.simulators.asked import Asked, read_object
from server.simulators.errors import Fault, Refused, error_body, fault_of, retry_headers
from server.simulators.playing import Answer
from server.simulators.said import CREATED, completion, say
from server.simulators.script import Script
from server.simulators.steps import Step, part_steps, plain_steps, stream_steps
from server.simulators.surfaces import Reply

JSON = "application/json"
SSE = "text/event-stream; charset=utf-8"
EMBEDDING_DIMENSIONS = 8


def chat_answer(script: Script, asked: Asked, number: int, now: datetime) -> Answer:
    """The answer to the ``number``-th request, a chat; ``now`` is for a Retry-After that is a date."""
    streamed = script.answer_as == "sse" or (script.answer_as == "asked" and asked.stream)
    said = say(script, asked, number)
    if _is_error(script) or script.body is not None or not streamed:
        return plain_answer(script, lambda: completion(script, said), number, now, streamed=streamed)
    return _answer(script, number, now, 200, SSE, lambda: stream_steps(script, asked, said), streamed=True)


def plain_answer(
    script: Script, body: Callable[[], bytes], number: int, now: datetime, *, streamed: bool = False
) -> Answer:
    """An answer of one piece: an error, ``body()``, or the bytes that the script has."""
    status, media, whole = script.status, SSE if streamed else JSON, b""
    if script.redirect is not None and 200 <= status < 300:
        status = 307
    if script.body is not None:
        streamed = streamed and not _is_error(script)
        media, whole = (media if streamed else JSON), script.body.encode("utf-8", "surrogateescape")
    elif script.status >= 400 or script.error_after is not None:
        media, whole = error_body(fault_of(script), script)
        streamed = False
    elif script.redirect is None:
        whole = body()
    return _answer(script, number, now, status, media, lambda: plain_steps(script, whole), streamed=streamed)


def surface_answer(script: Script, made: Callable[[Script], Reply], number: int, now: datetime) -> Answer:
    """The answer to a request beside chats: in one piece, or in pieces that a script counts as chunks."""
    if _is_error(script) or script.body is not None or script.error_after is not None:
        return plain_answer(script, lambda: b"", number, now)
    media, pieces, streamed = made(script)
    return _answer(
        script, number, now, script.status, media, lambda: part_steps(script, pieces), streamed=streamed
    )


def refusal(script: Script, fault: Fault, number: int, now: datetime) -> Answer:
    """The answer to a request that OpenAI would refuse."""
    media, body = error_body(fault, script)
    return _answer(script, number, now, fault.status, media, lambda: plain_steps(Script(), body))


def text_answer(status: int, media: str, body: bytes) -> Answer:
    """An answer of the simulator in its own name."""
    return Answer(status, media, [], lambda: plain_steps(Script(), body))


def models_body(names: Iterable[str], wanted: str | None) -> bytes:
    """The list of models, or the one that is wanted. Raises Refused for an unknown one."""
    models = [
        {"id": name, "object": "model", "created": CREATED, "owned_by": "antiphon-sim"} for name in names
    ]
    if wanted is None:
        return orjson.dumps({"object": "list", "data": models})
    for model in models:
        if model["id"] == wanted:
            return orjson.dumps(model)
    raise Refused(Fault(404, f"The model '{wanted}' does not exist", param="model", code="model_not_found"))


def read_embedding_input(body: bytes) -> tuple[dict[str, Any], str]:
    """An embeddings request, and its model. Raises Refused."""
    asked = read_object(body)
    model = asked.get("model")
    if not isinstance(model, str) or not model:
        raise Refused(Fault(400, "you must provide a model parameter"))
    if asked.get("input") in (None, [], ""):
        message = "'$.input' is invalid. Please check the API reference: https://platform.openai.com/docs/api-reference."
        raise Refused(Fault(400, message, param="input"))
    return asked, model


def embeddings_body(asked: dict[str, Any], model: str) -> bytes:
    """Vectors that depend on their text alone, each of length 1 in no sense: only equal texts are equal."""
    given = asked["input"]
    tokens = isinstance(given, list) and all(isinstance(item, int) for item in given)
    inputs = [given] if tokens or not isinstance(given, list) else given
    size = asked.get("dimensions")
    size = size if isinstance(size, int) and 0 < size <= 4096 else EMBEDDING_DIMENSIONS
    data = []
    for index, item in enumerate(inputs):
        values = vector(orjson.dumps(item), size)
        packed = base64.b64encode(struct.pack(f"<{size}f", *values)).decode()
        embedding = packed if asked.get("encoding_format") == "base64" else values
        data.append({"object": "embedding", "index": index, "embedding": embedding})
    count = sum(len(item) if isinstance(item, list) else len(str(item).split()) for item in inputs)
    usage = {"prompt_tokens": count, "total_tokens": count}
    return orjson.dumps({"object": "list", "data": data, "model": model, "usage": usage})


def vector(text: bytes, size: int) -> list[float]:
    """So many numbers that ``text`` alone decides."""
    noise = hashlib.shake_128(text).digest(size)
    return [(byte - 127.5) / 128 for byte in noise]  # exact in 32 bits


def _is_error(script: Script) -> bool:
    return script.status >= 300 or script.redirect is not None


def _answer(
    script: Script,
    number: int,
    now: datetime,
    status: int,
    media: str,
    steps: Callable[[], Iterator[Step]],
    *,
    streamed: bool = False,
) -> Answer:
    headers = [
        ("server", "antiphon-simulator"),
        ("x-request-id", f"req_sim{number}"),
        ("openai-version", "2020-10-01"),
        ("openai-organization", "sim-org"),
        ("openai-processing-ms", "1"),
        ("x-ratelimit-limit-requests", "10000"),
        ("x-ratelimit-remaining-requests", "9999"),
        *retry_headers(script, now),
    ]
    if script.redirect is not None:
        headers.append(("location", script.redirect))
    if streamed:
        headers.append(("cache-control", "no-cache"))
    content_type = media if script.content_type is None else script.content_type
    return Answer(status, content_type, headers, steps, streamed)
