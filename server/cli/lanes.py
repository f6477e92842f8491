"""Runs as lanes on a terminal: pure functions from what is known, and the time, to what is shown.

Names, codes and texts come from foreign machines: they go through ``clean``, and are never read as markup.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from rich.box import ROUNDED
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from server.cli.board import Watched, tokens_of
from server.run_view import CallView

SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
SPINS_A_SECOND = 8
MAX_SHOWN = 300
"""Code points of a foreign message that are shown."""

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


def render_run(run: Watched, now: float, *, text: bool = False) -> Panel:
    """One run as a panel: a lane for each call, and what went wrong. ``text``: with the end of each text."""
    parts: list[RenderableType] = [_headline(run, now), _lanes(run, now)]
    if text:
        parts += _texts(run)
    parts += [
        Text.assemble((f"{clean(lane, 40)}: ", "bold red"), (clean(what), "red"))
        for lane, what in run.failures
    ]
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
    room = height - 2
    shown: list[RenderableType] = []
    for run in reversed(runs):
        room -= 3 + len(run.lanes) * (2 if text else 1) + len(run.failures)
        if shown and room < 0:
            break
        shown.insert(0, render_run(run, now, text=text))
    if hidden := len(runs) - len(shown):
        shown.insert(0, Text(f"{hidden} more under way", "dim"))
    return Group(*shown, Text(clean(status), "dim", no_wrap=True, overflow="ellipsis"))


def _headline(run: Watched, now: float) -> Text:
    view = run.view
    status = view.status.replace("_", " ")
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


def _lanes(run: Watched, now: float) -> Table:
    table = Table.grid(padding=(0, 1), expand=True)
    table.add_column(width=1)
    table.add_column(no_wrap=True, overflow="ellipsis", max_width=14)
    table.add_column(no_wrap=True, overflow="ellipsis", ratio=3)
    table.add_column(no_wrap=True, width=10)
    table.add_column(no_wrap=True, width=7, justify="right")
    table.add_column(no_wrap=True, width=9, justify="right")
    table.add_column(no_wrap=True, width=9, justify="right")
    table.add_column(no_wrap=True, overflow="ellipsis", ratio=2)
    for call in run.lanes:
        state = _state(run, call)
        style = _STYLES.get(state, "default")
        symbol = _SYMBOLS.get(state) or SPINNER[int(now * SPINS_A_SECOND) % len(SPINNER)]
        tokens, estimated = tokens_of(call)
        rate = run.rate(call)
        table.add_row(
            Text(symbol, style),
            Text(clean(call.id, 40)),
            Text(clean(call.model, 80), "bold"),
            Text(state, style),
            Text(seconds(call.ttft_ms), "default"),
            Text(f"{'~' if estimated else ''}{tokens} tok" if tokens else ""),
            Text(f"{rate:.1f} t/s" if rate is not None else ""),
            Text(_note(call), style),
        )
    return table


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


def _texts(run: Watched) -> list[RenderableType]:
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
    for call in run.lanes:
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
