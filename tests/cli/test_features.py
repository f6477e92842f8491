"""What is said of the kinds is what their code does, and what docs/providers.md says."""

from __future__ import annotations

from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from server.cli.features import (
    ADAPTED,
    FEATURES,
    KINDS,
    LEFT_OUT,
    REFUSED,
    RELAYED,
    YES,
    put_into,
    told_of,
    verdict,
)
from server.settings import Channel

PAGE = Path(__file__).parents[2] / "docs" / "providers.md"


def test_the_page_has_the_tables_that_the_code_makes() -> None:
    page = PAGE.read_text("utf-8")
    assert put_into(page) == page, "run `make schemas`"


def test_a_page_without_marks_is_not_written_into() -> None:
    with pytest.raises(ValueError, match="<!-- features -->"):
        put_into("# Providers\n")


def test_every_kind_is_asked() -> None:
    assert set(KINDS) == set(get_args(get_type_hints(Channel)["kind"]))


@pytest.mark.parametrize(
    ("kind", "feature", "what"),
    [
        ("openai", "several choices (`n`)", RELAYED),
        ("anthropic", "an image (data URI)", YES),
        ("anthropic", "`seed`", LEFT_OUT),
        ("anthropic", "several choices (`n`)", REFUSED),
        ("gemini", "calls and their results", ADAPTED),
        ("ollama", "`tool_choice: required`", REFUSED),
        ("spark", "`seed`", LEFT_OUT),
        ("local", "`tools`", REFUSED),
    ],
)
def test_a_verdict_is_what_the_request_shows(kind: str, feature: str, what: str) -> None:
    assert verdict(KINDS[kind], FEATURES[feature]) == what


def test_the_words_are_those_of_the_feature_alone() -> None:
    assert told_of(KINDS["anthropic"], FEATURES["`seed`"]) == ["seed was left out"]
    assert told_of(KINDS["anthropic"], FEATURES["`temperature`"]) == []
    assert told_of(KINDS["anthropic"], FEATURES["several choices (`n`)"]) == []
