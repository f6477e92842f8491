"""What tests of Anthropic's wire are made of: requests, events, and answers read to their end."""

from __future__ import annotations

import json
from typing import Any

from server.anthropic_wire import AnthropicModel, MessagesReader, messages_request
from server.deltas import Delta, Extra, Finished, ReasoningDelta, TextDelta, ToolCallDelta
from server.openai_wire import parse_chat

ADAPTIVE = AnthropicModel("adaptive")
BUDGET = AnthropicModel("budget")


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def called(*ids: str, **more: Any) -> dict[str, Any]:
    """An assistant's turn that calls ``f`` once for each id."""
    calls = [{"id": id, "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}} for id in ids]
    return {"role": "assistant", "content": None, "tool_calls": calls, **more}


def result(id: str, content: Any = "fine") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": id, "content": content}


def request(
    *messages: dict[str, Any], model: AnthropicModel = ADAPTIVE, **fields: Any
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The body that a chat becomes, and the warnings."""
    asked = {"model": "m", "messages": list(messages) or [user("hello")], **fields}
    made = messages_request(parse_chat(json.dumps(asked).encode()), model, "claude")
    return json.loads(made.body), made.warnings


def event(kind: str, **fields: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()


def start(index: int, **block: Any) -> bytes:
    return event("content_block_start", index=index, content_block=block)


def piece(index: int, **delta: Any) -> bytes:
    return event("content_block_delta", index=index, delta=delta)


def stop(index: int) -> bytes:
    return event("content_block_stop", index=index)


USAGE = {"input_tokens": 12, "cache_creation_input_tokens": 3, "cache_read_input_tokens": 5}
BEGIN = event(
    "message_start", message={"type": "message", "content": [], "usage": {**USAGE, "output_tokens": 1}}
)
END = event("message_stop")


def ending(reason: str | None = "end_turn", tokens: int = 30) -> bytes:
    delta = {"stop_reason": reason, "stop_sequence": None}
    return event("message_delta", delta=delta, usage={"output_tokens": tokens}) + END


def streamed(*pieces: bytes) -> list[Delta]:
    """The deltas of a stream that is read piece by piece, to its end."""
    reader = MessagesReader()
    deltas = [delta for data in pieces for delta in reader.feed(data)]
    return [*deltas, *reader.eof()]


def text_of(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas if type(delta) is TextDelta)


def thought_of(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas if type(delta) is ReasoningDelta)


def calls_of(deltas: list[Delta]) -> list[tuple[str | None, str | None, str]]:
    """Id, name and arguments of each call."""
    calls: dict[int, tuple[str | None, str | None, str]] = {}
    for delta in deltas:
        if type(delta) is ToolCallDelta:
            id, name, arguments = calls.get(delta.position, (delta.id, delta.name, ""))
            calls[delta.position] = (id, name, arguments + delta.arguments)
    return [calls[position] for position in sorted(calls)]


def finish_of(deltas: list[Delta]) -> list[str]:
    return [delta.reason for delta in deltas if type(delta) is Finished]


def extras_of(deltas: list[Delta]) -> list[dict[str, Any]]:
    """What was said in fields of its own."""
    return [
        json.loads(delta.original.data)["choices"][0]["delta"]
        for delta in deltas
        if type(delta) is Extra and delta.original is not None
    ]
