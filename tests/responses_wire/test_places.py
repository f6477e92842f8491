"""Fields of a chat by the names of the Responses."""

from __future__ import annotations

import pytest

from server.responses_wire import own_param


@pytest.mark.parametrize(
    ("param", "own"),
    [
        ("messages[3].content[0].image_url", "input"),
        ("messages", "input"),
        ("tools[3].function.parameters", "tools[3].parameters"),
        ("tools[3]", "tools[3]"),
        ("reasoning_effort", "reasoning.effort"),
        ("response_format.json_schema.schema", "text.format"),
        ("max_tokens", "max_output_tokens"),
        ("temperature", "temperature"),
    ],
)
def test_fields_have_their_own_names(param: str, own: str) -> None:
    assert own_param(param) == own
