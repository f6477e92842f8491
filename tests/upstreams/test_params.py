"""A channel's rules for the fields of a request."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from server.settings import ParamRules
from server.upstreams.params import Params
from tests.channels import chat


def changed(rules: dict[str, Any], **fields: Any) -> dict[str, Any]:
    changes = Params(msgspec.convert(rules, ParamRules)).changes(chat(**fields))
    return {name: None if value is None else json.loads(value) for name, value in changes.items()}


def test_what_is_dropped_is_taken_out_where_it_stands() -> None:
    assert changed({"drop": ["user", "seed"]}, user="me") == {"user": None}


@pytest.mark.parametrize(
    ("sent", "becomes"),
    [(2.5, 1), (-1, 0.5), (1, None), (0.5, None), (0.7, None), ("hot", None), (True, None), (None, None)],
)
def test_a_number_is_brought_into_its_bounds_and_all_else_left_alone(sent: object, becomes: object) -> None:
    got = changed({"clamp": {"heat": {"min": 0.5, "max": 1}}}, heat=sent)
    assert got == ({} if becomes is None else {"heat": becomes})


def test_a_bound_that_is_whole_is_sent_whole() -> None:
    rules = msgspec.convert({"clamp": {"max_tokens": {"max": 4096}}}, ParamRules)
    assert Params(rules).changes(chat(max_tokens=10**9)) == {"max_tokens": b"4096"}


def test_one_bound_alone_is_enough() -> None:
    assert changed({"clamp": {"top_p": {"min": 0.1}}}, top_p=0) == {"top_p": 0.1}
    assert changed({"clamp": {"top_p": {"min": 0.1}}}, top_p=9) == {}


@pytest.mark.parametrize("sent", [0, 0.0, 1])
def test_a_default_gives_way_to_whatever_the_client_sends(sent: float) -> None:
    assert changed({"default": {"temperature": 0.3}}, temperature=sent) == {}


def test_a_default_is_put_in_where_the_client_sends_none_or_null() -> None:
    assert changed({"default": {"temperature": 0.3}}) == {"temperature": 0.3}
    assert changed({"default": {"temperature": 0.3}}, temperature=None) == {"temperature": 0.3}


@pytest.mark.parametrize("sent", ["max_tokens", "max_completion_tokens"])
def test_either_name_of_the_token_limit_keeps_the_default_of_the_other_out(sent: str) -> None:
    assert changed({"default": {"max_tokens": 100}}, **{sent: 7}) == {}


def test_what_is_set_wins_over_the_client() -> None:
    assert changed({"set": {"store": False, "extra": {"a": [1]}}}, store=True) == {
        "store": False,
        "extra": {"a": [1]},
    }


def test_every_other_field_keeps_its_bytes() -> None:
    request = chat(seed=0, big=1e300, user="me")
    body = request.json.edit(Params(msgspec.convert({"drop": ["user"]}, ParamRules)).changes(request))
    assert body == chat(seed=0, big=1e300).body
