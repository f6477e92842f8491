"""Chunks as an upstream might send them, and a strict reading of what we send."""

from __future__ import annotations

import json
from typing import Any

from server.deltas import Delta
from server.openai_wire import ChunkDecoder, ChunkEncoder


def chunk(delta: dict[str, Any] | None = None, finish: str | None = None, **fields: Any) -> bytes:
    """One chunk of choice 0; ``fields`` replace or add top-level fields, ``...`` removes one."""
    choice = {"index": 0, "delta": {} if delta is None else delta, "finish_reason": finish}
    whole = {
        "id": "c1",
        "object": "chat.completion.chunk",
        "created": 5,
        "model": "theirs",
        "choices": [choice],
    } | fields
    return json.dumps(
        {key: value for key, value in whole.items() if value is not ...}, separators=(",", ":")
    ).encode()


OPENING = chunk({"role": "assistant", "content": ""})
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


def decoded(*data: bytes) -> list[Delta]:
    """All deltas of a stream that ends after ``data``."""
    decoder = ChunkDecoder()
    deltas = [delta for one in data for delta in decoder.chunk(one)]
    return deltas + decoder.eof()


def relayed(*data: bytes, include_usage: bool = False, model: str = "ours") -> list[dict[str, Any]]:
    """What a client gets of that stream, as JSON, checked against the rules that every stream keeps."""
    encoder = ChunkEncoder(model=model, id="run", created=7, include_usage=include_usage)
    sent = encoder.encode(decoded(*data)) + encoder.finish(None)
    return check_stream(sent, model=model, include_usage=include_usage)


def check_stream(sent: bytes, *, model: str, include_usage: bool) -> list[dict[str, Any]]:
    """The chunks of a complete stream. Asserts what is promised of each."""
    events = sent.split(b"\n\n")
    assert events[-2:] == [b"data: [DONE]", b""]
    chunks = []
    for event in events[:-2]:
        assert event.startswith(b"data: ")
        assert b"\n" not in event
        chunks.append(json.loads(event[6:]))
    assert {(one["id"], one["created"], one["model"], one["object"]) for one in chunks} == {
        (chunks[0]["id"], chunks[0]["created"], model, "chat.completion.chunk")
    }
    if include_usage:
        assert chunks[-1]["choices"] == []
        assert chunks[-1]["usage"] is not None
        assert all(one["usage"] is None for one in chunks[:-1])
    else:
        assert not any("usage" in one for one in chunks)
    opened: set[int] = set()
    finished: set[int] = set()
    for one in chunks[: -1 if include_usage else None]:
        assert one["choices"]
        for choice in one["choices"]:
            index, delta = choice["index"], choice["delta"]
            assert index not in finished
            assert ("role" in delta) == (index not in opened)
            opened.add(index)
            assert not (delta.get("content") and (delta.get("reasoning_content") or delta.get("reasoning")))
            if choice["finish_reason"] is not None:
                assert choice["finish_reason"]
                finished.add(index)
    assert opened == finished
    return chunks


def text_of(chunks: list[dict[str, Any]], index: int = 0, field: str = "content") -> str:
    """The text of one choice."""
    return "".join(
        choice["delta"].get(field) or ""
        for one in chunks
        for choice in one["choices"]
        if choice["index"] == index
    )
