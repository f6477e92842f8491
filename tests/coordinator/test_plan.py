"""What a request may ask of a combination, and what is refused before any call is paid."""

from __future__ import annotations

from typing import Any

import pytest

from server.coordinator.plan import make_plan
from server.errors import InvalidRequest
from server.settings import Combination, Member, Summary
from tests.coordinator.panel import request

IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
FOUR = tuple(Member(model=name) for name in "abcd")


def panel(**changes: Any) -> Combination:
    fields: dict[str, Any] = {"name": "panel", "members": FOUR, "summary": Summary(model="w")} | changes
    return Combination(**fields)


def refused(settings: Combination, **fields: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        make_plan(settings, request(**fields))
    return caught.value


def test_the_quorum_is_two_thirds_of_the_calls_rounded_up() -> None:
    assert make_plan(panel(), request()).quorum == 3
    assert make_plan(panel(members=(Member(model="a", samples=5),)), request()).quorum == 4


def test_a_request_may_lower_the_limits() -> None:
    plan = make_plan(panel(), request(antiphon={"quorum": 1, "grace_s": 0, "deadline_s": 1.5}))
    assert (plan.quorum, plan.grace_s, plan.deadline_s) == (1, 0, 1.5)


def test_a_request_may_choose_members_and_a_like_strategy() -> None:
    settings = panel(members=(Member(model="a", id="x", samples=2), Member(model="b"), Member(model="c")))
    plan = make_plan(settings, request(antiphon={"members": ["x", "m3"], "strategy": "all"}))
    assert [call.id for call in plan.calls] == ["x.1", "x.2", "m3"]
    assert [call.place for call in plan.calls] == [0, 1, 2]
    assert plan.strategy == "all"
    assert plan.summary is None


@pytest.mark.parametrize(
    ("wish", "param"),
    [
        ({"quorum": 4}, "antiphon.quorum"),
        ({"quorum": 0}, "antiphon.quorum"),
        ({"quorum": "2"}, "antiphon.quorum"),
        ({"grace_s": 6}, "antiphon.grace_s"),
        ({"grace_s": -1}, "antiphon.grace_s"),
        ({"deadline_s": 0}, "antiphon.deadline_s"),
        ({"deadline_s": 61}, "antiphon.deadline_s"),
        ({"members": []}, "antiphon.members"),
        ({"members": ["nobody"]}, "antiphon.members"),
        ({"members": "m1"}, "antiphon.members"),
        ({"strategy": "direct"}, "antiphon.strategy"),
        ({"strategy": "vote"}, "antiphon.strategy"),
    ],
)
def test_a_wish_beyond_the_limits_is_refused_by_name(wish: dict[str, Any], param: str) -> None:
    assert refused(panel(), antiphon=wish).param == param


def test_only_what_is_overridable_may_be_overridden() -> None:
    assert refused(panel(overridable=("grace_s",)), antiphon={"quorum": 1}).param == "antiphon.quorum"


def test_fewer_members_than_min_success_are_refused() -> None:
    assert refused(panel(min_success=2), antiphon={"members": ["m1"]}).param == "antiphon.members"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 2}, "n"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}, "messages"),
    ],
)
def test_what_it_cannot_do_is_refused(fields: dict[str, Any], param: str) -> None:
    error = refused(panel(), **fields)
    assert (error.param, error.code) == (param, "unsupported_parameter")


@pytest.mark.parametrize("field", ["tools", "functions"])
def test_tools_are_refused_by_name_where_the_configuration_says_so(field: str) -> None:
    wish: dict[str, Any] = {field: [{"type": "function", "name": "f", "function": {"name": "f"}}]}
    error = refused(panel(tools="refuse"), **wish)
    assert (error.param, error.code) == (field, "unsupported_parameter")
    make_plan(panel(tools="refuse", strategy="race"), request(**wish))


def test_what_means_nothing_passes() -> None:
    make_plan(panel(), request(n=1, tools=[], functions=None))
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    make_plan(panel(strategy="all"), request(messages=turns))


def test_an_image_in_the_last_user_turn_wants_members_that_see() -> None:
    error = refused(panel(), content=[IMAGE])
    assert error.code == "unsupported_image"
    settings = panel(vision_members=(Member(model="eyes"),), vision_summary=Summary(model="v"))
    plan = make_plan(settings, request([IMAGE]))
    assert [call.model for call in plan.calls] == ["eyes"]
    assert plan.summary is not None
    assert plan.summary.model == "v"
    assert plan.vision_summary


def test_an_old_image_does_not_bind_the_chat_unless_configured() -> None:
    turns = [
        {"role": "user", "content": [IMAGE]},
        {"role": "assistant", "content": "A cat."},
        {"role": "user", "content": "Thanks."},
    ]
    settings = panel(vision_members=(Member(model="eyes"),))
    assert make_plan(settings, request(messages=turns)).images == 0
    by_history = panel(vision_members=(Member(model="eyes"),), vision_by="history")
    assert make_plan(by_history, request(messages=turns)).calls[0].model == "eyes"
