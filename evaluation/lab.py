"""Carries out entries of panels, keeps every raw result, and asks nothing twice."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import msgspec

from evaluation.arena import Result, contest
from evaluation.panels import Entry, Panel


class Lab:
    """``folder`` gets a file of JSON lines for each panel and entry; ``tell`` hears what is under way."""

    def __init__(self, seed: str, folder: Path, tell: Callable[[str], None]) -> None:
        self.seed = seed
        self.calls = 0
        self._folder = folder
        self._tell = tell
        self._kept: dict[tuple[str, str, int, int], list[Result]] = {}
        self._files: dict[str, tuple[str, str, int]] = {}

    def run(self, panel: Panel, entry: Entry, n: int, first: int = 0) -> list[Result]:
        """The results of ``n`` items from number ``first`` on, in their order."""
        key = (panel.name, entry.label, first, n)
        if key not in self._kept:
            self._tell(f"{panel.name}: {entry.label}, {n} questions")
            items = range(first, first + n)
            results = contest(
                panel.world(self.seed), panel.models(self.seed), entry.combination(panel), items
            )
            self.calls += sum(one.calls for one in results)
            self._keep(panel, entry, first, results)
            self._kept[key] = results
        return self._kept[key]

    def right(self, panel: Panel, entry: Entry, n: int) -> list[bool]:
        """Which of the first ``n`` items it answered right."""
        return [one.right for one in self.run(panel, entry, n)]

    def _keep(self, panel: Panel, entry: Entry, first: int, results: list[Result]) -> None:
        name = re.sub(r"[^a-z0-9.]+", "-", f"{panel.name} {entry.label} {first or ''}".lower()).strip("-")
        mine = (panel.name, entry.label, first)
        if self._files.setdefault(name, mine) != mine:
            raise ValueError(f"{mine} and {self._files[name]} would share a file of raw results")
        self._folder.mkdir(parents=True, exist_ok=True)
        lines = b"".join(msgspec.json.encode(one) + b"\n" for one in results)
        (self._folder / f"{name}.jsonl").write_bytes(lines)
