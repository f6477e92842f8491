from __future__ import annotations

import re
from xml.etree import ElementTree

from evaluation.plot import SIDES, Line, plot

LINES = [
    Line("vote <equal>", ((0.05, 0.01, 0.09), (-0.02, -0.06, 0.02))),
    Line("race", ((-0.1, -0.1, -0.1),) * 2),
]


def test_it_is_svg_by_itself_with_a_row_for_each_line() -> None:
    svg = plot("A & B", ("one", "other"), LINES)
    root = ElementTree.fromstring(svg)
    words = [one.text for one in root.iter() if one.tag.endswith("text")]
    assert {"A & B", "one", "other", "vote <equal>", "race", "0", "+5", "-10"} <= set(words)
    assert not re.search(r"<(script|style|image|foreignObject)|href", svg)


def test_points_stand_in_the_order_of_their_means_and_within_the_picture() -> None:
    root = ElementTree.fromstring(plot("t", ("one", "other"), LINES))
    first = [one for one in root.iter() if one.tag.endswith("circle") and one.get("fill") == SIDES[0]][1:]
    places = [float(one.get("cx", "")) for one in first]
    assert places[0] > places[1]
    width = float(root.get("width", ""))
    ends = [
        float(one.get(key, "")) for one in root.iter() if one.tag.endswith("line") for key in ("x1", "x2")
    ]
    assert all(0 < end < width for end in ends)
