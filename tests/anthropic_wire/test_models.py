"""What is known of Anthropic's models by their names."""

from __future__ import annotations

import pytest

from server.anthropic_wire import model_of


@pytest.mark.parametrize(
    ("name", "thinking", "sampling"),
    [
        ("claude-opus-4-7", "adaptive", False),
        ("claude-opus-5", "adaptive", False),
        ("claude-sonnet-4-6", "adaptive", True),
        ("claude-opus-4-6-20260101", "adaptive", True),
        ("claude-sonnet-4-20250514", "budget", True),
        ("claude-haiku-4-5", "budget", True),
        ("claude-3-7-sonnet-latest", "budget", True),
        ("claude-3-5-haiku-20241022", "no", True),
        ("claude-3-opus-20240229", "no", True),
        ("deepseek-flash", "no", True),
    ],
)
def test_a_name_tells_how_a_model_thinks(name: str, thinking: str, sampling: bool) -> None:
    model = model_of(name)
    assert (model.thinking, model.sampling) == (thinking, sampling)
