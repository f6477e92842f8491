"""``python -m server``: which commands there are, and how they fail."""

from __future__ import annotations

from pathlib import Path

import pytest

from server import __version__
from server.__main__ import main
from tests.cli.command import command, ended


def left(arguments: list[str]) -> int | str | None:
    with pytest.raises(SystemExit) as ended_with:
        main(arguments)
    return ended_with.value.code


async def test_as_a_module_it_tells_its_version(tmp_path: Path) -> None:
    done = await ended("--version", folder=tmp_path)
    assert (done.status, done.out, done.err) == (0, f"antiphon {__version__}\n", "")


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert left(["--help"]) == 0
    out = capsys.readouterr().out
    for name in ("serve", "check", "watch", "simulate"):
        assert name in out


@pytest.mark.parametrize("name", ["serve", "check", "watch", "simulate"])
def test_each_command_has_its_own_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert left([name, "--help"]) == 0
    assert f"antiphon {name}" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["srve"], ["serve", "--prt", "1"], ["serve", "--port", "x"]])
def test_wrong_usage_is_told_with_status_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert left(arguments) == 2
    assert "usage: antiphon" in capsys.readouterr().err


async def test_a_reader_that_leaves_early_is_no_traceback(tmp_path: Path) -> None:
    """As ``| true`` does."""
    async with command("check", folder=tmp_path) as running:
        assert running.process.stdout is not None
        running.process.stdout._transport.close()  # type: ignore[attr-defined]
        assert running.process.stderr is not None
        said = (await running.process.stderr.read()).decode()
        await running.process.wait()
    assert "Traceback" not in said
