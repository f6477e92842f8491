"""``antiphon check``: everything that is wrong with its place, or what would be served."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.cli import main
from tests.cli.command import ROOT, ended

SECRET = "sk-check-0123456789abcdef"
GOOD = """\
access:
  keys: [{name: me, key: "${MY_KEY}"}]
channels:
  - {name: c, kind: openai, base_url: "https://api.example.com/v1", api_key: "${MY_KEY}", models: [a, b]}
combinations:
  - {name: panel, members: [{model: a}, {model: b}], summary: {model: a}}
"""


def check(folder: Path, text: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    path = folder / "config.yaml"
    path.touch(mode=0o600)
    path.write_text(text, encoding="utf-8")
    status = main(["check", str(path)])
    said = capsys.readouterr()
    return status, said.out, said.err


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ANTIPHON_CONFIG", "ANTIPHON_KEYS", "ANTIPHON_HOST", "ANTIPHON_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MY_KEY", SECRET)


def test_a_good_file_lists_what_would_be_served_and_no_secret(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = check(tmp_path, GOOD, capsys)
    assert (status, err) == (0, "")
    for word in ("127.0.0.1", "18888", "me", "panel", "synthesize", "a  by c", "b  by c"):
        assert word in out
    assert SECRET not in out


def test_without_secrets_the_form_is_checked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MY_KEY")
    path = tmp_path / "config.yaml"
    path.write_text(GOOD)
    assert main(["check", str(path)]) == 2
    assert "the variable MY_KEY is not set" in capsys.readouterr().err
    assert main(["check", "--no-secrets", str(path)]) == 0
    assert "not set: MY_KEY" in capsys.readouterr().out
    path.write_text(GOOD.replace("quorum", "").replace("models: [a, b]", "models: [b]"))
    assert main(["check", "--no-secrets", str(path)]) == 2


@pytest.mark.parametrize(
    "path", sorted((ROOT / "conf" / "examples").glob("*.yaml")), ids=lambda one: one.stem
)
def test_each_example_is_right_whatever_its_secrets(path: Path) -> None:
    assert main(["check", "--no-secrets", str(path)]) == 0


def test_every_fault_is_told_at_once_with_its_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = GOOD.replace("models: [a, b]", "modles: [a, b]").replace("summary: {model: a}", "quorum: many")
    status, out, err = check(tmp_path, wrong, capsys)
    assert (status, out) == (2, "")
    places = [line.partition(": ")[0].rpartition("config.yaml:")[2] for line in err.splitlines()]
    assert {place.partition(":")[0] for place in places} >= {"4", "6"}
    assert "models" in err
    assert SECRET not in err


def test_a_variable_that_is_not_set_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MY_KEY")
    status, _, err = check(tmp_path, GOOD, capsys)
    assert status == 2
    assert "MY_KEY" in err


def test_a_file_that_is_not_there_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(tmp_path / "nowhere.yaml")]) == 2
    assert "nowhere.yaml" in capsys.readouterr().err


def test_the_file_we_ship_is_good_from_anywhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["check"]) == 0
    out = capsys.readouterr().out
    assert "parallel" in out
    assert "local/smollm2-135m" in out


@pytest.mark.parametrize("example", sorted((ROOT / "conf" / "examples").glob("*.yaml")), ids=lambda p: p.name)
def test_each_example_needs_nothing_but_its_variables(
    example: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = main(["check", str(example)])
    faults = capsys.readouterr().err.splitlines()
    assert status == 0 or all("${" in fault or "not set" in fault for fault in faults), faults


async def test_as_a_process_it_says_the_same_and_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("channels:\n  - {name: c, kind: opnai}\n", encoding="utf-8")
    done = await ended("check", "config.yaml", folder=tmp_path)
    assert (done.status, done.out) == (2, "")
    assert "config.yaml:2:" in done.err
    assert "openai" in done.err
    assert "Traceback" not in done.err


def test_it_lists_the_presets(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--presets"]) == 0
    assert "| `deepseek` | `https://api.deepseek.com/v1` |" in capsys.readouterr().out


def test_a_channels_preset_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = 'channels: [{name: c, kind: openai, preset: zhipu, api_key: "${MY_KEY}", models: [a]}]'
    status, out, _ = check(tmp_path, text, capsys)
    assert status == 0
    assert "c  openai (preset zhipu), 1 model" in out
