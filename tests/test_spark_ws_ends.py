"""How an answer of Spark's ends: with an error, moderated, cut, or whole with frames behind it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from server.deltas import Finished, Opening, TextDelta
from server.errors import (
    AuthenticationError,
    ContentFiltered,
    RateLimited,
    ServerError,
    UpstreamAuth,
    UpstreamCut,
    UpstreamEmpty,
    UpstreamError,
)
from server.spark_ws import SparkOptions
from tests.spark.spark_frames import LAST, PLUGIN, SID, USAGE, USED, error, frame, protocol, said, text


def test_an_error_frame_is_an_error_and_no_empty_answer() -> None:
    wire = protocol()
    with pytest.raises(RateLimited, match="11202") as caught:
        wire.receive(error(11202, "AppIdQpsOverFlowError"))
    assert caught.value.details == {"upstream_code": 11202, "sid": SID}
    assert wire.done
    with pytest.raises(RateLimited):
        wire.closed()


@pytest.mark.parametrize("status", [0, 1, 2])
def test_an_error_ends_the_answer_whatever_its_status(status: int) -> None:
    with pytest.raises(UpstreamError, match="10222"):
        protocol().receive(error(10222, status=status))


@pytest.mark.parametrize("payload", [None, {}, {"choices": None}, {"choices": {"text": []}}, 7, [1]])
def test_an_error_counts_whatever_stands_beside_it(payload: Any) -> None:
    body = {"header": {"code": 10110, "message": "busy", "sid": SID, "status": 2}, "payload": payload}
    with pytest.raises(ServerError, match="10110"):
        protocol().receive(json.dumps(body))


def test_an_error_after_text_is_raised_and_what_was_said_is_said() -> None:
    wire = protocol()
    assert wire.receive(text("a", 0)) == [Opening(), TextDelta("a")]
    with pytest.raises(UpstreamError, match="10009"):
        wire.receive(error(10009))


def test_an_error_gives_back_first_what_was_held() -> None:
    wire = protocol(stops=["END"])
    assert wire.receive(text("EN", 0)) == []
    assert wire.receive(error(10009)) == [Opening(), TextDelta("EN")]
    assert wire.done
    with pytest.raises(UpstreamError, match="10009"):
        wire.closed()


@pytest.mark.parametrize(("own", "kind"), [(True, AuthenticationError), (False, UpstreamAuth)])
def test_refused_credentials_are_told_to_whom_they_belong(own: bool, kind: type[ServerError]) -> None:
    with pytest.raises(kind):
        protocol(callers_own=own).receive(error(10313))


@pytest.mark.parametrize("code", [10013, 10014, 10019, 10021, 10022])
def test_moderation_before_any_text_is_a_400(code: int) -> None:
    wire = protocol()
    with pytest.raises(ContentFiltered, match="for display") as caught:
        wire.receive(error(code, "for display"))
    assert (caught.value.status, caught.value.code) == (400, "content_filter")


@pytest.mark.parametrize("code", [10013, 10014, 10019, 10021, 10022])
def test_moderation_after_text_ends_it_as_filtered(code: int) -> None:
    assert said(text("a", 0), error(code)) == [Opening(), TextDelta("a"), Finished("content_filter")]


def test_a_warning_may_bring_text_and_figures() -> None:
    last = text("b", 2, code=10019, usage=USAGE)
    assert said(text("a", 0), last)[1:] == [TextDelta("a"), TextDelta("b"), Finished("content_filter"), USED]


def test_a_warned_answer_ends_as_whole_where_that_is_wanted() -> None:
    options = SparkOptions(warned="stop")
    assert said(text("a", 0), error(10019), options=options)[-1] == Finished("stop")


def test_a_warning_that_is_not_the_last_frame_is_remembered() -> None:
    assert said(text("a", 0), error(10019, status=1), text("b", 2))[-1] == Finished("content_filter")
    assert said(text("a", 0), error(10019, status=1))[-1] == Finished("content_filter")


@pytest.mark.parametrize("frames", [[], [text("a", 0)], [text("a", 0), text("b", 1)], [PLUGIN]])
def test_a_close_without_the_last_frame_is_a_cut(frames: list[str]) -> None:
    wire = protocol()
    for one in frames:
        wire.receive(one)
    with pytest.raises(UpstreamCut):
        wire.closed()
    with pytest.raises(UpstreamCut):
        wire.closed()


def test_an_end_without_anything_said_is_empty_and_no_answer() -> None:
    with pytest.raises(UpstreamEmpty):
        protocol().receive(frame(status=2))
    with pytest.raises(UpstreamEmpty):
        protocol().receive(frame({"content": ""}, status=2, usage={**USAGE, "completion_tokens": 0}))


def test_an_end_without_text_that_used_tokens_is_an_answer() -> None:
    assert said(LAST) == [Opening(), Finished("stop"), USED]


def test_the_text_of_the_last_frame_is_said_before_the_answer_ends() -> None:
    wire = protocol(stops=("never",))
    assert wire.receive(text("a ne", 0)) == [Opening(), TextDelta("a ")]
    assert (wire.complete, wire.done) == (False, False)
    assert wire.receive(text("", 2, usage=USAGE)) == [TextDelta("ne")]
    assert (wire.complete, wire.done) == (True, False)
    assert wire.closed() == [Finished("stop"), USED]
    assert wire.done
    assert wire.closed() == ()


@pytest.mark.parametrize("code", [10013, 10014, 10019, 10021, 10022])
@pytest.mark.parametrize("status", [0, 1, 2])
def test_moderation_behind_the_last_frame_is_the_reason_of_the_end(code: int, status: int) -> None:
    assert said(text("a", 2, usage=USAGE), error(code, status=status))[1:] == [
        TextDelta("a"),
        Finished("content_filter"),
        USED,
    ]


def test_a_warning_behind_the_last_frame_may_bring_text_and_figures_and_be_of_no_account() -> None:
    late = text("b", 2, code=10019, usage=USAGE)
    assert said(text("a", 2), late)[1:] == [TextDelta("a"), TextDelta("b"), Finished("content_filter"), USED]
    options = SparkOptions(warned="stop")
    assert said(text("a", 2), error(10019), options=options)[-1] == Finished("stop")


@pytest.mark.parametrize("late", [text("b", 1), text("b", 2), error(10009), error(11203), b"\xff", "no json"])
def test_other_frames_after_the_last_change_nothing(late: str | bytes) -> None:
    assert said(text("a", 2), late) == [Opening(), TextDelta("a"), Finished("stop")]


def test_figures_behind_the_last_frame_count_if_there_were_none() -> None:
    late = json.dumps({"header": {"code": 0, "status": 2}, "payload": {"usage": {"text": USAGE}}})
    assert said(text("a", 2), late)[-2:] == [Finished("stop"), USED]
    other = json.dumps({"header": {"code": 0}, "payload": {"usage": {"text": {"prompt_tokens": 99}}}})
    assert said(text("a", 2, usage=USAGE), other)[-1] == USED


def test_a_warning_before_the_text_lets_it_be_said() -> None:
    assert said(error(10019, status=1), text("a", 1), text("b", 2))[1:] == [
        TextDelta("a"),
        TextDelta("b"),
        Finished("content_filter"),
    ]


def test_frames_after_the_end_are_not_read() -> None:
    wire = protocol()
    wire.receive(text("a", 2))
    wire.closed()
    assert wire.receive(error(10014)) == ()
    assert wire.closed() == ()
