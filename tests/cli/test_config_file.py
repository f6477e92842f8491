"""The configuration file on the command line: the same two ways for every command that reads one."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

import pytest

from server.cli import main

READING = ("serve", "check", "doctor")


def parsed(name: str, *arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=name)
    importlib.import_module(f"server.cli.{name}").add_arguments(parser)
    return parser.parse_args(arguments)


@pytest.mark.parametrize("name", READING)
def test_a_file_is_a_word_or_an_option(name: str) -> None:
    file = Path("some.yaml")
    assert parsed(name).file is None
    assert parsed(name, "some.yaml").file == file
    assert parsed(name, "--config", "some.yaml").file == file
    assert parsed(name, "--config=some.yaml").file == file


@pytest.mark.parametrize("name", READING)
def test_two_files_are_wrong_usage(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (("a.yaml", "--config", "b.yaml"), ("--config", "a.yaml", "b.yaml")):
        with pytest.raises(SystemExit) as left:
            parsed(name, *arguments)
        assert left.value.code == 2
        assert "named twice" in capsys.readouterr().err


def test_channels_to_test_are_words_too_but_never_end_as_a_file_does() -> None:
    assert parsed("test", "--config", "some.yaml", "one", "two").file == Path("some.yaml")
    assert parsed("test", "--config", "some.yaml", "one", "two").words == ["one", "two"]
    assert parsed("test", "some.yaml", "one").words == ["some.yaml", "one"]


@pytest.mark.parametrize("name", ["check", "test", "doctor"])
@pytest.mark.parametrize("way", [["nowhere.yaml"], ["--config", "nowhere.yaml"]], ids=["word", "option"])
def test_a_file_that_is_not_there_is_told_whichever_way_it_was_named(
    name: str,
    way: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([name, *way]) == 2
    assert "nowhere.yaml: there is no such file" in capsys.readouterr().err


@pytest.mark.parametrize("name", [*READING, "test", "watch", "replay", "schema"])
def test_the_help_has_examples_and_tells_the_status(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([name, "--help"])
    out = capsys.readouterr().out
    assert "examples:" in out
    assert "status: 0" in out
    assert f"  antiphon {name}" in out
    assert ("--config FILE" in out) is (name in {*READING, "test"})
