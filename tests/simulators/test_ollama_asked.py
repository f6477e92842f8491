"""What the Ollama simulator refuses, and what it passes over."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from server.simulators.errors import Refused
from server.simulators.ollama_asked import read_request

CHAT = {"model": "m", "messages": [{"role": "user", "content": "one two"}]}


def refusal(body: bytes) -> str:
    with pytest.raises(Refused) as raised:
        read_request(body)
    assert raised.value.fault.status in (400, 500)
    return raised.value.fault.message


def test_it_reads_a_chat_and_passes_over_what_it_does_not_know() -> None:
    asked, _ = read_request(orjson.dumps({**CHAT, "odd": 1, "options": {"odd": []}}))
    assert (asked.model, asked.stream, asked.last_user, asked.prompt_tokens) == ("m", True, "one two", 2)
    assert read_request(orjson.dumps({**CHAT, "stream": False}))[0].stream is False


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"model": ""}, "model is required"),
        ({"messages": [{"role": "developer", "content": "a"}]}, "invalid role"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "array into Go struct field"),
        ({"messages": [{"role": "user", "content": "a", "images": ["data:x"]}]}, "illegal base64"),
        ({"messages": [{"role": "user", "content": "a", "images": ["YQ=="]}]}, "unknown format"),
        ({"messages": [{"role": "user", "content": "a", "images": [1]}]}, "messages.images"),
        ({"messages": ["a"]}, "api.Message"),
        (
            {
                "messages": [
                    {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}
                ]
            },
            "string into Go struct field ChatRequest.messages.tool_calls.function.arguments",
        ),
        ({"tools": [{"name": "f"}]}, "api.Tool"),
        ({"tools": [{"function": {"name": "f", "parameters": []}}]}, "parameters"),
        ({"options": {"temperature": "hot"}}, 'option "temperature"'),
        ({"options": {"seed": 1.5}}, 'option "seed"'),
        ({"options": {"stop": "x"}}, 'option "stop"'),
        ({"format": "xml"}, "invalid format"),
        ({"stream": "yes"}, "of type bool"),
    ],
)
def test_faults_are_told_as_go_tells_them(fields: dict[str, Any], said: str) -> None:
    assert said in refusal(orjson.dumps(CHAT | fields))


@pytest.mark.parametrize("body", [b"", b" ", b"{", b"[]"])
def test_what_is_no_object_is_refused(body: bytes) -> None:
    assert refusal(body)
