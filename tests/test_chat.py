"""A chat request keeps its bytes: an edit touches whole top-level values and nothing else."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.chat import ChatRequest, JsonObject
from server.errors import InvalidRequest

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
OBJECTS = st.dictionaries(st.text(), VALUES, max_size=6)
STYLES = st.sampled_from([(",", ":"), (", ", ": "), (" ,\n", "\t: ")])


@given(OBJECTS, OBJECTS, st.sets(st.text()), STYLES, st.booleans())
def test_an_edit_is_what_it_says_and_leaves_the_rest(
    before: dict[str, Any], sets: dict[str, Any], removed: set[str], style: tuple[str, str], ascii_only: bool
) -> None:
    data = json.dumps(before, separators=style, ensure_ascii=ascii_only).encode(errors="surrogatepass")
    try:
        thing = JsonObject(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return  # a lone surrogate: refused before it comes here
    gone = {key for key in removed | set(list(before)[:1]) if key not in sets}
    changes: dict[str, bytes | None] = dict.fromkeys(gone)
    try:
        changes |= {key: msgspec.json.encode(value) for key, value in sets.items()}
    except (UnicodeEncodeError, msgspec.MsgspecError):
        return
    after = JsonObject(thing.edit(changes))
    expected = {key: value for key, value in before.items() if key not in gone} | sets
    assert json.loads(after.data) == expected
    for key in before:
        if key not in changes:
            assert after.raw(key) == thing.raw(key)


def test_odd_numbers_and_spaces_inside_values_survive_an_edit() -> None:
    data = b'{ "a": [1.0,  12345678901234567890123] ,"model":"x", "b":{"c" : null}}'
    assert JsonObject(data).edit({"model": b'"y"'}) == data.replace(b'"x"', b'"y"')


def test_a_value_that_holds_a_key_is_not_the_key() -> None:
    data = b'{"x":{"model":"inner"},"y":"\\"model\\":\\"z\\"","model":"m"}'
    assert JsonObject(data).edit({"model": b'"n"'}) == data.replace(b'"m"', b'"n"')


@pytest.mark.parametrize(
    "data", [b'{"a":1,"a":1}', b'{"a":1,"b":2,"a":3}', b'{"a":12,"a":1}', b'{"a":1, "\\u0061":2}']
)
def test_a_double_key_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidRequest, match="twice"):
        JsonObject(data)


def chat(**fields: Any) -> ChatRequest:
    return ChatRequest(JsonObject(json.dumps(fields).encode()))


def test_the_last_user_turn_and_its_images_are_found() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:,", "detail": "low"}}
    turns = [
        {"role": "user", "content": [image, {"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": "c"},
    ]
    last = chat(messages=turns).last_turn
    assert last is not None
    assert last.text == "a\nb"
    assert [one.url for one in last.images] == ["data:,"]


def test_either_name_of_the_token_limit_counts_the_newer_first() -> None:
    assert chat(max_tokens=5).max_tokens == 5
    assert chat(max_tokens=5, max_completion_tokens=3).max_tokens == 3
    assert chat().max_tokens is None


def test_null_is_as_good_as_absent_and_zero_is_not() -> None:
    asked = chat(stream=None, temperature=0, tools=None)
    assert not asked.stream
    assert asked.fields.temperature == 0
    assert not asked.has("tools")
    assert asked.has("temperature")


def test_turns_are_edited_without_touching_their_bytes() -> None:
    body = b'{"messages":[{"role":"user" , "content":"a","x":1.0}],"model":"m"}'
    asked = ChatRequest(JsonObject(body))
    longer = asked.with_messages([b'{"role":"system","content":"s"}', *asked.raw_messages()])
    system = b'{"role":"system","content":"s"},'
    assert longer.body == body.replace(b"[", b"[" + system)
    assert asked.body == body
