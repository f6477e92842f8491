"""Whose answers are kept: names that nobody has are told before the server starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.config_files import Read, faults, reader, warnings


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Read:
    monkeypatch.chdir(tmp_path)
    return reader(tmp_path)


HOUSE = """
channels: [{name: c, kind: openai, base_url: "https://a.example/v1", models: [gpt-4o, small]}]
combinations: [{name: panel, members: [{model: small}], summary: {model: gpt-4o}}]
"""


def test_names_and_patterns_of_what_there_is_are_lawful(read: Read) -> None:
    text = HOUSE + "cache: {models: ['gpt-*', small], single_flight: ['*'], drafts: ['p*']}\n"
    rules = read(text).settings.cache
    assert (rules.models, rules.drafts, rules.single_flight) == (("gpt-*", "small"), ("p*",), ("*",))


@pytest.mark.parametrize(
    ("cache", "message"),
    [
        ("{models: [gpt-4]}", "cache.models[0]: no channel serves a model gpt-4, did you mean gpt-4o?"),
        ("{single_flight: [small, 'x*']}", "cache.single_flight[1]: no channel serves a model x*"),
        ("{models: [panel]}", "cache.models[0]: panel is a combination, of which drafts alone are kept"),
        ("{drafts: [pannel]}", "cache.drafts[0]: there is no combination pannel, did you mean panel?"),
        ("{drafts: [small]}", "cache.drafts[0]: there is no combination small"),
        ("{ttl_s: 0}", "cache.ttl_s: must be a number of seconds above 0"),
        ("{max_entries: 0}", "cache.max_entries: must be a whole number, 1 or more"),
        ("{ttl: 5}", "cache.ttl: unknown key"),
    ],
)
def test_what_nobody_has_is_refused(read: Read, cache: str, message: str) -> None:
    (found,) = faults(read, HOUSE + f"cache: {cache}\n")
    assert message in found
    assert found.startswith("4:")


def test_what_may_be_listed_later_is_not_judged(read: Read) -> None:
    text = HOUSE.replace("[gpt-4o, small]", "auto") + "cache: {models: [later]}\n"
    assert read(text).settings.cache.models == ("later",)


def test_a_bound_that_another_one_undercuts_is_a_warning(read: Read) -> None:
    found = warnings(read, HOUSE + "cache: {models: [small], max_bytes: 10, max_answer_bytes: 20}\n")
    assert any("cache.max_answer_bytes: is above max_bytes" in one for one in found)
    assert not any("cache" in one for one in warnings(read, HOUSE + "cache: {max_bytes: 10}\n"))
