"""Whatever a client's conversation looks like, Spark gets one that it takes, with all that was said."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.errors import InvalidRequest
from server.spark.conversation import GO_ON, MAX_IMAGE_BYTES, OPENING, shape
from server.spark.models import MODELS
from tests.spark.spark_chats import chat

LITE, MAX, VISION = MODELS["spark-lite"], MODELS["spark-max"], MODELS["spark-vision"]
PIXELS = base64.b64encode(b"\xff\xd8pixels").decode()
JPEG = f"data:image/jpeg;base64,{PIXELS}"
CALL = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"a":1}'}}],
}


def turn(role: str, content: Any, **fields: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **fields}


def seeing(*urls: str, text: str = "what is it?") -> dict[str, Any]:
    images = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return turn("user", [{"type": "text", "text": text}, *images])


def shaped(*messages: dict[str, Any], model: Any = MAX) -> list[tuple[str, str]]:
    return [(one.role, one.content) for one in shape(chat(*messages), model)]


def test_a_proper_conversation_goes_as_it_is() -> None:
    turns = [("system", "s"), ("user", "a"), ("assistant", "b"), ("user", "c")]
    assert shaped(*(turn(*one) for one in turns)) == turns


def test_a_model_without_system_prompt_gets_it_before_the_first_question() -> None:
    assert shaped(turn("system", "s"), turn("user", "a"), model=LITE) == [("user", "s\n\na")]


def test_system_prompts_anywhere_are_merged_at_the_head() -> None:
    messages = (turn("user", "a"), turn("system", "s"), turn("assistant", "b"), turn("developer", "d"))
    assert shaped(*messages, turn("user", "c"))[0] == ("system", "s\n\nd")


def test_a_system_prompt_alone_is_asked_as_a_question() -> None:
    assert shaped(turn("system", "s")) == [("user", "s")]


def test_neighbours_of_one_role_are_merged() -> None:
    assert shaped(turn("user", "a"), turn("user", "b")) == [("user", "a\nb")]


def test_text_parts_are_joined_by_newlines() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert shaped(turn("user", parts)) == [("user", "a\nb")]


def test_empty_turns_are_dropped_and_what_they_parted_is_merged() -> None:
    messages = (turn("user", "a"), turn("assistant", None), turn("assistant", " \n"), turn("user", "b"))
    assert shaped(*messages) == [("user", "a\nb")]


def test_nothing_but_empty_turns_is_a_400() -> None:
    with pytest.raises(InvalidRequest, match="empty") as caught:
        shaped(turn("user", ""), turn("system", ""))
    assert caught.value.param == "messages"


def test_an_assistant_first_or_last_is_framed_by_the_user() -> None:
    assert shaped(turn("assistant", "b")) == [("user", OPENING), ("assistant", "b"), ("user", GO_ON)]


def test_calls_and_their_results_become_text() -> None:
    result = turn("tool", "sunny", tool_call_id="c1")
    assert shaped(turn("user", "a"), CALL, result) == [
        ("user", "a"),
        ("assistant", 'Call weather with {"a":1}'),
        ("user", "Result of weather: sunny"),
    ]
    assert shaped(turn("function", "1", name="f")) == [("user", "Result of f: 1")]


@pytest.mark.parametrize(
    ("messages", "words", "code"),
    [
        ([turn("tool", "1", tool_call_id="?")], "answers no call", "invalid_value"),
        ([CALL, turn("tool", "1")], "is missing", "missing_required_parameter"),
        ([CALL, *[turn("tool", "1", tool_call_id="c1")] * 2], "that has its result", "invalid_value"),
    ],
)
def test_a_result_without_a_call_is_a_400(messages: list[dict[str, Any]], words: str, code: str) -> None:
    with pytest.raises(InvalidRequest, match=words) as caught:
        shaped(turn("user", "a"), *messages)
    assert (caught.value.param, caught.value.code) == (f"messages[{len(messages)}].tool_call_id", code)


def test_an_id_may_be_used_anew() -> None:
    result = turn("tool", "1", tool_call_id="c1")
    assert len(shaped(CALL, result, CALL, result)) == 5


def test_calls_that_are_none_are_a_400() -> None:
    with pytest.raises(InvalidRequest, match="tool_calls") as caught:
        shaped(turn("assistant", "x", tool_calls=[{"type": "custom"}]), turn("user", "a"))
    assert caught.value.param == "messages[0].tool_calls[0]"


def test_a_refusal_is_what_was_said() -> None:
    refused = [{"type": "refusal", "refusal": "Never."}]
    told = shaped(turn("user", "a"), turn("assistant", None, refusal="No."), turn("user", "b"))
    assert told[1] == ("assistant", "No.")
    assert shaped(turn("user", "a"), turn("assistant", refused), turn("user", "b"))[1][1] == "Never."


@pytest.mark.parametrize("role", ["robot", ""])
def test_an_unknown_role_is_a_400_with_its_place(role: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        shaped(turn("user", "a"), turn(role, "b"))
    assert caught.value.param == "messages[1].role"


def test_a_part_that_is_neither_text_nor_image_is_a_400_with_its_place() -> None:
    with pytest.raises(InvalidRequest, match="input_audio") as caught:
        shaped(turn("user", [{"type": "input_audio", "input_audio": {}}]))
    assert caught.value.param == "messages[0].content[0].type"


def test_reasoning_of_earlier_turns_is_not_sent_back() -> None:
    thought = turn("assistant", "b", reasoning_content="hm")
    assert shaped(turn("user", "a"), thought, turn("user", "c"))[1] == ("assistant", "b")


def test_an_image_comes_first_in_plain_base64_and_every_text_is_marked() -> None:
    turns = shape(chat(turn("system", "s"), turn("user", "a"), turn("assistant", "b"), seeing(JPEG)), VISION)
    assert [(one.role, one.content_type) for one in turns] == [
        ("user", "image"),
        ("user", "text"),
        ("assistant", "text"),
        ("user", "text"),
    ]
    assert turns[0].content == PIXELS
    assert turns[1].content == "s\n\na"


def test_of_several_turns_with_an_image_the_newest_counts() -> None:
    old = "data:image/png;base64,b2xk"
    turns = shaped(seeing(old), turn("assistant", "b"), seeing(JPEG), model=VISION)
    assert turns[0] == ("user", PIXELS)
    assert "b2xk" not in json.dumps(turns)


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (seeing(JPEG, JPEG), "too_many_images"),
        (seeing("data:image/webp;base64,AAAA"), "invalid_image"),
        (seeing("https://example.com/a.jpg"), "invalid_image"),
        (seeing("data:image/png;base64,A"), "invalid_image"),
        (seeing("data:image/png;base64,é"), "invalid_image"),
        (seeing("data:image/png;base64,"), "invalid_image"),
        (turn("user", "blind"), "missing_image"),
    ],
)
def test_an_image_that_spark_cannot_take_is_a_400_that_says_so(message: dict[str, Any], code: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        shaped(message, model=VISION)
    assert caught.value.code == code


def test_an_image_above_4_mib_is_refused_and_one_of_4_mib_is_not() -> None:
    most = base64.b64encode(bytes(MAX_IMAGE_BYTES)).decode()
    assert shaped(seeing(f"data:image/png;base64,{most}"), model=VISION)[0] == ("user", most)
    more = base64.b64encode(bytes(MAX_IMAGE_BYTES + 1)).decode()
    with pytest.raises(InvalidRequest, match="4194304"):
        shaped(seeing(f"data:image/png;base64,{more}"), model=VISION)


def test_an_image_for_a_text_model_is_a_400_not_dropped() -> None:
    with pytest.raises(InvalidRequest, match="vision") as caught:
        shaped(turn("user", "a"), seeing(JPEG))
    assert caught.value.param == "messages[1].content"


ROLES = st.sampled_from(["system", "developer", "user", "assistant", "function"])


@given(st.lists(st.builds(turn, ROLES, st.text("ab \n", max_size=4)), max_size=12), st.booleans())
def test_any_conversation_alternates_and_keeps_every_word(
    messages: list[dict[str, Any]], system: bool
) -> None:
    model = MAX if system else LITE
    messages.append(turn("user", "q"))
    turns = shaped(*messages, model=model)
    said = "\n".join(content for _, content in turns)
    assert all(message["content"] in said for message in messages if message["content"].strip())
    if turns[0][0] == "system":
        assert system
        turns = turns[1:]
    assert [role for role, _ in turns] == ["user", "assistant"] * (len(turns) // 2) + ["user"]


def test_a_history_of_a_thousand_messages_goes_whole() -> None:
    messages = [turn(("user", "assistant")[place % 2], f"m{place}") for place in range(1001)]
    assert [content for _, content in shaped(*messages)] == [f"m{place}" for place in range(1001)]
