"""The frames of an answer, and between them what a script does to it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from server.simulators.script import ToolCall
from server.simulators.spark_asked import SparkAsked
from server.simulators.spark_frames import FrameStep, Message, Raw, frame_steps, sid_of
from server.simulators.spark_models import MAX, X1
from server.simulators.spark_script import Source, SparkScript
from server.simulators.steps import Cut, Pause

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def asked(**fields: Any) -> SparkAsked:
    known: dict[str, Any] = {
        "model": MAX, "name": "generalv3.5", "app_id": "simulate", "uid": "", "last_user": "hi",
        "prompt_tokens": 7, "question_tokens": 2, "thinks": False, "shows_sources": False,
    }  # fmt: skip
    return SparkAsked(**known | fields)


def steps(request: SparkAsked | None = None, **script: Any) -> list[FrameStep]:
    return list(frame_steps(SparkScript(**script), request or asked(), 1, NOW))


def frames(request: SparkAsked | None = None, **script: Any) -> list[dict[str, Any]]:
    return [json.loads(one.data) for one in steps(request, **script) if isinstance(one, Message)]


def status(frame: dict[str, Any]) -> tuple[int, int]:
    return frame["header"]["status"], frame["payload"]["choices"]["status"]


def test_frames_are_numbered_from_0_to_the_last_which_alone_has_the_usage() -> None:
    told = frames(chunks=4)
    assert [status(one) for one in told] == [(0, 0), (1, 1), (1, 1), (2, 2)]
    assert [one["payload"]["choices"]["seq"] for one in told] == [0, 1, 2, 3]
    assert ["usage" in one["payload"] for one in told] == [False, False, False, True]
    usage = told[-1]["payload"]["usage"]["text"]
    assert (usage["question_tokens"], usage["prompt_tokens"]) == (2, 7)
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


def test_one_frame_may_be_all() -> None:
    (only,) = frames(chunks=1)
    assert (status(only), only["payload"]["choices"]["seq"]) == ((2, 2), 0)


def test_the_last_frame_may_carry_text_or_none() -> None:
    with_text, without = frames(chunks=2), frames(chunks=2, last_frame="empty")
    assert with_text[-1]["payload"]["choices"]["text"][0]["content"]
    assert without[-1]["payload"]["choices"]["text"][0]["content"] == ""
    assert len(without) == 3


@pytest.mark.parametrize(
    ("where", "last"), [("both", (2, 2)), ("choices", (1, 2)), ("header", (2, 1)), ("missing", (1, 1))]
)
def test_the_end_stands_where_the_script_says(where: Any, last: tuple[int, int]) -> None:
    assert status(frames(chunks=3, last_status=where)[-1]) == last


def test_sessions_are_named_in_the_vendors_form() -> None:
    assert sid_of(SparkScript(), 1).startswith("cht000b0001@dx18")
    assert sid_of(SparkScript(), 1, http=True).startswith("cha000b0001@dx18")
    assert sid_of(SparkScript(sid="mine"), 1) == "mine"


def test_reasoning_comes_first_with_empty_contents() -> None:
    items = [one["payload"]["choices"]["text"][0] for one in frames(asked(model=X1, thinks=True), chunks=2)]
    assert [bool(one.get("reasoning_content")) for one in items] == [True, True, False, False]
    assert [bool(one["content"]) for one in items] == [False, False, True, True]


def test_a_function_call_is_one_frame_of_no_tokens_with_arguments_as_a_string() -> None:
    (only,) = frames(tools=(ToolCall(name="f", arguments='{"a": 1}'),))
    (item,) = only["payload"]["choices"]["text"]
    assert (item["content"], item["content_type"]) == ("", "text")
    assert item["function_call"] == {"name": "f", "arguments": '{"a": 1}'}
    assert only["payload"]["usage"]["text"]["completion_tokens"] == 0


def test_sources_come_before_the_answer_without_choices() -> None:
    first, *rest = frames(asked(shows_sources=True), chunks=2)
    assert first["header"]["status"] == 1
    assert first["payload"].keys() == {"plugins"}
    assert [one["payload"]["choices"]["seq"] for one in rest] == [0, 1]
    assert "plugins" in frames(sources=(Source(),))[0]["payload"]


@pytest.mark.parametrize(
    ("form", "codes"), [("own", [0, 0, 10019]), ("last", [0, 10019]), ("after", [0, 0, 10019])]
)
def test_a_warning_comes_in_place_of_the_last_frame_in_it_or_behind_it(form: Any, codes: list[int]) -> None:
    told = frames(chunks=2, error_code=10019, soft_form=form)
    assert [one["header"]["code"] for one in told] == codes
    ended = [one["header"]["status"] == 2 for one in told]
    assert ended == {"own": [False, False, True], "last": [False, True], "after": [False, True, True]}[form]


def test_an_error_comes_instead_of_an_answer_or_after_so_many_frames() -> None:
    (only,) = frames(error_code=10013)
    assert (only["header"]["code"], only["header"]["status"], "payload" in only) == (10013, 2, False)
    told = frames(chunks=9, error_code=10014, error_after=2)
    assert [one["header"]["code"] for one in told] == [0, 0, 10014]


def test_troubles_come_where_the_script_puts_them() -> None:
    told = steps(
        chunks=4,
        inject={1: "x"},
        inject_binary={2: "y"},
        inject_raw={3: "z"},
        cut_after=3,
        first_ms=5,
        pace_ms=7,
    )
    kinds = [type(one) for one in told]
    assert kinds[0] is Pause
    assert Message(b"x") in told
    assert Message(b"y", binary=True) in told
    assert told.index(Raw(b"z")) < kinds.index(Cut)
    assert kinds.count(Pause) == 4
    assert [one.seconds for one in steps(chunks=2, stall_after=1) if isinstance(one, Pause)] == [None]


def test_a_frame_behind_the_last_is_the_last_message() -> None:
    assert steps(after_done="late")[-1] == Message(b"late")
