"""What one application may do at once, in a second, in a day."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from server.simulators.spark_errors import SparkFault
from server.simulators.spark_limits import SparkLimits


def code(
    limits: SparkLimits,
    app: str = "a",
    uid: str = "",
    now: float = 0.0,
    live: Callable[[], bool] = lambda: True,
) -> int:
    try:
        limits.enter(app, uid, now, live)
    except SparkFault as refused:
        return refused.code
    return 0


def test_nothing_is_limited_unless_it_is_said() -> None:
    limits = SparkLimits()
    assert {code(limits) for _ in range(100)} == {0}


def test_a_user_that_is_connected_is_not_let_in_again() -> None:
    limits, open_ = SparkLimits(), [True]
    assert code(limits, uid="u", live=lambda: open_[0]) == 0
    assert code(limits, uid="u") == 10006
    assert [code(limits, uid="v"), code(limits, app="b", uid="u")] == [0, 0]
    open_[0] = False
    assert code(limits, uid="u") == 0
    assert code(SparkLimits(one_per_user=False), uid="u") == 0


def test_those_without_a_name_are_not_one_user() -> None:
    limits = SparkLimits()
    assert [code(limits), code(limits)] == [0, 0]


def test_sessions_count_while_they_last_and_for_their_application() -> None:
    limits, open_ = SparkLimits(sessions=2), [True]
    assert [code(limits), code(limits, live=lambda: open_[0]), code(limits)] == [0, 0, 11203]
    assert code(limits, app="b") == 0
    open_[0] = False
    assert [code(limits), code(limits)] == [0, 11203]


def test_requests_count_for_a_second() -> None:
    limits = SparkLimits(per_second=2)
    assert [code(limits, now=0), code(limits, now=0.5), code(limits, now=0.9)] == [0, 0, 11202]
    assert [code(limits, now=1.1), code(limits, now=1.2)] == [0, 11202]


def test_requests_count_for_a_day() -> None:
    limits = SparkLimits(per_day=1)
    assert [code(limits, now=0), code(limits, now=86399), code(limits, now=86401)] == [0, 11201, 0]


def test_who_is_refused_is_not_counted() -> None:
    limits = SparkLimits(per_second=1, per_day=2)
    assert [code(limits, now=one) for one in (0, 0.1, 0.2, 1.5)] == [0, 11202, 11202, 0]
    assert code(limits, now=3) == 11201


@pytest.mark.parametrize(
    ("limits", "refusal"), [(SparkLimits(sessions=0), 11203), (SparkLimits(per_day=0), 11201)]
)
def test_a_limit_of_nothing_lets_nobody_in(limits: SparkLimits, refusal: int) -> None:
    assert code(limits) == refusal
