"""The whole message; that it says what the stream says is told in test_speech.py."""

from __future__ import annotations

import json

from server.deltas import Finished, TextDelta, ToolCallDelta, Usage
from server.messages_wire import MessageCollector


def test_a_message_has_the_services_shape_and_arguments_stay_as_they_were_written() -> None:
    collector = MessageCollector(model="m", id="msg_1", thoughts=False)
    collector.add(
        [TextDelta("a"), TextDelta("b"), ToolCallDelta(0, "c", "f", '{"big": 12345678901234567890123}')]
    )
    collector.add([Finished("tool_calls")])
    body = collector.encode(Usage(1, 2, 3), b'{"level":"none"}')
    assert b'{"big": 12345678901234567890123}' in body
    assert json.loads(body) == {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [
            {"type": "text", "text": "ab"},
            {"type": "tool_use", "id": "c", "name": "f", "input": {"big": 12345678901234567890123}},
        ],
        "stop_reason": "tool_use",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 1,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": 2,
        },
        "antiphon": {"level": "none"},
    }
