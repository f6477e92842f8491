"""How long a model is asked to think."""

from __future__ import annotations

from typing import Any

import pytest

from server.errors import InvalidRequest
from server.gemini_wire import GeminiModel
from tests.gemini_wire.generated import BUDGET, LEVEL, OLD, request


def config(**fields: Any) -> dict[str, Any]:
    made: dict[str, Any] = request(**fields)[0].get("generationConfig", {})
    return made


def enabled(budget: int) -> dict[str, Any]:
    return {"type": "enabled", "budget_tokens": budget}


@pytest.mark.parametrize(
    ("model", "effort", "thinking"),
    [
        (LEVEL, "minimal", {"includeThoughts": True, "thinkingLevel": "low"}),
        (LEVEL, "medium", {"includeThoughts": True, "thinkingLevel": "medium"}),
        (LEVEL, "max", {"includeThoughts": True, "thinkingLevel": "high"}),
        (LEVEL, "none", {"includeThoughts": False, "thinkingLevel": "low"}),
        (GeminiModel("level"), "minimal", {"includeThoughts": True, "thinkingLevel": "minimal"}),
        (BUDGET, "minimal", {"includeThoughts": True, "thinkingBudget": 1024}),
        (BUDGET, "high", {"includeThoughts": True, "thinkingBudget": 24576}),
        (BUDGET, "none", {"thinkingBudget": 0}),
        (GeminiModel("budget"), "none", {"includeThoughts": False, "thinkingBudget": 1024}),
        (OLD, "none", None),
        (OLD, "high", None),
    ],
)
def test_an_effort_is_a_level_or_a_budget(model: GeminiModel, effort: str, thinking: Any) -> None:
    assert config(model=model, reasoning_effort=effort).get("thinkingConfig") == thinking


def test_an_effort_that_cannot_be_had_is_told() -> None:
    assert request(model=OLD, reasoning_effort="high")[1] == (
        "reasoning_effort was left out: the model is not known to think",
    )
    assert request(model=OLD, reasoning_effort="none")[1] == ()
    assert len(request(model=LEVEL, reasoning_effort="none")[1]) == 1


@pytest.mark.parametrize(
    ("model", "fields", "thinking"),
    [
        (BUDGET, {"thinking": enabled(5000)}, {"includeThoughts": True, "thinkingBudget": 5000}),
        (LEVEL, {"thinking": enabled(1024)}, {"includeThoughts": True, "thinkingLevel": "low"}),
        (
            GeminiModel("level"),
            {"thinking": enabled(9)},
            {"includeThoughts": True, "thinkingLevel": "minimal"},
        ),
        (LEVEL, {"thinking": enabled(5000)}, {"includeThoughts": True, "thinkingLevel": "medium"}),
        (LEVEL, {"thinking": enabled(50000)}, {"includeThoughts": True, "thinkingLevel": "high"}),
        (LEVEL, {"thinking": {"type": "adaptive"}}, {"includeThoughts": True}),
        (BUDGET, {"thinking": {"type": "adaptive"}}, {"includeThoughts": True}),
        (
            LEVEL,
            {"thinking": {"type": "adaptive"}, "output_config": {"effort": "max"}},
            {"includeThoughts": True, "thinkingLevel": "high"},
        ),
        (BUDGET, {"output_config": {"effort": "low"}}, {"includeThoughts": True, "thinkingBudget": 1024}),
        (BUDGET, {"thinking": {"type": "disabled"}}, {"thinkingBudget": 0}),
        (
            LEVEL,
            {"reasoning_effort": "low", "thinking": {"type": "disabled"}},
            {"includeThoughts": True, "thinkingLevel": "low"},
        ),
        (OLD, {"thinking": {"type": "adaptive"}}, None),
        (LEVEL, {"output_config": {}}, None),
    ],
)
def test_the_wish_of_an_anthropic_client_is_understood(
    model: GeminiModel, fields: dict[str, Any], thinking: Any
) -> None:
    assert config(model=model, **fields).get("thinkingConfig") == thinking


def test_which_field_could_not_be_had_is_told() -> None:
    assert request(model=OLD, thinking=enabled(9))[1] == (
        "thinking was left out: the model is not known to think",
    )
    assert request(model=LEVEL, thinking={"type": "disabled"})[1] == (
        "thinking was raised to the least: this model always thinks",
    )


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"reasoning_effort": "mighty"}, "reasoning_effort"),
        ({"reasoning_effort": 7}, "reasoning_effort"),
        ({"output_config": {"effort": "mighty"}}, "output_config.effort"),
        ({"thinking": True}, "thinking"),
        ({"thinking": {"type": "enabled"}}, "thinking"),
        ({"thinking": enabled(0)}, "thinking"),
        ({"thinking": {"type": "deep"}}, "thinking"),
    ],
)
def test_a_wish_that_nobody_can_read_is_refused(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        request(**fields)
    assert (raised.value.param, raised.value.code) == (param, "invalid_value")
