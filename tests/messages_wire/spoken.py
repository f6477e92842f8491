"""What a client makes of a Messages stream, by the vendor's own rules for joining its events."""

from __future__ import annotations

import json
from typing import Any

from server.deltas import Delta
from server.messages_wire import MessageCollector, MessagesEncoder
from tests.foreign_streams import events_of


def joined(data: bytes) -> dict[str, Any]:
    """The message that a complete stream tells. Asserts the order of its events."""
    start, *middle, delta, stop = events_of(data)
    assert (start["type"], delta["type"], stop["type"]) == ("message_start", "message_delta", "message_stop")
    message: dict[str, Any] = start["message"]
    inputs: dict[int, str] = {}
    ended: set[int] = set()
    for event in middle:
        index = event["index"]
        match event["type"]:
            case "content_block_start":
                assert index == len(message["content"]), "blocks begin in order"
                message["content"].append(event["content_block"])
            case "content_block_delta":
                assert index not in ended
                piece = event["delta"]
                field = piece["type"].removesuffix("_delta")
                if field == "input_json":
                    inputs[index] = inputs.get(index, "") + piece["partial_json"]
                elif field == "citations":
                    message["content"][index].setdefault(field, []).append(piece["citation"])
                else:
                    message["content"][index][field] += piece[field]
            case "content_block_stop":
                assert index not in ended
                ended.add(index)
    assert ended == set(range(len(message["content"]))), "every block ends"
    for index, text in inputs.items():
        message["content"][index]["input"] = json.loads(text) if text.strip() else {}
    more = {key: value for key, value in delta.items() if key not in ("type", "delta")}
    whole: dict[str, Any] = message | delta["delta"] | more
    return whole


def streamed(deltas: list[Delta], *, thoughts: bool = True, batches: int = 1) -> dict[str, Any]:
    """The message of a stream to whose encoder so many deltas came at a time."""
    encoder = MessagesEncoder(model="m", id="msg_1", request_id="req_1", thoughts=thoughts)
    sent = b"".join(
        encoder.encode(deltas[at : at + batches]) for at in range(0, len(deltas), batches)
    ) + encoder.finish(None)
    return joined(sent)


def whole(deltas: list[Delta], *, thoughts: bool = True) -> dict[str, Any]:
    """The message of a plain answer."""
    collector = MessageCollector(model="m", id="msg_1", thoughts=thoughts)
    collector.add(deltas)
    made: dict[str, Any] = json.loads(collector.encode())
    return made


def both(deltas: list[Delta], *, thoughts: bool = True) -> dict[str, Any]:
    """The message, which is the same in both forms."""
    made = whole(deltas, thoughts=thoughts)
    assert streamed(deltas, thoughts=thoughts) == made
    return made
