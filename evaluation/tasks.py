"""Procedural tasks with one right number, made by reasoning-gym: as many as one wants, never seen before.

Of that library only the arithmetic is loaded. Its package would import all it has, and with it a SAT solver,
plots and games; a bare package object in its place lets the one part be imported alone.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any, Protocol

from server.coordinator.values import value_of
from server.strategy_settings import Vote

PACKAGE = "reasoning_gym"
ASKED = "\n\nEnd with a line that holds the number alone."
NUMBER = Vote(type="number")
KINDS: Mapping[str, Mapping[str, Any]] = {
    "chain_sum": {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1},
    "gcd": {"min_value": 2, "max_value": 40},
    "leg_counting": {"min_animals": 1, "max_animals": 2, "min_instances": 1, "max_instances": 5},
    "products": {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 2},
    "gsm_symbolic": {},
}
"""Which tasks, and how hard: from what the smallest models can do to what good ones may get wrong."""


class NoTasks(Exception):
    """reasoning-gym is not installed, or not the version that is known here."""


class _Dataset(Protocol):
    def __getitem__(self, place: int) -> dict[str, Any]: ...

    def score_answer(self, answer: str | None, entry: dict[str, Any]) -> float: ...


class GymTask:
    """One task: its words, and a judgement of answers."""

    def __init__(self, kind: str, dataset: _Dataset, place: int) -> None:
        self.kind = kind
        self._dataset = dataset
        self._entry = dataset[place]
        self.question = str(self._entry["question"]).strip() + ASKED

    def is_right(self, text: str) -> bool:
        """Is the number on the last line of ``text`` the answer, by the library's own scorer?"""
        value = value_of(text, NUMBER)
        return value is not None and self._dataset.score_answer(value, self._entry) == 1.0


def make_tasks(count: int, seed: int, kinds: Sequence[str] = tuple(KINDS)) -> list[GymTask]:
    """``count`` tasks of these kinds by turns; the same seed makes the same ones. Raises ``NoTasks``."""
    create = _creator()
    each = -(-count // len(kinds))
    datasets: dict[str, _Dataset] = {
        kind: create(kind, seed=seed, size=each, **KINDS[kind]) for kind in kinds
    }
    return [GymTask(kind, datasets[kind], place) for place in range(each) for kind in kinds][:count]


def _creator() -> Any:
    if PACKAGE not in sys.modules:
        spec = importlib.util.find_spec(PACKAGE)
        if spec is None or spec.submodule_search_locations is None:
            raise NoTasks("reasoning-gym is not installed: make install-dev does that")
        bare = ModuleType(PACKAGE)
        bare.__path__ = list(spec.submodule_search_locations)
        sys.modules[PACKAGE] = bare
    try:
        importlib.import_module(f"{PACKAGE}.arithmetic")
        return importlib.import_module(f"{PACKAGE}.factory").create_dataset
    except ImportError as error:
        raise NoTasks(f"reasoning-gym cannot be loaded ({error}): make install-dev mends that") from error
