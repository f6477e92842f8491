"""Runs as lanes on a terminal: pure functions from what is known, and the time, to what is shown.

Names, codes and texts come from foreign machines: they go through ``clean``, and are never read as markup.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

from rich.box import ROUNDED
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from server.cli.board import Watched, tokens_of
from server.run_view import CallView

SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
SPINS_A_SECOND = 8
MAX_SHOWN = 300
"""Code points of a foreign message that are shown."""

MAX_FAILURES_SHOWN = 3
"""So many of a run under way; of one that has ended all are."""

MODEL_WIDTH = 13
NOTE_WIDTH = 9
"""Columns that a model's name, and a note, have before a figure gets any; with the gap behind them."""

_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_C1 = re.compile("[\x7f-\x9f]")
_SYMBOLS = {
    "pending": "·",
    "not needed": "·",
    "queued": "·",
    "retrying": "↻",
    "finished": "✓",
    "failed": "✗",
    "cancelled": "–",
    "skipped": "–",
}
_STYLES = {
    "pending": "dim",
    "not needed": "dim",
    "queued": "dim",
    "connecting": "cyan",
    "thinking": "magenta",
    "writing": "cyan",
    "retrying": "yellow",
    "finished": "green",
    "failed": "red",
    "cancelled": "yellow",
    "skipped": "dim",
    "in_progress": "cyan",
    "completed": "green",
    "incomplete": "yellow",
}

# Which lanes are shown where there is no room for all: the lower the sooner.
_WEIGHTS = {
    state: weight
    for weight, states in enumerate(
        (
            ("writing", "thinking", "connecting", "retrying"),
            ("failed", "cancelled"),
            ("queued",),
            ("finished",),
        )
    )
    for state in states
}


def clean(text: object, limit: int = MAX_SHOWN) -> str:
    """``text`` without anything that a terminal would obey: controls, escapes, turns of direction.

    Line ends become spaces; what is longer than ``limit`` is cut, with an ellipsis.
    """
    kept = []
    for char in str(text)[: limit + 1]:
        if char in "\n\r\t":
            kept.append(" ")
        elif unicodedata.category(char) == "Cs":
            kept.append("\ufffd")
        elif unicodedata.category(char) != "Cc" and char not in _BIDI:
            kept.append(char)
    return "".join(kept) if len(kept) <= limit else "".join(kept[: limit - 1]) + "…"


def clean_lines(text: str) -> str:
    """``text`` like ``clean``, line by line, and all of it."""
    return "\n".join(clean(line, len(line)) for line in text.split("\n"))


def clean_json(text: str) -> str:
    """The same JSON without the controls that JSON itself lets pass, and terminals obey."""
    return _C1.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def seconds(ms: int | None) -> str:
    """Milliseconds for people; nothing for None."""
    if ms is None:
        return ""
    if ms < 10_000:
        return f"{ms / 1000:.2f} s"
    return f"{ms / 1000:.1f} s" if ms < 600_000 else f"{ms // 60_000} min {ms // 1000 % 60} s"


def render_run(run: Watched, now: float, *, text: bool = False, most: int | None = None) -> Panel:
    """One run as a panel: a lane for each call, and what went wrong. ``text``: with the end of each text.

    ``most`` is how many lines it may take (5 or more): where there are more lanes, those that matter most now
    are shown, and the others counted.
    """
    failures = [
        Text.assemble((f"{clean(lane, 40)}: ", "bold red"), (clean(what), "red"))
        for lane, what in run.failures
    ]
    lanes, rest = run.lanes, ""
    if most is not None:
        room = most - 3  # the frame and the headline
        spare = max(0, min(MAX_FAILURES_SHOWN, room - len(lanes)))
        failures = failures[len(failures) - min(spare, len(failures)) :]
        for line in failures:
            line.no_wrap, line.overflow = True, "ellipsis"
        lanes, rest = _fitting(run, max(1, (room - len(failures)) // (2 if text else 1)))
    parts: list[RenderableType] = [_headline(run, now), _Lanes(run, lanes, now)]
    if rest:
        parts.append(Text(rest, "dim", no_wrap=True, overflow="ellipsis"))
    if text:
        parts += _texts(run, lanes)
    parts += failures
    if isinstance(error := run.view.error, dict):
        what = f"{clean(error.get('code') or error.get('type'), 80)}: {clean(error.get('message'))}"
        parts.append(Text(what, "bold red"))
    return Panel(
        Group(*parts),
        box=ROUNDED,
        title=Text(clean(run.view.id, 60), "bold"),
        title_align="left",
        subtitle=_bill(run),
        subtitle_align="right",
        border_style=_STYLES.get(run.view.status, "red"),
    )


def render_screen(
    runs: Sequence[Watched], now: float, *, height: int, status: str, text: bool = False
) -> RenderableType:
    """The runs under way, the newest last, as many as fit into ``height`` lines; and a line of status."""
    room = max(5, height - 3)  # the status, those that are hidden, and where the cursor stands
    shown: list[RenderableType] = []
    for run in reversed(runs):
        lines = 3 + len(run.lanes) * (2 if text else 1) + min(len(run.failures), MAX_FAILURES_SHOWN)
        if shown and lines > room:
            break
        shown.insert(0, render_run(run, now, text=text, most=min(lines, room)))
        room -= lines
    if hidden := len(runs) - len(shown):
        shown.insert(0, Text(f"{hidden} more under way", "dim"))
    return Group(*shown, _Status(clean(status)))


class _Status:
    """A line that leaves room for the ^C that a terminal echoes: one that it broke would stay twice."""

    def __init__(self, words: str) -> None:
        self._words = words

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        line = Text(self._words, "dim", no_wrap=True)
        line.truncate(max(1, options.max_width - 3), overflow="ellipsis")
        yield line


def _fitting(run: Watched, most: int) -> tuple[list[CallView], str]:
    """The lanes of which ``most`` lines have room, in their order, and the others in words."""
    lanes = run.lanes
    if len(lanes) <= most:
        return lanes, ""
    states = [_state(run, call) for call in lanes]
    weighty = sorted(range(len(lanes)), key=lambda at: _WEIGHTS.get(states[at], len(_WEIGHTS)))
    kept, others = sorted(weighty[: most - 1]), weighty[most - 1 :]
    counts = Counter(states[at] for at in sorted(others))
    told = ", ".join(f"{count} {state}" for state, count in counts.items())
    return [lanes[at] for at in kept], f"… {len(others)} more: {told}"


def _headline(run: Watched, now: float) -> Text:
    view = run.view
    status = view.status.replace("_", " ")
    if run.lost:
        status += " when last seen"
    if view.cancelled_by:
        status += f" by {view.cancelled_by}"
    line = Text(clean(view.model, 80) or "?", "bold", no_wrap=True, overflow="ellipsis")
    if view.strategy:
        line.append(f" · {clean(view.strategy, 40)}", "default not bold")
    line.append(" · ", "default not bold")
    line.append(clean(status, 60), _STYLES.get(view.status, "red"))
    if elapsed := seconds(run.elapsed_ms(now)):
        line.append(f" · {elapsed}", "default not bold")
    if view.level != "none":
        line.append(f" · {clean(view.level, 40)}", "yellow")
    return line


class _Lanes:
    """The lanes as a table. Where it is narrow figures go first, and a model keeps its name."""

    def __init__(self, run: Watched, lanes: Sequence[CallView], now: float) -> None:
        self._run = run
        self._lanes = lanes
        self._now = now

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        room = options.max_width - 2 - 11  # the symbol and the state
        if not (self._lanes and room > 0):
            return
        names = [clean(call.id, 40) for call in self._lanes]
        notes = [_note(call) for call in self._lanes]
        narrow = max(4, min(14, room // 3, max(map(cell_len, names)))) + 1
        room -= narrow + MODEL_WIDTH + (NOTE_WIDTH if any(notes) else 0)
        table = Table.grid(padding=(0, 1), expand=True)
        table.add_column(width=1)
        table.add_column(no_wrap=True, overflow="ellipsis", width=narrow - 1)
        table.add_column(no_wrap=True, overflow="ellipsis", ratio=3)
        table.add_column(no_wrap=True, width=10)
        # Of the tokens, their rate and the time to the first, as many as there is room for.
        shown: list[bool] = []
        for width in (9, 9, 7):
            room -= width + 1
            shown.append(room >= 0 and all(shown))
        for at, width in ((2, 7), (0, 9), (1, 9)):
            if shown[at]:
                table.add_column(no_wrap=True, width=width, justify="right")
        if any(notes):
            table.add_column(no_wrap=True, overflow="ellipsis", ratio=2)
        for call, name, note in zip(self._lanes, names, notes, strict=True):
            figures = self._figures(call)
            self._add(table, call, name, [figures[at] for at in (2, 0, 1) if shown[at]], note)
        yield table

    def _add(self, table: Table, call: CallView, name: str, figures: list[str], note: str) -> None:
        state = _state(self._run, call)
        style = _STYLES.get(state, "default")
        symbol = _SYMBOLS.get(state) or SPINNER[int(self._now * SPINS_A_SECOND) % len(SPINNER)]
        table.add_row(
            Text(symbol, style),
            Text(name),
            Text(clean(call.model, 80), "bold"),
            Text(state, style),
            *map(Text, figures),
            *([Text(note, style)] if len(table.columns) > 4 + len(figures) else []),
        )

    def _figures(self, call: CallView) -> tuple[str, str, str]:
        tokens, estimated = tokens_of(call)
        rate = self._run.rate(call)
        return (
            f"{'~' if estimated else ''}{tokens} tok" if tokens else "",
            f"{rate:.1f} t/s" if rate is not None else "",
            seconds(call.ttft_ms),
        )


def _state(run: Watched, call: CallView) -> str:
    if call.state == "pending" and run.view.ended:
        return "not needed"
    if call.state == "started":
        if call.ttft_ms is None:
            return "connecting"
        return "thinking" if call.id in run.thinking else "writing"
    return clean(call.state, 10)


def _note(call: CallView) -> str:
    """What is worth a word beside the figures."""
    words = []
    if call.state in ("failed", "cancelled", "skipped"):
        words.append(clean(call.code or call.reason or "", 60))
    elif call.finish_reason not in (None, "stop"):
        words.append(clean(call.finish_reason, 40))
    if call.attempt > 1:
        words.append(f"attempt {call.attempt}")
    return ", ".join(word for word in words if word)


def _texts(run: Watched, lanes: Sequence[CallView]) -> list[RenderableType]:
    """The end of each text on a line of its own; of a run that has ended, the answer."""
    view = run.view
    if view.ended:
        answer = view.summary if view.answer_by == "summary" else view.members.get(view.answer_by or "")
        if answer is None or not answer.text.get("text"):
            return []
        said = answer.text["text"]
        lead = "…" if answer.chars > len(said) else ""
        lines = [clean(line, 4000) for line in said.splitlines()]
        return [Text(lead + "\n".join(lines))]
    shown: list[RenderableType] = []
    for call in lanes:
        said = call.text.get("text") or call.text.get("reasoning") or ""
        if said and not call.ended:
            line = Text(f"{clean(call.id, 14)} ▸ ", "dim", no_wrap=True, overflow="crop")
            shown.append(line.append(clean(said[-60:]), "not dim"))
    return shown


def _bill(run: Watched) -> Text | None:
    """Usage, cost and times of a run that has ended."""
    view = run.view
    if not view.ended:
        return None
    words = []
    if usage := view.usage:
        mark = "~" if usage.get("estimated") else ""
        prompt, completion = usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0)
        words.append(f"{mark}{prompt:,} + {completion:,} = {mark}{usage.get('total_tokens', 0):,} tokens")
    if view.cost is not None:
        words.append(f"cost {view.cost:.6g}")
    if (first_ms := (view.timings or {}).get("first_text_ms")) is not None:
        words.append(f"first text {seconds(first_ms)}")
    return Text(" · ".join(words), "default") if words else None
