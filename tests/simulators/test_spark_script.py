"""The script of a simulated Spark's answer."""

from __future__ import annotations

import re

import pytest

from server.simulators.script import BadScript, read_script
from server.simulators.spark_script import HELP, Source, SparkScript


def test_a_script_says_what_differs_from_a_plain_answer() -> None:
    script = read_script('{"error_code": 10014, "error_after": 2, "soft_form": "after"}', SparkScript)
    assert script == SparkScript(error_code=10014, error_after=2, soft_form="after")
    assert SparkScript() == read_script("{}", SparkScript)


def test_sources_are_named() -> None:
    script = read_script('{"sources": [{"title": "T", "url": "https://t"}]}', SparkScript)
    assert script.sources == (Source("T", "https://t"),)


@pytest.mark.parametrize(
    "wrong",
    [
        "no json",
        "[]",
        '{"unknown": 1}',
        '{"soft_form": "before"}',
        '{"close": "slam"}',
        '{"ping_ms": -1}',
        '{"last_status": "sometimes"}',
        '{"sources": [{"site": "x"}]}',
    ],
)
def test_what_no_script_says_is_refused(wrong: str) -> None:
    with pytest.raises(BadScript):
        read_script(wrong, SparkScript)


def test_the_helps_scripts_are_scripts() -> None:
    told = [line.strip() for line in HELP.splitlines() if line.strip().startswith("{")]
    scripts = [script for line in told for script in re.findall(r"\{(?:[^{}]|\{[^{}]*\})*\}", line)]
    assert len(scripts) >= 8
    for script in scripts:
        read_script(script, SparkScript)
