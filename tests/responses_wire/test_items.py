"""Items as turns of a chat."""

from __future__ import annotations

import json
from typing import Any

import pytest

from server.errors import InvalidRequest
from server.openai_wire import sealed
from server.responses_wire.items import all_turns

CALL = {"type": "function_call", "call_id": "a", "name": "f", "arguments": '{"x": 1}'}
OUTPUT = {"type": "function_call_output", "call_id": "a", "output": "fine"}
IMAGE = {"type": "input_image", "image_url": "data:image/png;base64,AAAA"}
SEEN: dict[str, Any] = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
CALLED = {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}


def missing(item_id: str, param: str) -> bytes:
    raise InvalidRequest(f"{item_id} is not kept.", param=param)


def turns(*items: dict[str, Any]) -> Any:
    given = [(json.dumps(item).encode(), f"input[{at}]") for at, item in enumerate(items)]
    made, _, _ = all_turns([], given, missing)
    return json.loads(json.dumps(made, default=lambda raw: json.loads(bytes(raw))))


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def test_a_picture_that_was_made_is_shown_behind_the_turn() -> None:
    said = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Look."}]}
    picture = {"type": "image_generation_call", "id": "ig_1", "status": "completed", "result": "AAAA"}
    made = turns(user("draw"), said, picture, user("bluer"))
    shown = [{"type": "text", "text": "The picture that you made:"}, SEEN, {"type": "text", "text": "bluer"}]
    assert made == [
        {"role": "user", "content": "draw"},
        {"role": "assistant", "content": "Look."},
        {"role": "user", "content": shown},
    ]
    (_, _, last) = turns(user("draw"), picture | {"output_format": "webp"}, user("bluer"))
    assert last["content"][1]["image_url"]["url"] == "data:image/webp;base64,AAAA"
    assert turns(user("draw"), picture | {"result": None})[1:] == [{"role": "assistant", "content": ""}]


def test_what_stood_beside_the_text_goes_back_there() -> None:
    extra = {"google": {"thought_signature": "Ej"}}
    beside = {"type": "reasoning", "summary": [], "encrypted_content": sealed([{"extra_content": extra}])}
    assert turns(user("q"), beside)[1]["extra_content"] == extra


def test_openrouters_thoughts_go_back_as_they_were() -> None:
    details = [{"type": "reasoning.encrypted", "data": "gAAA"}]
    sealed_in = sealed([{"reasoning_details": details}])
    kept = {"type": "reasoning", "summary": [], "encrypted_content": sealed_in}
    assert turns(user("q"), kept, kept)[1]["reasoning_details"] == [*details, *details]


def test_what_an_assistant_thinks_says_and_calls_is_one_turn() -> None:
    thought = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]}
    said = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I look."}]}
    other = CALL | {"call_id": "b"}
    made = turns(user("hi"), thought, said, CALL, other, OUTPUT, OUTPUT | {"call_id": "b"}, user("so?"))
    assert made == [
        {"role": "user", "content": "hi"},
        {
            "role": "assistant",
            "content": "I look.",
            "tool_calls": [CALLED, CALLED | {"id": "b"}],
            "reasoning_content": "hm",
        },
        {"role": "tool", "tool_call_id": "a", "content": "fine"},
        {"role": "tool", "tool_call_id": "b", "content": "fine"},
        {"role": "user", "content": "so?"},
    ]


def test_words_behind_a_call_do_not_part_it_from_its_output() -> None:
    said = {"role": "assistant", "content": "Looking."}
    assert [turn["role"] for turn in turns(user("hi"), CALL, said, OUTPUT)] == ["user", "assistant", "tool"]
    twice = turns(user("hi"), said, said)
    assert [turn["role"] for turn in twice] == ["user", "assistant", "assistant"]


def test_images_in_an_output_stay_in_it() -> None:
    shown = {
        "type": "function_call_output",
        "call_id": "a",
        "output": [{"type": "input_text", "text": "see"}, IMAGE],
    }
    given = [(json.dumps(item).encode(), "input") for item in (user("hi"), CALL, shown)]
    made, _, wide = all_turns([], given, missing)
    assert wide
    content = [{"type": "text", "text": "see"}, SEEN]
    assert made[2:] == [{"role": "tool", "tool_call_id": "a", "content": content}]


def test_what_was_signed_behind_words_goes_back_behind_them() -> None:
    blocks = [{"type": "thinking", "thinking": "hm", "signature": "Eq"}]
    thought = {"type": "reasoning", "summary": [], "encrypted_content": sealed(blocks)}
    said = {"role": "assistant", "content": "Let me see."}
    first, second = turns(user("hi"), thought, said, thought, CALL, OUTPUT)[1:3]
    assert (first["thinking_blocks"], first["content"]) == (blocks, "Let me see.")
    assert "tool_calls" not in first
    assert (second["thinking_blocks"], len(second["tool_calls"])) == (blocks, 1)


def test_signed_thoughts_go_back_by_their_own_name() -> None:
    blocks = [{"type": "thinking", "thinking": "hm", "signature": "Eq"}]
    thought = {"type": "reasoning", "summary": [], "encrypted_content": sealed(blocks)}
    given = [(json.dumps(item).encode(), "input") for item in (user("hi"), thought, CALL, OUTPUT)]
    made, _, wide = all_turns([], given, missing)
    assert wide
    assert made[1]["thinking_blocks"] == blocks
    foreign = thought | {"encrypted_content": "gAAAA"}
    assert "thinking_blocks" not in turns(user("hi"), foreign, CALL, OUTPUT)[1]


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (
            IMAGE | {"detail": "low"},
            {"type": "image_url", "image_url": SEEN["image_url"] | {"detail": "low"}},
        ),
        (
            {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBE"},
            {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBE"}},
        ),
        (
            {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
            {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
        ),
    ],
)
def test_each_part_has_its_form(part: dict[str, Any], expected: dict[str, Any]) -> None:
    assert turns(user([{"type": "input_text", "text": "hi"}, part]))[0]["content"][1] == expected


def test_a_developers_word_is_a_systems() -> None:
    assert turns({"role": "developer", "content": "x"}, user("hi"))[0] == {"role": "system", "content": "x"}


@pytest.mark.parametrize(
    ("items", "param"),
    [
        ([{"role": "tool", "content": "x"}], "input[0].role"),
        ([{"type": "web_search_call", "id": "w"}], "input[0].type"),
        ([user([{"type": "odd"}])], "input[0].content[0].type"),
        ([user([{"type": "input_image", "file_id": "f"}])], "input[0].content[0]"),
        ([user([{"text": "x"}])], "input[0].content[0]"),
        ([user(1)], "input[0].content"),
        ([OUTPUT], "input[0].call_id"),
        ([CALL, OUTPUT, OUTPUT], "input[2].call_id"),
        ([CALL], "input"),
        ([CALL, user("hi")], "input"),
        ([CALL | {"name": ""}], "input[0].name"),
        ([CALL | {"arguments": {}}], "input[0].arguments"),
        ([{"type": "item_reference", "id": "x"}], "input[0].id"),
        (
            [{"type": "reasoning", "summary": [], "encrypted_content": "antiphon:!"}],
            "input[0].encrypted_content",
        ),
    ],
)
def test_a_fault_names_its_place(items: list[dict[str, Any]], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        turns(*items)
    assert refused.value.param == param
