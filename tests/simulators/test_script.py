from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.simulators.script import (
    HELP,
    BadScript,
    Script,
    ToolCall,
    field_help,
    read_script,
    read_scripts,
    script_in_message,
    script_in_model,
    words,
)


@pytest.mark.parametrize(
    ("model", "script"),
    [
        ("sim", Script()),
        ("sim-c20-d10-f100", Script(chunks=20, pace_ms=10, first_ms=100)),
        ("sim-h50-p7-n-u", Script(delay_ms=50, split_at=7, done=0, usage="always")),
        ("sim-e429-a3", Script(status=429, retry_after=3)),
        ("sim-k5", Script(cut_after=5, cut="fin")),
        ("sim-r5", Script(cut_after=5, cut="rst")),
        ("sim-o0", Script(cut_after=0, cut="clean")),
        ("sim-b99", Script(cut_at_byte=99)),
        ("sim-s3", Script(stall_after=3)),
        ("sim-x0", Script(error_after=0)),
        ("sim-q", Script(silent=True)),
        ("sim-z1000", Script(huge_bytes=1000)),
        ("sim-t2-y2", Script(tools=(ToolCall(), ToolCall()), reasoning=("thought1", " thought2"))),
        ("sim-c2@first member", Script(chunks=2)),
        ("vendor/deep/sim-c2", Script(chunks=2)),
    ],
)
def test_a_model_name_spells_a_script(model: str, script: Script) -> None:
    assert script_in_model(model) == script


@pytest.mark.parametrize("model", ["gpt-5", "simple", "simulated-c3", "a/simple", "SIM-c3", "x-sim-c3"])
def test_another_model_name_spells_none(model: str) -> None:
    assert script_in_model(model) is None


@pytest.mark.parametrize(
    "model", ["sim-", "sim-c", "sim-w5", "sim-q3", "sim-c-3", "sim-e42", "sim-c3x", "sim--c3"]
)
def test_a_misspelled_model_name_is_told(model: str) -> None:
    with pytest.raises(BadScript, match="model name"):
        script_in_model(model)


@given(st.text(max_size=30).map(lambda tail: f"sim-{tail}"))
def test_any_name_is_read_or_refused(model: str) -> None:
    try:
        script_in_model(model)
    except BadScript:
        pass  # the other allowed end


def test_a_line_of_a_message_spells_a_script() -> None:
    text = 'Please\nsim: {"chunks": 3, "cut": "rst"}\r\nthank you'
    assert script_in_message(text) == Script(chunks=3, cut="rst")


@pytest.mark.parametrize("text", ["", "sim", "a sim: {}", "sim: three", "simulate: {}"])
def test_a_message_without_such_a_line_spells_none(text: str) -> None:
    assert script_in_message(text) is None


@pytest.mark.parametrize("text", ['sim: {"chunks": -1}', "sim: {chunks}", 'sim: {"unheard_of": 1}'])
def test_a_misspelled_line_is_told(text: str) -> None:
    with pytest.raises(BadScript, match="JSON object of known fields"):
        script_in_message(text)


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"3", b'{"cut": "axe"}', b'{"status": 99}', b'{"x": 1}', b"\xff"]
)
def test_what_is_no_script_is_refused(data: bytes) -> None:
    with pytest.raises(BadScript):
        read_script(data, Script)


def test_scripts_come_alone_or_in_an_array() -> None:
    assert read_scripts(b'{"n": 2}', Script) == [Script(n=2)]
    assert read_scripts(b'[{"n": 2}, {}]', Script) == [Script(n=2), Script()]
    with pytest.raises(BadScript):
        read_scripts(b'[{"n": "two"}]', Script)


def test_a_script_survives_its_json() -> None:
    script = Script(
        inject={0: "a", 3: "b"},
        split_at=(1, 2),
        tools=(ToolCall(id="c"),),
        headers={"server": None},
        cut="rst",
    )
    assert read_script(msgspec.json.encode(script), Script) == script


def test_words_can_be_counted() -> None:
    assert "".join(words(3)) == "word1 word2 word3"
    assert words(0) == ()


def test_the_help_names_every_letter_and_field() -> None:
    for letter in "abcdefhknopqrstuxyz":
        assert f"-{letter}" in HELP
    for field in Script.__struct_fields__:
        assert f"  {field} = " in field_help(Script())
