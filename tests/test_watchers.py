"""Watchers are counted by key, and all are sent away at once."""

from __future__ import annotations

import pytest

from server.errors import RateLimited
from server.watchers import Watchers


class Watcher:
    def __init__(self) -> None:
        self.away = False

    def go_away(self) -> None:
        self.away = True


def test_a_key_has_so_many_connections_and_no_more() -> None:
    watchers, first, second = Watchers(), Watcher(), Watcher()
    watchers.add(first, "ann", 1)
    with pytest.raises(RateLimited) as refused:
        watchers.add(second, "ann", 1)
    assert refused.value.code == "too_many_connections"
    watchers.remove(second)  # which never was one
    assert len(watchers) == 1
    watchers.add(second, "bob", 1)
    watchers.remove(first)
    watchers.add(first, "ann", 1)
    assert len(watchers) == 2


def test_all_are_sent_away() -> None:
    watchers, first, second = Watchers(), Watcher(), Watcher()
    watchers.add(first, "ann", 5)
    watchers.add(second, "bob", 5)
    watchers.send_away()
    assert first.away
    assert second.away


def test_who_comes_after_that_is_sent_away_too() -> None:
    watchers, late = Watchers(), Watcher()
    watchers.send_away()
    watchers.add(late, "ann", 5)
    assert late.away
