"""The quick form from beginning to end: the promises hold, and the same seed gives the same page."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from evaluation.__main__ import FIGURES, KEPT, WRONG, main, write
from evaluation.bars import bars
from evaluation.figures import Figures
from evaluation.report import COLUMNS, report
from tests.evaluation.tiny import tiny

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> tuple[Figures, Path]:
    folder = tmp_path_factory.mktemp("evaluation")
    assert main(["--quick", "--results", str(folder)]) == KEPT
    return msgspec.json.decode((folder / "figures.json").read_bytes(), type=Figures), folder


def test_every_promise_holds(quick: tuple[Figures, Path]) -> None:
    assert {one.title: one.found for one in bars(quick[0]) if not one.kept} == {}


def test_there_are_settings_in_which_the_combination_loses(quick: tuple[Figures, Path]) -> None:
    figures, folder = quick
    lost = {one.panel for one in figures.votes if one.equal_to_best.verdict == "worse"}
    assert "0.90 0.60 0.60" in lost
    assert "Here the combination loses" in (folder / "evaluation.md").read_text()


def test_a_vote_that_is_weighted_loses_nowhere(quick: tuple[Figures, Path]) -> None:
    assert [one.panel for one in quick[0].votes if one.weighted_to_best.verdict == "worse"] == []


def test_nothing_fails_where_nothing_goes_wrong(quick: tuple[Figures, Path]) -> None:
    quiet, trouble = quick[0].strategies
    assert {one.label: one.failed for one in quiet.rows if one.failed} == {}
    lone, *rows = trouble.rows
    assert lone.failed > max(one.failed for one in rows)


def test_raw_results_are_kept_for_every_entry(quick: tuple[Figures, Path]) -> None:
    files = list(quick[1].glob("*.jsonl"))
    assert len(files) > 200
    assert all(path.read_bytes().endswith(b"}\n") for path in files)


def test_the_page_of_the_quick_form_is_written_beside_the_results(quick: tuple[Figures, Path]) -> None:
    figures, folder = quick
    assert (folder / "evaluation.md").read_text() == report(figures)
    assert (folder / "evaluation.svg").read_text().startswith("<svg ")


def test_the_same_seed_gives_the_same_page_in_another_process(tmp_path: Path) -> None:
    figures = tiny(tmp_path / "one")
    made = subprocess.run(
        [sys.executable, "-m", "tests.evaluation.tiny", str(tmp_path / "two")],
        cwd=ROOT,
        env=os.environ | {"PYTHONHASHSEED": "7"},
        capture_output=True,
        check=True,
        timeout=150,
    )
    assert made.stdout.decode() == report(figures)
    kept = [
        sorted((path.name, path.read_bytes()) for path in (tmp_path / one).iterdir())
        for one in ("one", "two")
    ]
    assert kept[0] == kept[1]


def test_the_page_in_docs_is_what_its_figures_make(tmp_path: Path) -> None:
    figures = msgspec.json.decode((ROOT / FIGURES).read_bytes(), type=Figures)
    assert not figures.quick
    assert {one.title: one.found for one in bars(figures) if not one.kept} == {}
    write(figures, tmp_path)
    for name in ("evaluation.md", "evaluation.svg"):
        assert (tmp_path / name).read_text() == (ROOT / "docs" / name).read_text(), (
            "run python -m evaluation --only page"
        )


def test_the_page_in_docs_rests_on_enough_questions() -> None:
    figures = msgspec.json.decode((ROOT / FIGURES).read_bytes(), type=Figures)
    assert figures.bar.n >= 5000
    assert len(figures.votes) == 12
    assert min(one.n for one in figures.votes) >= 2000
    assert min(one.n for one in figures.strategies) >= 2000


def test_only_tables_of_the_page_have_long_lines(quick: tuple[Figures, Path]) -> None:
    prose = [line for line in report(quick[0]).split("\n") if not line.startswith("|")]
    assert max(map(len, prose)) <= COLUMNS


def test_no_place_of_the_page_is_left_open(quick: tuple[Figures, Path]) -> None:
    assert not re.search(r"\$[a-z]|\{[a-z_]+\}", report(quick[0]))


@pytest.mark.usefixtures("logging_is_put_back")
def test_models_of_ones_own_are_refused_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("channels: [{name: v, kind: openai, base_url: 'http://127.0.0.1:9', models: [big]}]\n")
    given = ["--config", str(config), "--models", "bigg", "--tasks", "1", "--results", str(tmp_path / "raw")]
    assert main(given) == WRONG
    assert "bigg" in capsys.readouterr().err
    assert main(["--config", str(tmp_path / "absent.yaml"), "--models", "big"]) == WRONG
    assert "no such file" in capsys.readouterr().err


@pytest.mark.usefixtures("logging_is_put_back")
def test_accuracies_of_ones_own_models_are_kept(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    # Nobody listens there: every call fails, which is an accuracy too.
    config.write_text("channels: [{name: v, kind: openai, base_url: 'http://127.0.0.1:9', models: [big]}]\n")
    given = ["--config", str(config), "--models", "big", "--tasks", "1", "--results", str(tmp_path / "raw")]
    assert main(given) == KEPT
    kept = msgspec.json.decode((tmp_path / "raw" / "accuracies.json").read_bytes())
    assert kept == {"tasks": 1, "accuracies": {"big": 0.0}}
    assert len((tmp_path / "raw" / "real models.jsonl").read_bytes().splitlines()) == 5
