"""What models take, by their names."""

from __future__ import annotations

import pytest

from server.gemini_wire import GeminiModel, model_of


@pytest.mark.parametrize(
    ("name", "thinking", "least", "schema", "signed"),
    [
        ("gemini-3-pro-preview", "level", "low", "json", True),
        ("gemini-3.8-flash", "level", "minimal", "json", True),
        ("gemini-4-argon", "level", "minimal", "json", True),
        ("gemini-flash-latest", "level", "minimal", "json", True),
        ("models/gemini-2.5-pro", "budget", "minimal", "json", False),
        ("gemini-2.5-flash-lite-preview-09-2025", "budget", "minimal", "json", False),
        ("gemini-2.0-flash-001", "no", "minimal", "openapi", False),
        ("gemini-1.5-pro", "no", "minimal", "openapi", False),
        ("gemma-3-27b-it", "no", "minimal", "json", False),
    ],
)
def test_a_name_tells_what_a_model_takes(
    name: str, thinking: str, least: str, schema: str, *, signed: bool
) -> None:
    model = model_of(name)
    assert (model.thinking, model.least_level, model.schema, model.signed) == (
        thinking,
        least,
        schema,
        signed,
    )


def test_only_small_models_of_2_5_can_rest() -> None:
    assert model_of("gemini-2.5-flash").can_rest
    assert not model_of("gemini-2.5-pro").can_rest
    assert model_of("something-else") == GeminiModel()


def test_the_first_open_models_take_no_system_instruction() -> None:
    assert not model_of("gemma-3-27b-it").instructed
    assert not model_of("models/gemma-2-9b").instructed
    for name in ("gemma-4-31b", "gemma-31", "gemini-2.5-flash"):
        assert model_of(name).instructed
