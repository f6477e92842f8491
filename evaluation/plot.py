"""A plot as SVG, written by plain code: it renders wherever pictures in Markdown do, in light and in dark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from xml.sax.saxutils import escape

import msgspec

from evaluation.figures import StrategyTable

WIDTH, LEFT, RIGHT = 860, 210, 30
ROW, TOP, BOTTOM = 26, 64, 46
SIDES = ("#1f6feb", "#d1742f")
"""The colours of what is measured against the best member, and against samples of it."""
GRID, TEXT, PAPER = "#d0d7de", "#24292f", "#ffffff"


class Line(msgspec.Struct, frozen=True):
    """One name, and for each side the mean with its bounds."""

    label: str
    sides: tuple[tuple[float, float, float], ...]


def lines_of(table: StrategyTable) -> list[Line]:
    """Each strategy's difference to the best member, and to as many samples of it."""
    return [
        Line(
            one.label,
            tuple((side.mean, side.low, side.high) for side in (one.to_best, one.to_samples)),
        )
        for one in table.rows[1:]
    ]


def plot(title: str, sides: Sequence[str], lines: Sequence[Line]) -> str:
    """The SVG: a row for each line, points with 95 % bounds, zero marked; in percentage points."""
    lows = [bounds[1] for line in lines for bounds in line.sides]
    highs = [bounds[2] for line in lines for bounds in line.sides]
    first, last = 5 * math.floor(min(lows) * 20), 5 * math.ceil(max(highs) * 20)
    height = TOP + ROW * len(lines) + BOTTOM

    def x(share: float) -> float:
        return LEFT + (share * 100 - first) / (last - first) * (WIDTH - LEFT - RIGHT)

    bottom = height - BOTTOM
    made = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
        f'height="{height}" font-family="sans-serif" font-size="13" role="img">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{height}" rx="6" fill="{PAPER}"/>',
        _words(16, 24, title, size=15),
    ]
    for place, side in enumerate(sides):
        made += [_dot(22 + place * 300, 42, SIDES[place]), _words(32 + place * 300, 46, side)]
    for tick in range(first, last + 1, 5):
        at = x(tick / 100)
        made.append(_stroke(at, TOP - 6, at, bottom + 4, *((TEXT, 1.5) if tick == 0 else (GRID, 1.0))))
        made.append(_words(at, bottom + 20, f"{tick:+d}" if tick else "0", anchor="middle"))
    centre = (LEFT + WIDTH - RIGHT) / 2
    made.append(_words(centre, height - 8, "percentage points, 95 % bounds", anchor="middle"))
    for row, line in enumerate(lines):
        y = TOP + ROW * (row + 0.5)
        made.append(_words(LEFT - 12, y + 4, line.label, anchor="end"))
        for place, (mean, low, high) in enumerate(line.sides):
            own_y, colour = y - 4 + 8 * place, SIDES[place]
            made += [_stroke(x(low), own_y, x(high), own_y, colour, 2), _dot(x(mean), own_y, colour)]
    return "\n".join([*made, "</svg>", ""])


def _words(x: float, y: float, text: str, *, anchor: str = "start", size: int = 13) -> str:
    where = f'x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}"'
    return f'<text {where} fill="{TEXT}">{escape(text)}</text>'


def _stroke(x1: float, y1: float, x2: float, y2: float, colour: str, width: float) -> str:
    ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {ends} stroke="{colour}" stroke-width="{width:g}"/>'


def _dot(x: float, y: float, colour: str) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>'
