"""Every shipped example, examined: each has to be all green."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.config import load
from server.doctor.catalogue import catalogue
from server.doctor.examination import cases, examine

EXAMPLES = Path(__file__).parents[2] / "conf" / "examples"

# One example for each kind, and the one that is about failover, meet every fault; others a few.
WHOLE_LIST = {"failover", "anthropic", "azure", "gemini", "ollama", "spark"}
SOME = {
    "no-fault",
    "status-429",
    "status-500",
    "status-401",
    "tls-expired",
    "cut-after-content",
    "stall-after-content",
    "dead-for-long",
    "handshake-401",
    "dropped-after-content",
}


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: str(path.stem))
async def test_a_shipped_example_is_all_green(path: Path) -> None:
    settings = load(path, {}, rehearsal=True).settings  # as from a shell where no variable is set
    faults = [fault for fault in catalogue() if path.stem in WHOLE_LIST or fault.name in SOME]
    found = await examine(settings, cases(settings, faults), lambda finding: None)
    assert [(one.fault, one.stream, one.wrong) for one in found if one.wrong] == []
    assert found
