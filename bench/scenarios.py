"""What is measured: the models that the mock plays, and the load of each scenario."""

from __future__ import annotations

import msgspec


class Pace(msgspec.Struct, frozen=True):
    """How the mock answers for a model: one chunk a word; whole answers come when the last word would."""

    words: int
    first_ms: int = 0
    every_ms: int = 0  # between words; 0: as fast as they can be written
    pad: int = 0  # letters behind each word of a stream


WHOLE = "rig-whole"

#: Model name → pace. The name is what travels, so it passes through any gateway.
MODELS: dict[str, Pace] = {
    WHOLE: Pace(words=225),  # 1 KB of text
    "rig-burst": Pace(words=100),
    "rig-10ms": Pace(words=100, every_ms=10),
    "rig-20ms": Pace(words=100, every_ms=20),
    "rig-short": Pace(words=20, first_ms=20, every_ms=5),
    "rig-slow": Pace(words=50, every_ms=200),
    "rig-member-100": Pace(words=40, first_ms=100, every_ms=10),
    "rig-member-200": Pace(words=40, first_ms=200, every_ms=10),
    "rig-member-300": Pace(words=40, first_ms=300, every_ms=20),
    "rig-member-800": Pace(words=40, first_ms=800, every_ms=10),
    "rig-summary": Pace(words=60, first_ms=150, every_ms=10),
    **{
        f"rig-wide-{first_ms}": Pace(words=10, first_ms=first_ms, every_ms=200)
        for first_ms in range(100, 600, 100)
    },
    **{
        f"rig-text-{first_ms}": Pace(words=150, first_ms=first_ms, every_ms=40)
        for first_ms in range(100, 600, 100)
    },
    "rig-flood": Pace(words=300, every_ms=10, pad=20_000),
}
MEMBERS = tuple(name for name in MODELS if name.startswith("rig-member-"))
SUMMARY = "rig-summary"
WIDE = tuple(name for name in MODELS if name.startswith("rig-wide-"))
TEXT = tuple(name for name in MODELS if name.startswith("rig-text-"))
PANEL, WIDE_PANEL, TEXT_PANEL = "rig-panel", "rig-wide-panel", "rig-text-panel"
PANELS = {PANEL: MEMBERS, WIDE_PANEL: WIDE, TEXT_PANEL: TEXT}
"""The rig's combinations: their members; the summary of each is SUMMARY."""


class Load(msgspec.Struct, frozen=True):
    """Who asks, how often, and when it counts. The window opens ``warmup_s`` after the start."""

    connections: int
    stream: bool = True
    per_s: float = (
        0  # open loop: requests a second on a fixed schedule; 0: closed loop, the next when one is done
    )
    once: bool = False  # each connection asks once
    ramp_s: float = 0  # over which the connections open
    warmup_s: float = 1
    window_s: float = 4
    watchers: int = 0  # so many watch one stream, which is then the whole load
    act: str = ""  # of bench.acts, which is then the whole load
    drain_s: float = 15  # after the window, for the answers that are still coming


class Scenario(msgspec.Struct, frozen=True):
    """One row of questions to every contestant."""

    key: str
    title: str
    load: Load
    model: str  # of MODELS; E: the contestant's combination is asked, and this is who writes its answer
    quick: Load | None = None  # with --quick; None: as always
    combination: bool = False
    panel: str = ""  # of PANELS: it is asked, and ``model`` writes its answer
    rounds: int = 0  # at most; 0: all


SCENARIOS: dict[str, Scenario] = {
    scenario.key: scenario
    for scenario in (
        Scenario(
            "A",
            "whole answers, 1 KB each way, closed loop, 64 connections",
            Load(64, stream=False, warmup_s=1.5),
            WHOLE,
            quick=Load(64, stream=False, warmup_s=0.7, window_s=1.5),
        ),
        Scenario(
            "B", "streams of 100 chunks without a pause, 32 at once", Load(32, warmup_s=1.5), "rig-burst"
        ),
        Scenario(
            "T",
            "256 streams of 100 chunks, one each 10 ms: 25,600 chunks/s offered",
            Load(256, ramp_s=1, warmup_s=2),
            "rig-10ms",
            quick=Load(256, ramp_s=1, warmup_s=1.5, window_s=1.5),
        ),
        Scenario(
            "P",
            "32 streams of 100 chunks, one each 20 ms: 1,600 chunks/s",
            Load(32, ramp_s=2, warmup_s=2.2),
            "rig-20ms",
            quick=Load(32, ramp_s=1, warmup_s=1.2, window_s=1.5),
        ),
        Scenario(
            "C",
            "whole answers, open loop, 50 requests/s",
            Load(200, stream=False, per_s=50, window_s=6),
            WHOLE,
        ),
        Scenario(
            "S",
            "streams of 20 chunks, open loop, 20/s, the first chunk after 20 ms",
            Load(300, per_s=20, window_s=5),
            "rig-short",
        ),
        Scenario(
            "D",
            "1,000 slow streams opened over 3 s, 50 chunks, one each 200 ms",
            Load(1000, once=True, ramp_s=3, warmup_s=4, window_s=5, drain_s=40),
            "rig-slow",
            rounds=2,
        ),
        Scenario(
            "E",
            "four members and a summary: first word of the summary",
            Load(4, ramp_s=1, warmup_s=2, window_s=8),
            SUMMARY,
            combination=True,
            rounds=2,
        ),
        Scenario(
            "W",
            "1,000 watchers of one stream of 50 chunks, one each 200 ms",
            Load(1, once=True, watchers=1000, drain_s=40),
            "rig-slow",
            rounds=2,
        ),
        Scenario(
            "R",
            "200 runs at once of five members and a summary: first word of the summary",
            Load(200, ramp_s=4, warmup_s=4.5, window_s=6, drain_s=30),
            SUMMARY,
            panel=WIDE_PANEL,
            rounds=2,
        ),
        Scenario(
            "WA",
            "10,000 watchers without text: one event told to all of them",
            Load(5, watchers=10_000, act="told", drain_s=60),
            WHOLE,
            rounds=1,
        ),
        Scenario(
            "WT",
            "1,000 watchers of all texts of one run of five members",
            Load(1, watchers=1000, act="texts", drain_s=40),
            SUMMARY,
            panel=TEXT_PANEL,
            rounds=2,
        ),
        Scenario(
            "WC",
            "streams of 100 chunks, 4/s: alone, beside 1,000 watchers of texts, beside 100 that never read",
            Load(40, per_s=4, window_s=5, watchers=1000, act="beside", drain_s=40),
            "rig-20ms",
            rounds=2,
        ),
        Scenario(
            "WS",
            "100 watchers that never read, while 2 MB of text a second are told",
            Load(1, watchers=100, act="stuck", drain_s=40),
            "rig-flood",
            rounds=1,
        ),
        Scenario(
            "WJ",
            "a run with much text is joined 100 times; 30 runs are cancelled",
            Load(100, act="joins", warmup_s=4, drain_s=40),
            "rig-slow",
            rounds=2,
        ),
    )
}


def ideal_summary_ms(panel: str) -> int:
    """A panel at its best: the slowest member's first word, its pauses, the summary's first word."""
    paces = [MODELS[name] for name in PANELS[panel]]
    return max(pace.first_ms + (pace.words - 1) * pace.every_ms for pace in paces) + MODELS[SUMMARY].first_ms


IDEAL_SUMMARY_MS = ideal_summary_ms(PANEL)

QUICK_SCENARIOS = ("A", "T", "P", "D")
