"""Warnings of a budget that would not hold, and prices that are none."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.settings import Settings
from tests.config_files import Read, faults, reader, warnings


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Read:
    monkeypatch.chdir(tmp_path)
    return reader(tmp_path)


def config(model: str, more: str = "max_cost: 0.1") -> str:
    return f"""\
channels:
  - {{name: c, kind: openai, base_url: https://api.example.com/v1, models: {{a: {{{model}}}}}}}
combinations:
  - {{name: p, members: [{{model: a}}], vision_members: [{{model: a}}], summary: {{model: a}}, {more}}}
"""


def served(settings: Settings) -> object:
    models = settings.channels[0].models
    assert isinstance(models, dict)
    return models["a"].price


def test_a_price_is_read_and_a_wrong_one_refused(read: Read) -> None:
    text = config("price: {input: 0.28, output: 0.42}, context_length: 9000")
    assert warnings(read, text) == []
    price = served(read(text).settings)
    assert price is not None
    for wrong in ("{input: -1, output: 1}", "{input: 1}", "free", "{input: 1, output: 1, per: token}"):
        assert faults(read, config(f"price: {wrong}"))


def test_a_budget_over_a_model_without_a_price_is_warned_of(read: Read) -> None:
    (warning,) = warnings(read, config("context_length: 9000"))
    assert "max_cost: does not hold for a, which has no price on c" in warning


def test_a_budget_over_a_model_without_a_limit_is_warned_of(read: Read) -> None:
    (warning,) = warnings(read, config("price: {input: 1, output: 1}"))
    assert "max_cost: does not hold for a where a request sets no max_tokens" in warning
    limited = config("price: {input: 1, output: 1}", "max_cost: 1, draft_max_tokens: 9")
    assert len(warnings(read, limited)) == 1  # the summary's answer has no limit by that
    alone = limited.replace("summary: {model: a}", "strategy: race")
    assert warnings(read, alone) == []


def test_what_to_do_over_a_budget_is_of_no_use_without_one(read: Read) -> None:
    (warning,) = warnings(read, config("price: {input: 1, output: 1}", "over_budget: refuse"))
    assert "over_budget: is not used without max_cost" in warning


def test_a_budget_of_nothing_is_none(read: Read) -> None:
    assert faults(read, config("price: {input: 1, output: 1}", "max_cost: 0"))
