"""Turns of a conversation: what is not changed stays as it came, byte for byte."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.coordinator.turns import (
    IMAGE_TAKEN_OUT,
    Turn,
    join_turns,
    leading,
    parts_beside_text,
    raw_parts,
    tools_as_text,
    turns_of,
    user_turn,
    with_system,
    without_images,
)
from server.openai_wire import parse_chat

IMAGE = {"type": "image_url", "image_url": {"url": "https://example.com/a.png", "detail": "low", "x": 1}}
SOUND = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
TEXT = {"type": "text", "text": "see"}


def turns(*messages: dict[str, Any]) -> list[Turn]:
    chat = parse_chat(json.dumps({"model": "m", "messages": messages}).encode())
    return turns_of(chat.raw_messages(), chat.messages)


def turn(role: str, content: Any, **fields: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **fields}


def values(data: list[bytes]) -> list[Any]:
    return [json.loads(one) for one in data]


def test_turns_joined_are_the_messages_they_came_from() -> None:
    messages = [turn("system", "a"), turn("user", [TEXT, IMAGE]), turn("assistant", None, x={"y": [1, 2]})]
    assert json.loads(join_turns([one.data for one in turns(*messages)])) == messages


@pytest.mark.parametrize(
    ("roles", "count"),
    [
        (["user"], 0),
        (["system", "user"], 1),
        (["system", "developer", "user", "system"], 2),
        (["developer"], 1),
        (["system", "system"], 2),
    ],
)
def test_only_system_turns_at_the_beginning_lead(roles: list[str], count: int) -> None:
    assert leading(turns(*(turn(role, "a") for role in roles))) == count


def test_without_a_system_turn_one_is_put_first() -> None:
    talk = turns(turn("user", "hi", name="ann"))
    first, second = with_system(talk, "Be brief.")
    assert json.loads(first) == turn("system", "Be brief.")
    assert second == talk[0].data


@pytest.mark.parametrize("role", ["system", "developer"])
def test_with_one_the_text_goes_to_the_end_of_the_last_of_them(role: str) -> None:
    talk = turns(turn("system", "first"), turn(role, "last", name="x"), turn("user", "hi"))
    told = with_system(talk, "Be brief.")
    assert (told[0], told[2]) == (talk[0].data, talk[2].data)
    assert json.loads(told[1]) == turn(role, "last\n\nBe brief.", name="x")


@pytest.mark.parametrize(
    ("content", "made"),
    [
        ("", "new"),
        ([TEXT], [TEXT, {"type": "text", "text": "new"}]),
        ([], [{"type": "text", "text": "new"}]),
        (None, [{"type": "text", "text": "new"}]),
    ],
)
def test_a_system_turn_of_any_form_takes_the_text(content: Any, made: Any) -> None:
    assert values(with_system(turns(turn("system", content)), "new")) == [turn("system", made)]


def test_the_parts_of_a_turn_keep_their_bytes() -> None:
    data = b'{"role": "user", "content": [ {"type":"text",  "text":"a"}, {"type":"x","n":1.0} ]}'
    chat = parse_chat(b'{"model":"m","messages":[' + data + b"]}")
    (only,) = turns_of(chat.raw_messages(), chat.messages)
    assert [bytes(part) for part in raw_parts(only)] == [
        b'{"type":"text",  "text":"a"}',
        b'{"type":"x","n":1.0}',
    ]


@pytest.mark.parametrize(("content", "count"), [("a", 1), (None, 0), ([], 0)])
def test_a_text_is_one_part_and_nothing_is_none(content: Any, count: int) -> None:
    (only,) = turns(turn("user", content))
    assert len(raw_parts(only)) == count
    assert parts_beside_text(only, images=True) == []


def test_beside_text_stand_images_and_sounds() -> None:
    (only,) = turns(turn("user", [TEXT, IMAGE, SOUND]))
    assert values([bytes(one) for one in parts_beside_text(only, images=True)]) == [IMAGE, SOUND]
    assert values([bytes(one) for one in parts_beside_text(only, images=False)]) == [SOUND]


def test_an_image_that_is_taken_out_leaves_a_word_and_all_else() -> None:
    (before,) = turns(turn("user", [TEXT, IMAGE, SOUND], name="ann", x=1))
    after = without_images(before)
    note = {"type": "text", "text": IMAGE_TAKEN_OUT}
    assert json.loads(after.data) == turn("user", [TEXT, note, SOUND], name="ann", x=1)
    assert not after.view.images


@pytest.mark.parametrize("content", ["a", None, [TEXT], [TEXT, SOUND]])
def test_a_turn_without_an_image_is_left_as_it_is(content: Any) -> None:
    (before,) = turns(turn("user", content))
    assert without_images(before) is before


def test_a_user_turn_is_text_or_parts() -> None:
    assert json.loads(user_turn("hi")) == turn("user", "hi")
    (only,) = turns(turn("user", [TEXT, IMAGE]))
    assert json.loads(user_turn(raw_parts(only))) == turn("user", [TEXT, IMAGE])


contents = st.one_of(
    st.none(),
    st.text(st.characters(exclude_categories=["Cs"])),
    st.lists(st.sampled_from([TEXT, IMAGE, SOUND])),
)
messages = st.builds(turn, st.sampled_from(["system", "developer", "user", "assistant", "tool"]), contents)


@given(st.lists(messages, min_size=1, max_size=6), st.text("abc ", min_size=1))
def test_whatever_the_talk_all_turns_but_one_stay_and_the_text_is_in_the_system(
    talk: list[dict[str, Any]], text: str
) -> None:
    before = turns(*talk)
    after = with_system(before, text)
    changed = [data for data in after if data not in [one.data for one in before]]
    assert len(after) - len(before) in (0, 1)
    assert len(changed) <= 1
    told = values(after)[max(0, leading(before) - 1)]
    assert told["role"] in ("system", "developer")
    assert text in json.dumps(told["content"], ensure_ascii=False)


def call(arguments: str) -> dict[str, Any]:
    return {"id": "c", "type": "function", "function": {"name": "look", "arguments": arguments}}


def test_calls_and_results_are_told_in_words_and_roles_still_alternate() -> None:
    told = tools_as_text(
        turns(
            turn("user", "Look."),
            turn("assistant", "I look.", tool_calls=[call("{}"), call('{"at": 1}')]),
            turn("tool", "a cat", tool_call_id="c"),
            turn("tool", "a dog", tool_call_id="c"),
            turn("user", "And now?", name="ada"),
            turn("assistant", None, tool_calls=[call("{}")]),
            turn("tool", "a cow", tool_call_id="c"),
            turn("user", [TEXT, IMAGE]),
        )
    )
    results = "[Result of a tool]\na cat\n\n[Result of a tool]\na dog"
    assert values([one.data for one in told]) == [
        turn("user", "Look."),
        turn("assistant", 'I look.\n[Call of a tool] look({})\n[Call of a tool] look({"at": 1})'),
        turn("user", f"{results}\n\nAnd now?", name="ada"),
        turn("assistant", "[Call of a tool] look({})"),
        turn("user", [{"type": "text", "text": "[Result of a tool]\na cow"}, TEXT, IMAGE]),
    ]
    assert told[-1].view.images


def test_results_at_the_end_are_a_turn_of_their_own() -> None:
    told = tools_as_text(turns(turn("user", "Look."), turn("tool", "a cat", tool_call_id="c")))
    assert [one.view.role for one in told] == ["user", "user"]
    assert tools_as_text(turns(turn("user", "a"), turn("user", "b")))[1].view.text == "b"
