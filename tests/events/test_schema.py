"""The schema of events: complete, current, and strict enough to find a fault."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from server.events import DATA_TYPES
from server.events.schema import events_schema
from tests.schemas import EVENTS, check_told

ROOT = Path(__file__).parents[2]
RUNS = sorted((ROOT / "tests/data").glob("run_*.jsonl"))
TOLD: dict[str, Any] = {
    "v": 1,
    "type": "model.first_token",
    "sequence_number": 3,
    "time": "2026-11-21T09:00:02.140Z",
    "elapsed_ms": 5,
    "run_id": "run_x",
    "stage": {"id": "draft.1", "name": "draft", "round": 1},
    "member": {"id": "m1", "model": "m", "sample": 1, "attempt": 1},
    "data": {"ttft_ms": 5, "kind": "text"},
}


def test_the_file_in_the_documentation_is_current() -> None:
    written = msgspec.json.decode((ROOT / "docs/events.schema.json").read_bytes())
    assert written == events_schema(), "run make schemas"


def test_every_type_has_its_schema() -> None:
    assert [one["$ref"].rpartition("/")[2] for one in EVENTS["anyOf"]] == list(DATA_TYPES)
    assert set(DATA_TYPES) <= set(EVENTS["$defs"])


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_documented_runs_fit(path: Path) -> None:
    for line in path.read_bytes().splitlines():
        check_told(msgspec.json.decode(line))


def test_an_event_fits() -> None:
    check_told(TOLD)


@pytest.mark.parametrize(
    "fault",
    [
        {"v": 2},
        {"sequence_number": 0},
        {"sequence_number": "3"},
        {"elapsed_ms": -1},
        {"run_id": None},
        {"member": {"id": "m1"}},
        {"member": ...},
        {"stage": ...},
        {"volatile": True},
        {"data": {}},
        {"data": {"ttft_ms": 5, "kind": "text", "text": "secret"}},
        {"data": {"ttft_ms": "5", "kind": "text"}},
        {"type": "model.finished"},
        {"prompt": "secret"},
    ],
)
def test_a_fault_is_found(fault: dict[str, Any]) -> None:
    faulty = {key: value for key, value in (TOLD | fault).items() if value is not ...}
    with pytest.raises(AssertionError):
        check_told(faulty)
