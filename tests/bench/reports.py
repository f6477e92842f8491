"""Measurements out of thin air, for what reads them."""

from __future__ import annotations

import msgspec

from bench.contestants import ANTIPHON, DIRECT, RELAY
from bench.results import Measured, Record, Report, Spread, Start

GOOD = Measured(
    window_s=2,
    answers=200,
    words=20_000,
    good=300,
    bad=0,
    first_fault=None,
    held=64,
    whole_us=Spread(200, 1000, 2000, 3000, 4000),
    first_us=Spread(200, 500, 600, 700, 800),
    gap_us=Spread(200, 10_000, 11_000, 12_000, 13_000),
    transit_us=Spread(200, 100, 200, 300, 400),
    server_cpu_s=1.98,
    rig_cpu_s=1.0,
    server_waited_s=0.0,
    peak_mb=50,
)
BAD = msgspec.structs.replace(GOOD, bad=3, first_fault="no [DONE]")


def changed(**fields: object) -> Measured:
    """A good measurement with other values."""
    return msgspec.structs.replace(GOOD, **fields)


def report(scenario: str, **rounds: list[Measured]) -> Report:
    """A report of one scenario; contestants that are not named were good in one round."""
    records = [
        Record(name, [Start(0.5, 30.0, 1)], {scenario: rounds.get(name, [GOOD])})
        for name in (DIRECT, RELAY, ANTIPHON)
    ]
    return Report(records, [scenario])
