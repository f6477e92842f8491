"""docs/channels.md: each example that it shows can be read, and is the one that ships."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from server.config import load
from server.settings import Settings

ROOT = Path(__file__).parents[2]
SHOWN = re.findall(
    r"```yaml\n# (conf/examples/[\w-]+\.yaml)\n(.*?)```",
    (ROOT / "docs" / "channels.md").read_text("utf-8"),
    re.DOTALL,
)
NAMED = re.compile(r"\$\{([A-Z0-9_]+)\}")
COMMENTED = re.compile(r"^\s*#.*$", re.MULTILINE)


def _read(path: Path) -> Settings:
    names = NAMED.findall(COMMENTED.sub("", path.read_text("utf-8")))
    return load(path, {name: f"secret-{name}" for name in names}).settings


def test_the_page_shows_examples() -> None:
    assert len(SHOWN) >= 6


@pytest.mark.parametrize(("name", "text"), SHOWN, ids=[name for name, _ in SHOWN])
def test_an_example_on_the_page_is_the_one_that_ships(name: str, text: str, tmp_path: Path) -> None:
    shown = tmp_path / "shown.yaml"
    shown.write_text(text, "utf-8")
    ours, theirs = _read(shown), _read(ROOT / name)
    for mine, other in zip(ours.channels, theirs.channels, strict=True):
        assert (mine.name, mine.kind, set(mine.served())) == (other.name, other.kind, set(other.served()))
        assert (mine.priority, mine.weight) == (other.priority, other.weight)
        assert (mine.max_concurrency, mine.params, mine.list_only) == (
            other.max_concurrency,
            other.params,
            other.list_only,
        )
