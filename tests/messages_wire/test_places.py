"""Fields of a chat by the names of Anthropic's clients."""

from __future__ import annotations

import json
from typing import Any

import pytest

from server.messages_wire import own_param, parse_messages

CALL = {"type": "tool_use", "id": "c1", "name": "f", "input": {}}
OTHER = {**CALL, "id": "c2"}
RESULTS = [{"type": "tool_result", "tool_use_id": id, "content": "1"} for id in ("c1", "c2")]
TURNS: list[dict[str, Any]] = [
    {"role": "user", "content": "a"},
    {"role": "assistant", "content": [CALL, OTHER]},
    {"role": "user", "content": [*RESULTS, {"type": "text", "text": "b"}]},
    {"role": "user", "content": "c"},
    {"role": "assistant", "content": "d"},
    {"role": "user", "content": "e"},
]


def told(param: str, *, system: bool) -> str:
    fields: dict[str, Any] = {"model": "m", "max_tokens": 9, "messages": TURNS}
    if system:
        fields["system"] = "s"
    return own_param(parse_messages(json.dumps(fields).encode()).chat, param)


@pytest.mark.parametrize("system", [False, True])
@pytest.mark.parametrize(("at", "place"), [(0, 0), (1, 1), (2, 2), (3, 2), (4, 2), (5, 3), (6, 4), (7, 5)])
def test_a_turn_of_the_chat_is_the_clients_own(at: int, place: int, system: bool) -> None:
    at += system
    assert told(f"messages[{at}].content[0].image_url", system=system) == f"messages[{place}].content"
    assert told(f"messages.[{at}]", system=system) == f"messages[{place}]"


def test_the_system_prompt_has_a_field_of_its_own() -> None:
    assert told("messages[0].content", system=True) == "system"


@pytest.mark.parametrize(
    ("param", "own"),
    [
        ("stop", "stop_sequences"),
        ("tools[3].function.parameters", "tools[3].input_schema"),
        ("tools[3].function.name", "tools[3].name"),
        ("tools[3]", "tools[3]"),
        ("response_format.json_schema.schema", "output_config.format"),
        ("max_completion_tokens", "max_tokens"),
        ("temperature", "temperature"),
        ("thinking.budget", "thinking.budget"),
    ],
)
def test_fields_have_their_own_names(param: str, own: str) -> None:
    assert told(param, system=False) == own
