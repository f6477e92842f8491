"""Quirks of a stream's chunks mended in their bytes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from server.openai_wire.chunks import Choice, decode_chunk, fields_of, objects
from server.openai_wire.mending import ChoiceState, ToolCalls, in_order, made_id, mended


def choice(**fields: Any) -> tuple[Choice, dict[str, Any]]:
    """A choice as the decoder sees it: as struct, and as raw fields."""
    data = json.dumps({"choices": [{"index": 0, **fields}]}).encode()
    decoded = decode_chunk(data)
    assert isinstance(decoded.choices, list)
    (raw,) = objects(fields_of(data)["choices"])
    return decoded.choices[0], raw


def mend(state: ChoiceState, **fields: Any) -> list[dict[str, Any]]:
    """What a choice with these fields becomes; the state is kept up as the decoder does."""
    typed, raw = choice(**fields)
    out = [json.loads(b"".join(_object(one))) for one in mended(typed, raw, state, b"seed")]
    state.opened = True
    return out


def _object(raw: Any) -> list[bytes]:
    parts = [json.dumps(key).encode() + b":" + bytes(value) for key, value in raw.items()]
    return [b"{", b",".join(parts), b"}"]


@pytest.mark.parametrize(
    ("delta", "opened"),
    [({"role": "assistant", "content": ""}, False), ({"content": "a"}, True), ({}, True)],
)
def test_what_is_in_order_goes_as_it_came(delta: dict[str, Any], opened: bool) -> None:
    state = ChoiceState()
    state.opened = opened
    assert in_order(choice(delta=delta, finish_reason=None)[0], state)


@pytest.mark.parametrize(
    ("fields", "opened"),
    [
        ({"delta": {"content": "a"}}, False),
        ({"delta": {"role": "assistant"}}, True),
        ({"delta": {"content": "a"}, "finish_reason": ""}, True),
        ({"delta": {"role": "assistant", "content": "a"}}, False),  # OpenAI's chunks say null
        ({"delta": {"content": "a", "reasoning_content": "b"}}, True),
        ({"delta": {"content": "a", "reasoning": "b"}}, True),
        ({"message": {"role": "assistant", "content": "a"}}, False),
        ({"delta": {"content": "a"}, "usage": {}}, True),
        ({"delta": {"content": "a"}, "index": None}, True),
        ({"delta": {"tool_calls": [{"id": "c", "function": {"name": "f", "arguments": ""}}]}}, True),
    ],
)
def test_what_is_not_in_order_does_not(fields: dict[str, Any], opened: bool) -> None:
    state = ChoiceState()
    state.opened = opened
    assert not in_order(choice(**({"finish_reason": None} if opened else {}) | fields)[0], state)


def test_the_role_is_put_into_the_first_chunk_and_taken_out_of_the_others() -> None:
    state = ChoiceState()
    (first,) = mend(state, delta={"content": "a"})
    assert first["delta"] == {"content": "a", "role": "assistant"}
    (second,) = mend(state, delta={"role": "assistant", "content": "b"})
    assert second["delta"] == {"content": "b"}


def test_a_role_of_the_upstreams_own_stays() -> None:
    (first,) = mend(ChoiceState(), delta={"role": "critic", "content": "a"})
    assert first["delta"]["role"] == "critic"


def test_an_empty_finish_reason_is_none() -> None:
    (one,) = mend(ChoiceState(), delta={"content": "a"}, finish_reason="")
    assert one["finish_reason"] is None


def test_behind_its_finish_a_choice_says_nothing() -> None:
    state = ChoiceState()
    state.finish = "stop"
    assert mend(state, delta={"content": "more"}) == []


def test_thought_and_text_are_two_chunks_and_the_end_is_in_the_second() -> None:
    before, after = mend(
        ChoiceState(),
        delta={"role": "assistant", "content": "text", "reasoning_content": "thought", "x": 1},
        finish_reason="stop",
        logprobs={"content": []},
    )
    assert before["delta"] == {"role": "assistant", "reasoning_content": "thought"}
    assert before["finish_reason"] is None
    assert "logprobs" not in before
    assert after["delta"] == {"content": "text", "x": 1}
    assert (after["finish_reason"], after["logprobs"]) == ("stop", {"content": []})


def test_a_last_message_adds_only_what_was_not_streamed() -> None:
    state = ChoiceState()
    mend(state, delta={"content": "all"})
    state.text = True
    message = {"role": "assistant", "content": "all", "refusal": "no"}
    (last,) = mend(state, message=message, finish_reason="stop")
    assert last["delta"] == {"refusal": "no"}
    assert "message" not in last


def test_a_stream_of_messages_is_one_of_deltas() -> None:
    state = ChoiceState()
    (first,) = mend(state, message={"content": "a"})
    state.text = True
    (second,) = mend(state, message={"content": "b"}, finish_reason="stop")
    assert (first["delta"]["content"], second["delta"]["content"]) == ("a", "b")


# ── tool calls ──


def pieces(*calls: dict[str, Any], known: ToolCalls | None = None) -> list[dict[str, Any]]:
    """What pieces of tool calls become, each chunk one piece."""
    seen = known or ToolCalls()
    out = []
    for call in calls:
        typed, raw = choice(delta={"tool_calls": [call]})
        assert typed.delta is not None
        assert typed.delta.tool_calls is not None
        fields = objects(fields_of(raw["delta"])["tool_calls"])
        (one,) = seen.mend(typed.delta.tool_calls, fields, b"seed")
        out.append(json.loads(b"".join(_object(one))))
    return out


def call(arguments: str | None = "", name: str | None = None, **fields: Any) -> dict[str, Any]:
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
    return {**fields, "function": function}


def test_calls_without_an_index_are_told_apart_by_their_ids() -> None:
    out = pieces(call("{", "f", id="a"), call("}", id="a"), call("{", "g", id="b"), call("}"))
    assert [one["index"] for one in out] == [0, 0, 1, 1]
    assert [one.get("id") for one in out] == ["a", None, "b", None]


def test_two_calls_that_share_an_index_are_two() -> None:
    out = pieces(call("{}", "f", index=0, id="a"), call("{}", "g", index=0, id="b"))
    assert [(one["index"], one["id"]) for one in out] == [(0, "a"), (1, "b")]


def test_an_id_that_changes_with_each_piece_makes_no_new_call() -> None:
    out = pieces(call("{", "f", index=0, id="a"), call("}", index=0, id="b"))
    assert [one["index"] for one in out] == [0, 0]
    assert "id" not in out[1]


def test_id_type_and_name_are_said_once() -> None:
    first, second = pieces(
        call("{", "f", index=0, id="a", type="function"), call("}", "f", index=0, id="a", type="function")
    )
    assert (first["id"], first["type"], first["function"]["name"]) == ("a", "function", "f")
    assert second == {"index": 0, "function": {"arguments": "}"}}


def test_indices_with_a_gap_are_numbered_from_0() -> None:
    out = pieces(call("", "f", index=3, id="a"), call("", "g", index=9, id="b"), call("{}", index=3))
    assert [one["index"] for one in out] == [0, 1, 0]


def test_arguments_that_lack_are_the_empty_text_and_unknown_fields_stay() -> None:
    (one,) = pieces(call(None, "f", index=0, id="a", extra={"x": 1}))
    assert one["function"] == {"name": "f", "arguments": ""}
    assert one["extra"] == {"x": 1}


def test_a_made_id_is_the_same_for_the_same_bytes_and_differs_otherwise() -> None:
    assert made_id(b"a", 0) == made_id(b"a", 0)
    assert len({made_id(b"a", 0), made_id(b"a", 1), made_id(b"b", 0)}) == 3
    (one,) = pieces(call("{}", "f", index=0))
    assert one["id"] == made_id(b"seed", 0)
