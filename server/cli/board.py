"""What a watcher knows of the runs that it follows: bounded, without I/O, and told the time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from server.events import (
    Event,
    ModelFailed,
    ModelFirstToken,
    SummaryFailed,
    SummaryFirstToken,
    SummaryStarted,
)
from server.run_view import CallView, RunView

MAX_RUNS = 50
MAX_FAILURES = 20
KEPT_TEXT = 4000
"""Code points kept of the end of each text, to be shown."""

CHARS_PER_TOKEN = 4  # as the server estimates where nobody has counted


class Watched:
    """One run: its fold, and what a watcher adds to it. ``now`` is monotonic, in seconds."""

    def __init__(self, view: RunView, now: float) -> None:
        self.view = view
        self.failures: list[tuple[str, str]] = []  # lane, what went wrong
        self.lost = False  # will its end never be heard?
        self.thinking: set[str] = set()  # lanes whose first token was reasoning
        self._heard_at = now
        self._seen: dict[str, tuple[int, int]] = {}  # lane → elapsed_ms and tokens, when first seen writing

    @property
    def lanes(self) -> list[CallView]:
        """The calls in the order of their lanes: the members, then the summary."""
        view = self.view
        if view.summary is not None:
            return [*view.members.values(), view.summary]
        if view.summary_model is not None:
            return [*view.members.values(), CallView("summary", view.summary_model)]
        return list(view.members.values())

    def hear(self, event: Event, now: float) -> None:
        """Take the next event."""
        view, data = self.view, event.data
        view.apply(event)
        self._heard_at = now
        lane = event.member.id if event.member is not None else "summary"
        match data:
            case ModelFailed():
                self._fail(lane, f"{_code(data.http_status, data.code)}: {data.message}")
            case SummaryFailed():
                self._fail(lane, _code(data.http_status, data.code))
            case ModelFirstToken(kind="reasoning") | SummaryFirstToken(kind="reasoning"):
                self.thinking.add(lane)
            case SummaryStarted():
                self._seen.pop(lane, None)
            case _:
                pass
        call = view.summary if lane == "summary" else view.members.get(lane)
        if call is None:
            return
        for kind, text in call.text.items():
            if len(text) > KEPT_TEXT:
                call.text[kind] = text[-KEPT_TEXT:]
        if call.chars:
            self.thinking.discard(lane)
        if call.ttft_ms is not None and not call.ended and lane not in self._seen:
            self._seen[lane] = (view.elapsed_ms, tokens_of(call)[0])

    def elapsed_ms(self, now: float) -> int | None:
        """Since the run was accepted; None as long as no event has told it."""
        view = self.view
        if view.timings and view.timings.get("total_ms") is not None:
            return int(view.timings["total_ms"])
        if not view.elapsed_ms or view.ended or self.lost:
            return view.elapsed_ms or None
        return view.elapsed_ms + max(0, int((now - self._heard_at) * 1000))

    def rate(self, call: CallView) -> float | None:
        """Tokens a second since the first one; None while that says nothing."""
        tokens, _ = tokens_of(call)
        if call.ended:
            if call.latency_ms is None or call.ttft_ms is None:
                return None
            span_ms, before = call.latency_ms - call.ttft_ms, 0
        elif call.id in self._seen:
            since, before = self._seen[call.id]
            span_ms = self.view.elapsed_ms - since
        else:
            return None
        if span_ms < 200 or tokens <= before:
            return None
        return (tokens - before) / (span_ms / 1000)

    def _fail(self, lane: str, text: str) -> None:
        if len(self.failures) < MAX_FAILURES:
            self.failures.append((lane, text))


class Board:
    """The runs under way, oldest first. At most ``limit``; then the oldest are let go, and only counted."""

    def __init__(self, limit: int = MAX_RUNS) -> None:
        self.runs: dict[str, Watched] = {}
        self.ended = 0
        self.let_go = 0
        self._limit = limit

    def reset(self, snapshots: Iterable[Mapping[str, Any]], now: float) -> list[Watched]:
        """Begin anew from snapshots; returns the runs under way of which they do not tell."""
        before = self.runs
        self.runs = {}
        for told in snapshots:
            view = RunView.from_snapshot(told)
            self._add(view.id, Watched(view, now))
        lost = [run for id, run in before.items() if id not in self.runs]
        for run in lost:
            run.lost = True
        return lost

    def hear(self, event: Event, now: float) -> Watched | None:
        """Take an event; returns the run that it is of, None for one that is not followed."""
        run = self.runs.get(event.run_id)
        if run is None:
            if event.type != "run.created":
                return None
            run = Watched(RunView(event.run_id), now)
            self._add(event.run_id, run)
        run.hear(event, now)
        return run

    def remove(self, run: Watched) -> None:
        """Let go of a run that has ended and been shown."""
        self.runs.pop(run.view.id, None)
        self.ended += 1

    def _add(self, id: str, run: Watched) -> None:
        self.runs[id] = run
        while len(self.runs) > self._limit:
            del self.runs[next(iter(self.runs))]
            self.let_go += 1


def tokens_of(call: CallView) -> tuple[int, bool]:
    """The tokens that a call has written, and whether that is only an estimate."""
    usage = call.usage
    if usage and usage.get("completion_tokens"):
        return int(usage["completion_tokens"]), bool(usage.get("estimated"))
    estimate = -(-call.chars // CHARS_PER_TOKEN)
    return max(estimate, call.tokens_estimated or 0), True


def _code(http_status: int | None, code: str) -> str:
    return code if http_status is None else f"{http_status} {code}"
