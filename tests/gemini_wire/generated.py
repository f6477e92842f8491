"""What tests of Gemini's wire are made of: requests, events, and answers read to their end."""

from __future__ import annotations

import json
from typing import Any

from server.deltas import Delta, Extra, Finished, ReasoningDelta, TextDelta, ToolCallDelta
from server.gemini_wire import GeminiModel, GeminiReader, generate_request, model_of
from server.openai_wire import parse_chat

LEVEL = model_of("gemini-3-pro-preview")
BUDGET = model_of("gemini-2.5-flash")
OLD = model_of("gemini-2.0-flash")


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def called(*ids: str, signature: str | None = None, **more: Any) -> dict[str, Any]:
    """An assistant's turn that calls ``f`` once for each id; the first bears the signature."""
    calls: list[dict[str, Any]] = [
        {"id": id, "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}} for id in ids
    ]
    if signature is not None:
        calls[0]["extra_content"] = {"google": {"thought_signature": signature}}
    return {"role": "assistant", "content": None, "tool_calls": calls, **more}


def result(id: str, content: Any = "fine") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": id, "content": content}


def request(
    *messages: dict[str, Any],
    model: GeminiModel = BUDGET,
    safety: Any = None,
    **fields: Any,
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The body that a chat becomes, and the warnings."""
    asked = {"model": "m", "messages": list(messages) or [user("hello")], **fields}
    made = generate_request(parse_chat(json.dumps(asked).encode()), model, safety)
    return json.loads(made.body), made.warnings


def said(
    *parts: dict[str, Any],
    finish: str | None = None,
    index: int = 0,
    beside: dict[str, Any] | None = None,
    **fields: Any,
) -> dict[str, Any]:
    """One answer, or one event of it; ``beside`` are further fields of the candidate."""
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": list(parts)}, "index": index}
    candidate |= beside or {}
    if finish is not None:
        candidate["finishReason"] = finish
    return {"candidates": [candidate], "modelVersion": "gemini-sim", **fields}


def event(data: object) -> bytes:
    """As the service writes it: with CRLF."""
    return b"data: " + json.dumps(data, ensure_ascii=False).encode() + b"\r\n\r\n"


def read(*pieces: bytes) -> list[Delta]:
    """The deltas of an answer that is read piece by piece, to its end."""
    reader = GeminiReader("a1")
    deltas = [delta for data in pieces for delta in reader.feed(data)]
    return [*deltas, *reader.eof()]


def text_of(deltas: list[Delta], index: int = 0) -> str:
    return "".join(delta.text for delta in deltas if type(delta) is TextDelta and delta.index == index)


def thought_of(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas if type(delta) is ReasoningDelta)


def calls_of(deltas: list[Delta]) -> list[tuple[str | None, str | None, str]]:
    """Id, name and arguments of each call."""
    return [(delta.id, delta.name, delta.arguments) for delta in deltas if type(delta) is ToolCallDelta]


def finish_of(deltas: list[Delta]) -> list[str]:
    return [delta.reason for delta in deltas if type(delta) is Finished]


def originals_of(deltas: list[Delta], kind: type = Extra) -> list[dict[str, Any]]:
    """The choices that came in fields of their own with deltas of a kind."""
    return [
        json.loads(delta.original.data)["choices"][0]
        for delta in deltas
        if type(delta) is kind and delta.original is not None
    ]
