"""What was measured, and how rounds become one figure."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

import msgspec

DISTURBED = 0.05  # share of the time that other work may have the server's core


class Spread(msgspec.Struct, frozen=True):
    """Percentiles of some times, in µs."""

    count: int
    p50: float
    p90: float
    p99: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread | None:
        """None for no values."""
        if not values:
            return None
        ordered = sorted(values)

        def at(share: float) -> float:
            return ordered[round((len(ordered) - 1) * share)]

        return cls(len(ordered), at(0.5), at(0.9), at(0.99), ordered[-1])


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """One scenario with one contestant in one round. Counts are of the window unless said otherwise."""

    window_s: float
    answers: int
    words: int  # chunks that carried text
    good: int  # answers of the whole run
    bad: int  # answers of the whole run that were wrong or did not come; any: there is no result
    first_fault: str | None
    held: int  # streams at once, at most
    whole_us: Spread | None  # from when the request was due to the answer's last byte
    first_us: Spread | None  # … to the first word
    gap_us: Spread | None  # between words of one stream
    transit_us: Spread | None  # from the mock's write to the load's read
    server_cpu_s: float | None  # None: it cannot be known on this system, or there is no server
    rig_cpu_s: float | None  # mock and load together
    server_waited_s: float | None  # ready to run, while something else had its core
    peak_mb: float | None  # resident, sampled
    figures: dict[str, float] = {}  # what an act of bench.acts tells besides, by name

    @property
    def is_good(self) -> bool:
        """Is this a result at all?"""
        return not self.bad and self.good > 0

    @property
    def answers_per_s(self) -> float:
        return self.answers / self.window_s

    @property
    def words_per_s(self) -> float:
        return self.words / self.window_s

    @property
    def server_load(self) -> float | None:
        """The server's share of a core, 0 to 1 (more with more threads)."""
        return None if self.server_cpu_s is None else self.server_cpu_s / self.window_s

    @property
    def disturbance(self) -> float | None:
        """The share of the window in which other work kept the server from its core."""
        return None if self.server_waited_s is None else self.server_waited_s / self.window_s

    @property
    def is_disturbed(self) -> bool:
        """Was it kept from its core for so long that its rates and times are noise?"""
        return (self.disturbance or 0) > DISTURBED

    @property
    def rig_load(self) -> float | None:
        """The rig's share of its core."""
        return None if self.rig_cpu_s is None else self.rig_cpu_s / self.window_s

    @property
    def cpu_us_per_answer(self) -> float | None:
        return (
            self.server_cpu_s * 1e6 / self.answers if self.server_cpu_s is not None and self.answers else None
        )

    @property
    def cpu_us_per_word(self) -> float | None:
        return self.server_cpu_s * 1e6 / self.words if self.server_cpu_s is not None and self.words else None


class Start(msgspec.Struct, frozen=True):
    """How a contestant began."""

    cold_s: float  # from its start to its first good answer
    idle_mb: float | None  # PSS of its processes, some time later
    processes: int


class Record(msgspec.Struct):
    """All rounds of one contestant."""

    name: str
    starts: list[Start] = []
    scenarios: dict[str, list[Measured]] = {}
    faults: list[str] = []  # why it could not be started


class Report(msgspec.Struct):
    """All rounds of all contestants, and what to know when reading them."""

    records: list[Record]
    scenarios: list[str]
    notes: list[str] = []

    def record(self, name: str) -> Record | None:
        """The record of a contestant; None: it did not take part."""
        return next((record for record in self.records if record.name == name), None)

    def rounds(self, name: str, scenario: str) -> list[Measured]:
        """A contestant's rounds of a scenario that count; none if one of them is no result.

        Those in which the server had its core are enough; where there is none of these, all count.
        """
        record = self.record(name)
        rounds = record.scenarios.get(scenario, []) if record else []
        if not all(measured.is_good for measured in rounds):
            return []
        return [measured for measured in rounds if not measured.is_disturbed] or rounds

    def fault(self, name: str, scenario: str) -> str | None:
        """Why a contestant has no result in a scenario; None: it has one, or was not asked."""
        record = self.record(name)
        if record is None:
            return None
        for measured in record.scenarios.get(scenario, []):
            if not measured.is_good:
                return f"{measured.bad} of {measured.bad + measured.good} bad: {measured.first_fault}"
        return record.faults[0] if record.faults else None

    def median(self, name: str, scenario: str, figure: Callable[[Measured], float | None]) -> float | None:
        """The median of the rounds of what ``figure`` reads; None: there is no result."""
        values = [
            value for measured in self.rounds(name, scenario) if (value := figure(measured)) is not None
        ]
        return statistics.median(values) if values else None

    def start(self, name: str, figure: Callable[[Start], float | None]) -> float | None:
        """The median of a contestant's starts."""
        record = self.record(name)
        values = [
            value for start in (record.starts if record else []) if (value := figure(start)) is not None
        ]
        return statistics.median(values) if values else None
