"""A load's job, the answers that came, and what they amount to."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import msgspec

from bench.check import BadAnswer, Expected, Seen, check_stream, check_whole
from bench.scenarios import Load


class Job(msgspec.Struct, frozen=True):
    """What to ask of whom. ``words`` are those of the right answer."""

    port: int
    path: str
    headers: dict[str, str]
    model: str
    load: Load
    words: int
    exact_usage: bool = True
    watch_path: str | None = None
    server_pid: int | None = None
    mock_pid: int | None = None
    mock_port: int | None = None


class Answer:
    """What came for one request. ``due_us`` is when the schedule wanted it asked."""

    __slots__ = ("at_us", "due_us", "fault", "nonce", "reads")

    def __init__(self, nonce: int, due_us: int) -> None:
        self.nonce = nonce
        self.due_us = due_us
        self.reads: list[bytes] = []
        self.at_us: list[int] = []
        self.fault: str | None = "unfinished"


def judge(answer: Answer, job: Job) -> Seen:
    """The times of one answer's words. Raises BadAnswer."""
    if answer.fault:
        raise BadAnswer(f"{answer.fault}: {answer.reads[-1][-200:]!r}" if answer.reads else answer.fault)
    expected = Expected(answer.nonce, job.words, exact_usage=job.exact_usage)
    check = check_stream if job.load.stream else check_whole
    return check(zip(answer.at_us, answer.reads, strict=True), expected)


def _gaps(arrived: list[int]) -> Iterator[tuple[int, int]]:
    for before, after in pairwise(arrived):
        yield after, after - before


class Tally:
    """Judges the answers and counts what fell into the window."""

    def __init__(self, job: Job, from_us: int, to_us: int) -> None:
        self._job = job
        self._window = range(from_us, to_us)
        self.answers = self.words = self.good = 0
        self.faults: list[str] = []
        self.whole: list[int] = []
        self.first: list[int] = []
        self.gaps: list[int] = []
        self.transits: list[int] = []

    def add(self, answer: Answer) -> None:
        try:
            seen = judge(answer, self._job)
        except BadAnswer as error:
            self.faults.append(str(error))
            return
        self.good += 1
        window, arrived = self._window, seen.arrived_us
        if answer.at_us[-1] in window:
            self.answers += 1
        # D's streams all begin before its window: a first word counts whenever it came after the warm-up.
        if answer.at_us[-1] in window or answer.due_us in window:
            self.whole.append(answer.at_us[-1] - answer.due_us)
            if arrived:
                self.first.append(arrived[0] - answer.due_us)
        self.words += sum(at in window for at in arrived)
        self.gaps += [gap for at, gap in _gaps(arrived) if at in window]
        self.transits += [at - sent for at, sent in zip(arrived, seen.sent_us, strict=True) if at in window]
