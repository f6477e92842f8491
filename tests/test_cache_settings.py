"""Whose answers are kept."""

from __future__ import annotations

from server.cache_settings import Cache


def test_by_itself_nothing_is_kept_and_nothing_shared() -> None:
    rules = Cache()
    assert not rules.on
    assert [rules.keeps("m"), rules.keeps_drafts("m"), rules.shares("m")] == [False] * 3


def test_each_list_holds_names_and_patterns() -> None:
    rules = Cache(models=("gpt-*", "one"), drafts=("panel",), single_flight=("*",))
    assert [rules.keeps(name) for name in ("gpt-4o", "one", "GPT-4o", "other")] == [True, True, False, False]
    assert rules.keeps_drafts("panel")
    assert not rules.keeps_drafts("gpt-4o")
    assert rules.shares("anything")
    assert all(one.on for one in (Cache(models=("m",)), Cache(drafts=("m",)), Cache(single_flight=("m",))))
