"""What each strategy wants of the configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.config_files import CHANNEL, Read, faults, reader, warnings


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Read:
    monkeypatch.chdir(tmp_path)
    return reader(tmp_path)


SIGHTED = "vision_members: [{model: a}, {model: b}, {model: d}]"
PANEL = f"name: p, members: [{{model: a}}, {{model: b}}, {{model: d}}], {SIGHTED}"
WRITER = "summary: {model: a}"


def config(keys: str) -> str:
    return CHANNEL + f"combinations:\n  - {{{keys}}}\n"


@pytest.mark.parametrize(
    "keys",
    [
        f"{PANEL}, strategy: vote, vote: {{type: number}}",
        f"{PANEL}, {WRITER}, strategy: vote, vote: {{type: json, extract: $.answer, on_tie: synthesize}}",
        f"{PANEL}, strategy: best_of, judge: {{model: b}}",
        f"{PANEL}, {WRITER}, strategy: best_of, best_of: {{method: scorer}}",
        f"{PANEL}, strategy: race, race: {{hedge_after: p95, confirm_chars: 1}}",
        f"{PANEL}, strategy: race, race: {{hedge_after: 400}}",
        f"{PANEL}, strategy: fallback, fallback: {{move_on_after: [upstream]}}",
        f"{PANEL}, strategy: cascade, cascade: {{accept: {{json_schema: {{type: object}}}}}}",
        f"{PANEL}, strategy: moa, {WRITER}, moa: {{rounds: 3}}",
        f"{PANEL}, strategy: critique, {WRITER}, critique: {{critic: b}}",
        f"{PANEL}, strategy: council, {WRITER}, council: {{chair: d}}",
        f"{PANEL}, summary: {{model: a, mode: analysis}}",
    ],
)
def test_what_each_strategy_wants_is_enough(read: Read, keys: str) -> None:
    assert warnings(read, config(keys)) == []


@pytest.mark.parametrize(
    ("keys", "fault"),
    [
        ("strategy: vote", "vote.type: is missing: strategy vote wants to know what is counted"),
        ("strategy: vote, vote: {type: essay}", "vote.type: must be choice, date, json, number or string"),
        ("strategy: vote, vote: {type: number, extract: '('}", "vote.extract: is no regular expression"),
        ("strategy: vote, vote: {type: json, extract: $a}", "vote.extract: is no JSON path"),
        ("strategy: vote, vote: {type: json, on_tie: synthesize}", "vote.on_tie: wants a summary"),
        ("strategy: best_of", "judge: is missing: strategy best_of wants a judge"),
        ("strategy: best_of, judge: {model: zz}", "judge.model: no model or combination is called zz"),
        ("strategy: race, race: {hedge_after: soon}", "race.hedge_after: must be"),
        ("strategy: race, race: {confirm_chars: 0}", "race.confirm_chars: must be"),
        ("strategy: cascade", "cascade.accept: is missing: strategy cascade wants a test"),
        ("strategy: cascade, cascade: {accept: {agree: 4}}", "cascade.accept.agree: is above the number"),
        ("strategy: cascade, cascade: {accept: {agree: 1}}", "cascade.accept.agree: must be"),
        ("strategy: cascade, cascade: {accept: {score: 5}}", "cascade.accept.score: wants a judge"),
        ("strategy: cascade, cascade: {accept: {regex: '['}}", "cascade.accept.regex: is no regular"),
        ("strategy: moa", "summary: is missing: strategy moa wants a summary"),
        ("strategy: moa, summary: {model: a}, moa: {rounds: 9}", "moa.rounds: must be"),
        ("strategy: council", "summary: is missing: strategy council"),
        ("strategy: council, summary: {model: a}, council: {chair: p}", "this combination asks itself"),
        ("strategy: critique, summary: {model: a}, critique: {critic: x}", "critique.critic: no model"),
        ("strategy: race, quorum: 4", "quorum: is above the number of calls, 3"),
        ("strategy: race, model: a", "model: strategy race does not use it"),
    ],
)
def test_what_a_strategy_lacks_is_named_with_its_place(read: Read, keys: str, fault: str) -> None:
    found = faults(read, config(f"{PANEL}, {keys}"))
    assert any(fault in one for one in found), found
    assert all(one[0].isdigit() for one in found)


@pytest.mark.parametrize("id", ["summary", "judge", "critic", "judge.1.2", "m1.r2", "m1.rank"])
def test_a_member_does_not_bear_the_name_of_one_of_the_servers_own_calls(read: Read, id: str) -> None:
    keys = f"name: p, strategy: all, members: [{{model: a, id: {id}}}]"
    (fault,) = faults(read, config(keys))
    assert "members[0].id: is a name of the server's own calls" in fault


def test_no_members_are_refused(read: Read) -> None:
    (fault,) = faults(read, config("name: p, strategy: race, members: []"))
    assert "wants at least one member" in fault


def test_an_equal_vote_over_unequal_members_is_doubtful(read: Read) -> None:
    unequal = "members: [{model: a, weight: 3}, {model: b}, {model: d}]"
    keys = f"name: p, {unequal}, {SIGHTED}, strategy: vote, vote: {{type: number, weights: equal}}"
    (warning,) = warnings(read, config(keys))
    assert "can lose to the best of them" in warning


def test_keys_of_another_strategy_are_doubtful_unless_a_request_may_choose_it(read: Read) -> None:
    keys = f"{PANEL}, strategy: race, vote: {{type: number}}"
    assert warnings(read, config(keys)) == []
    (warning,) = warnings(read, config(f"{keys}, overridable: [quorum]"))
    assert "strategy race does not use it" in warning
