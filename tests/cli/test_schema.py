"""``antiphon schema``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from server.__main__ import main
from server.cli.features import document


def test_documents_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    for what in ("events", "asyncapi"):
        assert main(["schema", what]) == 0
        assert json.loads(capsys.readouterr().out)
    assert main(["schema", "features"]) == 0
    assert capsys.readouterr().out == document()


def test_tables_are_put_between_their_marks_and_nowhere_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- features -->\nold\n<!-- end of features -->\nb\n", "utf-8")
    assert main(["schema", "features", "--into", str(page)]) == 0
    assert page.read_text("utf-8") == f"a\n<!-- features -->\n{document()}<!-- end of features -->\nb\n"
    page.write_text("nothing\n", "utf-8")
    assert main(["schema", "features", "--into", str(page)]) == 2
    assert "has no" in capsys.readouterr().err
    assert main(["schema", "features", "--into", str(tmp_path / "none.md")]) == 2
