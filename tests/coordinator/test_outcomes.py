"""The ladder from a full panel down to an error, decided from values alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.coordinator.outcomes import Draft, Failure, Gathered, Outcome, told_failures
from server.coordinator.plan import Plan, expand
from server.errors import (
    AllMembersFailed,
    InvalidRequest,
    Overloaded,
    RateLimited,
    RunCancelled,
    ServerError,
    UpstreamError,
    UpstreamRefused,
    UpstreamTimeout,
)
from server.events import StageRef
from server.settings import Combination, Member

FAILED = UpstreamError("The upstream failed.", upstream_status=500)
SLOW = UpstreamTimeout("first_token", 1)
REFUSED = InvalidRequest("No.", code="context_length_exceeded")


def limited(wait_s: float) -> ServerError:
    return RateLimited("slower", retry_after_s=wait_s)


def gathered(
    *outcomes: str | ServerError | tuple[str], quorum: int = 1, min_success: int = 1, ended_by: str = "all"
) -> Gathered:
    """The outcomes of a stage: a text is a draft, a text in a tuple a cut one, an error a failure."""
    members = tuple(Member(model=f"m{number}") for number in range(1, len(outcomes) + 1))
    calls = expand(members)
    made: list[Outcome] = []
    for call, outcome in zip(calls, outcomes, strict=True):
        if isinstance(outcome, str):
            made.append(Draft(call, outcome, "stop"))
        elif isinstance(outcome, tuple):
            made.append(Draft(call, outcome[0], None, complete=False))
        else:
            made.append(Failure.of(call, outcome))
    settings = Combination(name="panel", members=members)
    plan = Plan(settings, "synthesize", calls, quorum=quorum, min_success=min_success)
    return Gathered(plan, StageRef("draft.1", "draft"), tuple(made), ended_by)


@pytest.mark.parametrize(
    ("stage", "level"),
    [
        (gathered("a", "b", "c", quorum=2), "none"),
        (gathered("a", "b", FAILED, quorum=2), "quorum"),
        (gathered("a", "b", FAILED, quorum=3), "partial"),
        (gathered("a", "b", ("c",), quorum=2), "partial"),
        (gathered("a", FAILED, FAILED, quorum=1), "lone"),
        (gathered(("a",), FAILED, quorum=1), "partial"),
    ],
)
def test_each_rung_of_the_ladder_has_its_name(stage: Gathered, level: str) -> None:
    assert stage.level == level


@pytest.mark.parametrize(
    ("stage", "reason"),
    [
        (gathered("a", "b"), "all"),
        (gathered("a", FAILED), "failed"),
        (gathered("a", RunCancelled("By a watcher.", code="cancelled")), "cancelled"),
        (gathered("a", FAILED, RunCancelled("By a watcher.", code="cancelled")), "failed"),
        (gathered("a", ("b",), RunCancelled("By a watcher.", code="cancelled")), "failed"),
        (gathered("a", FAILED, ended_by="quorum"), "quorum"),
        (gathered("a", ("b",), ended_by="deadline"), "deadline"),
    ],
)
def test_why_it_is_not_the_whole_panel_is_told(stage: Gathered, reason: str) -> None:
    assert stage.reason == reason


def test_drafts_and_failures_keep_the_order_of_the_configuration() -> None:
    stage = gathered(FAILED, "b", ("c",), SLOW, "e")
    assert [draft.text for draft in stage.drafts] == ["b", "c", "e"]
    assert [draft.text for draft in stage.complete] == ["b", "e"]
    assert [failure.call.id for failure in stage.failures] == ["m1", "m4"]


def test_a_draft_that_is_cut_or_out_of_tokens_is_shortened() -> None:
    (call,) = expand((Member(model="m"),))
    assert not Draft(call, "a", "stop").shortened
    assert Draft(call, "a", "length").shortened
    assert Draft(call, "a", None, complete=False).shortened


def test_the_strongest_is_whole_and_of_the_greatest_weight_and_the_first_of_equals() -> None:
    members = tuple(Member(model=f"m{n}", weight=weight) for n, weight in enumerate((1.0, 3.0, 3.0, 9.0)))
    calls = expand(members)
    outcomes = (
        Draft(calls[0], "light", "stop"),
        Draft(calls[1], "first", "stop"),
        Draft(calls[2], "second", "stop"),
        Draft(calls[3], "cut", None, complete=False),
    )
    plan = Plan(Combination(name="panel", members=members), "synthesize", calls)
    strongest = Gathered(plan, StageRef("draft.1", "draft"), outcomes, "all").strongest
    assert strongest is not None
    assert strongest.text == "first"


def test_without_a_whole_draft_none_is_strongest() -> None:
    assert gathered(("a",), FAILED).strongest is None


def refusal(stage: Gathered) -> AllMembersFailed:
    with pytest.raises(AllMembersFailed) as raised:
        stage.require()
    return raised.value


def test_without_a_draft_every_reason_is_told() -> None:
    error = refusal(gathered(FAILED, SLOW))
    assert (error.status, error.code) == (502, "all_members_failed")
    assert error.details is not None
    told = [(one["id"], one["model"], one["code"]) for one in error.details["members"]]
    assert told == [("m1", "m1", "upstream_error"), ("m2", "m2", "upstream_timeout_first_token")]
    assert error.should_retry is None


def test_only_if_all_were_slow_it_is_a_time_out() -> None:
    assert refusal(gathered(SLOW, SLOW)).status == 504


def test_where_all_would_fail_again_clients_are_told_not_to_repeat() -> None:
    assert refusal(gathered(REFUSED, ServerError("Ours."))).should_retry is False


def refused(message: str, code: str, param: str | None) -> ServerError:
    return UpstreamRefused(message, code=code, param=param, upstream_status=400)


def test_what_every_member_refuses_is_the_clients_mistake_in_their_words() -> None:
    alike = refused("temperature must be below 2.", "invalid_value", "temperature")
    error = refusal(gathered(alike, alike))
    assert (error.status, error.type, error.code) == (400, "invalid_request_error", "invalid_value")
    assert (error.message, error.param) == ("temperature must be below 2.", "temperature")
    assert error.should_retry is False


def test_where_their_words_differ_each_members_are_in_the_details() -> None:
    told = (
        refused("Too long.", "context_length_exceeded", "messages"),
        refused("No.", "invalid_value", None),
    )
    error = refusal(gathered(*told))
    assert (error.status, error.code, error.param) == (400, "all_members_failed", None)
    assert error.details is not None
    assert [one["code"] for one in error.details["members"]] == ["context_length_exceeded", "invalid_value"]


def test_as_long_as_one_failed_otherwise_it_is_not_the_clients_mistake() -> None:
    assert refusal(gathered(refused("No.", "invalid_value", None), FAILED)).status == 502


def test_models_that_are_gone_are_the_operators_mistake() -> None:
    gone = UpstreamRefused("There is no model x.", status=404, upstream_status=404, code="model_not_found")
    error = refusal(gathered(gone, gone))
    assert (error.status, error.code, error.should_retry) == (502, "all_members_failed", False)


def test_too_few_drafts_are_an_error_of_their_own() -> None:
    error = refusal(gathered("a", FAILED, FAILED, min_success=2))
    assert (error.status, error.code) == (502, "too_few_drafts")
    assert "1 of 3" in error.message
    assert "2 are wanted" in error.message


@pytest.mark.parametrize(
    ("outcomes", "min_success", "wait_s"),
    [
        ([limited(9), limited(3), limited(5)], 1, 3),
        ([limited(9), limited(3), limited(5)], 2, 5),
        (["a", limited(9), limited(3)], 2, 3),
        ([limited(9), REFUSED], 1, 9),
        ([limited(9), Overloaded("busy", retry_after_s=4)], 1, 4),
        ([limited(9), RateLimited("slower")], 1, None),
        ([limited(9), FAILED], 1, None),
        ([limited(9), SLOW], 1, None),
        ([limited(9), REFUSED], 2, None),
        ([FAILED, FAILED], 1, None),
    ],
)
def test_where_all_that_may_pass_named_a_time_the_client_hears_when_there_may_be_drafts_enough(
    outcomes: list[str | ServerError], min_success: int, wait_s: float | None
) -> None:
    error = refusal(gathered(*outcomes, min_success=min_success))
    assert (error.status, error.retry_after_s) == (502, wait_s)


@given(
    st.lists(st.sampled_from(["a", ("cut",), FAILED, SLOW, REFUSED]), min_size=1, max_size=6),
    st.integers(1, 3),
)
def test_there_is_an_answer_exactly_if_there_are_drafts_enough(
    outcomes: list[str | ServerError | tuple[str]], min_success: int
) -> None:
    stage = gathered(*outcomes, min_success=min_success)
    assert len(stage.drafts) + len(stage.failures) == len(outcomes)
    if len(stage.drafts) >= min_success:
        stage.require()
        assert stage.level in ("none", "quorum", "partial", "lone")
    else:
        assert refusal(stage).details == {
            "members": [
                {"id": one.call.id, "model": one.call.model, "code": one.code, "message": one.message}
                for one in stage.failures
            ]
        }


def test_a_failure_remembers_what_the_upstream_said_and_whether_to_try_again() -> None:
    failed, slow, refused = told_failures(gathered(FAILED, SLOW, REFUSED).failures)
    assert (failed.code, failed.http_status, failed.retryable) == ("upstream_error", 500, True)
    assert (slow.code, slow.http_status, slow.retryable) == ("upstream_timeout_first_token", None, True)
    assert (refused.code, refused.http_status, refused.retryable) == ("context_length_exceeded", None, False)
