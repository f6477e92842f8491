"""Requests with something odd in one or more of their places."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

_ODD = st.sampled_from(
    [None, True, 0, -1, 1.5, 10**30, "", "x", "\0", "antiphon:", [], {}, [None], [1], ["x"], {"type": "text"}]
) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["type", "text", "id"]), inner)
    ),
    max_leaves=4,
)


def _places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if place:
        yield place
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        yield from _places(one, (*place, key))


@st.composite
def mangled(draw: st.DrawFn, whole: dict[str, Any]) -> dict[str, Any]:
    """``whole`` with one to three of its values replaced or gone."""
    made = copy.deepcopy(whole)
    for _ in range(draw(st.integers(1, 3))):
        places = list(_places(made))
        if not places:
            break
        *path, last = draw(st.sampled_from(places))
        holder: Any = made
        for key in path:
            holder = holder[key]
        if draw(st.booleans()):
            holder[last] = copy.deepcopy(draw(_ODD))  # it may be mangled in its turn
        else:
            del holder[last]
    return made
