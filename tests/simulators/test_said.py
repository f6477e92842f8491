"""What an answer says: the stream and the completion are made from the same pieces."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.simulators.asked import Asked
from server.simulators.said import chunks, completion, say
from server.simulators.script import Script, ToolCall

HELLO = Asked(
    model="m",
    stream=True,
    include_usage=False,
    n=1,
    logprobs=False,
    prompt_tokens=2,
    last_user="hello there",
    fields=frozenset(),
)
WITH_USAGE = Asked(**{**{f: getattr(HELLO, f) for f in HELLO.__struct_fields__}, "include_usage": True})


def streamed(script: Script, asked: Asked = HELLO) -> list[dict[str, Any]]:
    return [orjson.loads(orjson.dumps(data)) for data, _ in chunks(script, asked, say(script, asked, 1))]


def whole(script: Script, asked: Asked = HELLO) -> dict[str, Any]:
    read: dict[str, Any] = orjson.loads(completion(script, say(script, asked, 1)))
    return read


def choices(script: Script, asked: Asked = HELLO) -> list[dict[str, Any]]:
    return [choice for event in streamed(script, asked) for choice in event["choices"]]


def content(script: Script) -> str:
    return "".join(choice["delta"].get("content") or "" for choice in choices(script))


def test_an_answer_echoes_the_last_user_message() -> None:
    assert content(Script()) == "You said: hello there"
    assert whole(Script())["choices"][0]["message"]["content"] == "You said: hello there"


@given(st.text(max_size=40), st.integers(min_value=1, max_value=9) | st.none())
def test_a_text_is_said_whole_in_as_many_chunks_as_asked(text: str, count: int | None) -> None:
    script = Script(text=text, chunks=count)
    counted = [data for data, counts in chunks(script, HELLO, say(script, HELLO, 1)) if counts]
    assert "".join(chunk["choices"][0]["delta"]["content"] for chunk in counted) == text
    assert len(counted) == (len(text.split(" ")) if count is None else count)


def test_pieces_are_said_as_they_are() -> None:
    script = Script(pieces=("", "a", "\u2028", "é"))
    assert [c["delta"]["content"] for c in choices(script)[1:-1]] == ["", "a", "\u2028", "é"]


def test_a_stream_opens_with_the_role_and_closes_with_the_finish() -> None:
    first, *middle, last = choices(Script(text="a b"))
    assert first == {
        "index": 0,
        "delta": {"role": "assistant", "content": "", "refusal": None},
        "finish_reason": None,
    }
    assert middle == [{"index": 0, "delta": {"content": part}, "finish_reason": None} for part in ("a", " b")]
    assert last == {"index": 0, "delta": {}, "finish_reason": "stop"}


def test_the_role_comes_in_every_chunk_or_never() -> None:
    assert [c["delta"].get("role") for c in choices(Script(chunks=2, role="every"))] == [
        "assistant",
        "assistant",
        None,
    ]
    assert not any("role" in c["delta"] for c in choices(Script(chunks=2, role="never")))


def test_the_finish_reason_comes_as_the_script_says() -> None:
    assert [c["finish_reason"] for c in choices(Script(chunks=2, finish_form="last", finish="length"))] == [
        None,
        None,
        "length",
    ]
    assert not any(c["finish_reason"] for c in choices(Script(chunks=2, finish_form="missing")))
    assert "finish_reason" not in whole(Script(finish_form="missing"))["choices"][0]
    assert [c["finish_reason"] for c in choices(Script(chunks=1, no_finish="empty"))] == ["", "", "stop"]
    assert "finish_reason" not in choices(Script(chunks=1, no_finish="absent"))[0]


def test_an_answer_without_pieces_still_finishes() -> None:
    assert [c["finish_reason"] for c in choices(Script(pieces=(), finish_form="last"))] == [None, "stop"]
    assert whole(Script(pieces=()))["choices"][0]["message"]["content"] == ""


def test_usage_is_told_when_asked_for() -> None:
    assert not any("usage" in event for event in streamed(Script()))
    *before, last = streamed(Script(chunks=3), WITH_USAGE)
    assert all(event["usage"] is None for event in before)
    assert last["choices"] == []
    assert (last["usage"]["prompt_tokens"], last["usage"]["completion_tokens"]) == (2, 3)
    assert last["usage"] == whole(Script(chunks=3))["usage"]


def test_usage_is_told_in_other_ways() -> None:
    assert streamed(Script(usage="always"))[-1]["usage"]["total_tokens"] == 6
    assert streamed(Script(usage="zero"))[-1]["usage"]["total_tokens"] == 0
    assert [e["usage"]["completion_tokens"] for e in streamed(Script(chunks=2, usage="every"))] == [
        0,
        1,
        2,
        2,
    ]
    last = streamed(Script(chunks=2, usage="with_finish"))[-1]
    assert last["usage"]["completion_tokens"] == 2
    assert last["choices"][0]["finish_reason"] == "stop"
    assert streamed(Script(chunks=2, usage="in_choices"))[-1]["choices"][0]["usage"]["completion_tokens"] == 2
    assert whole(Script(chunks=2, usage="in_choices"))["choices"][0]["usage"]["completion_tokens"] == 2
    assert not any(event.get("usage") for event in streamed(Script(usage="never"), WITH_USAGE))
    assert "usage" not in whole(Script(usage="never"))


def test_ids_may_change_or_be_absent() -> None:
    assert {event["id"] for event in streamed(Script())} == {"chatcmpl-sim1"}
    changing = [event["id"] for event in streamed(Script(ids="changing"))]
    assert len(set(changing)) == len(changing)
    bare = streamed(Script(ids="absent", created=False))
    assert not any("id" in event or "created" in event for event in bare)


def test_reasoning_comes_before_the_text_or_mixed_with_it() -> None:
    script = Script(reasoning=("hm", " hm"), text="yes no", reasoning_field="reasoning")
    assert [c["delta"] for c in choices(script)[1:-1]] == [
        {"reasoning": "hm"},
        {"reasoning": " hm"},
        {"content": "yes"},
        {"content": " no"},
    ]
    assert whole(script)["choices"][0]["message"]["reasoning"] == "hm hm"
    mixed = Script(reasoning=("hm",), text="yes no", mixed=True)
    assert [c["delta"] for c in choices(mixed)[1:-1]] == [
        {"content": "yes", "reasoning_content": "hm"},
        {"content": " no"},
    ]


CALLS = (ToolCall("f", '{"a":1}'), ToolCall("g", '{"b":22}', "mine"))


def calls_of(script: Script) -> list[Any]:
    return [c["delta"]["tool_calls"] for c in choices(script) if "tool_calls" in c["delta"]]


@pytest.mark.parametrize("form", ["streamed", "interleaved"])
def test_tool_calls_are_streamed(form: Any) -> None:
    script = Script(tools=CALLS, tool_form=form)
    pieces = [piece for (piece,) in calls_of(script)]
    for index, (name, arguments, call_id) in enumerate(
        [("f", '{"a":1}', "call_sim_1"), ("g", '{"b":22}', "mine")]
    ):
        first, *rest = [piece for piece in pieces if piece["index"] == index]
        assert (first["id"], first["type"]) == (call_id, "function")
        assert first["function"] == {"name": name, "arguments": ""}
        assert all(set(piece) == {"index", "function"} for piece in rest)
        assert "".join(piece["function"]["arguments"] for piece in rest) == arguments
    order = [piece["index"] for piece in pieces]
    assert order == ([0, 0, 0, 0, 1, 1, 1, 1] if form == "streamed" else [0, 1, 0, 1, 0, 1, 0, 1])
    assert choices(script)[-1]["finish_reason"] == "tool_calls"
    message = whole(script)["choices"][0]["message"]
    assert message["content"] is None
    assert [call["function"]["arguments"] for call in message["tool_calls"]] == ['{"a":1}', '{"b":22}']


def test_tool_calls_come_whole_as_one_object_or_without_index() -> None:
    whole_call = {"id": "call_sim_1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
    assert calls_of(Script(tools=CALLS[:1], tool_form="whole")) == [[{"index": 0, **whole_call}]]
    assert calls_of(Script(tools=CALLS[:1], tool_form="object", tool_index=False)) == [whole_call]
    assert (
        whole(Script(tools=CALLS[:1], tool_form="object"))["choices"][0]["message"]["tool_calls"]
        == whole_call
    )


def test_a_refusal_is_said_instead_of_a_text() -> None:
    script = Script(refusal="No, sorry")
    assert "".join(c["delta"].get("refusal") or "" for c in choices(script)) == "No, sorry"
    message = whole(script)["choices"][0]["message"]
    assert (message["content"], message["refusal"]) == (None, "No, sorry")


def test_the_whole_message_may_be_repeated_at_the_end() -> None:
    last = choices(Script(text="a b", message_last=True))[-1]
    assert last["message"]["content"] == "a b"
    assert last["finish_reason"] == "stop"


def test_a_filter_result_may_come_first() -> None:
    first = streamed(Script(filter_first=True))[0]
    assert first["choices"] == []
    assert "usage" not in first
    assert first["prompt_filter_results"]


def test_several_choices_say_the_same() -> None:
    said = choices(Script(n=3, chunks=2))
    assert [c["index"] for c in said] == [0, 1, 2] * 4
    assert [c["finish_reason"] for c in said[-3:]] == ["stop"] * 3
    assert [c["index"] for c in whole(Script(n=3))["choices"]] == [0, 1, 2]
    assert whole(Script(n=3, chunks=2))["usage"]["completion_tokens"] == 6


def test_logprobs_come_with_the_text() -> None:
    said = choices(Script(pieces=("é",), logprobs=True))
    assert said[0]["logprobs"] is None
    assert said[1]["logprobs"]["content"][0]["bytes"] == [0xC3, 0xA9]
    assert whole(Script(pieces=("é",), logprobs=True))["choices"][0]["logprobs"]["content"][0]["token"] == "é"


def test_unknown_fields_come_at_every_level() -> None:
    event = streamed(Script(extras=True, usage="always"))[1]
    assert event["x_sim"]
    assert event["choices"][0]["x_choice"] == [None]
    assert event["choices"][0]["delta"]["x_delta"] == "é"
    assert streamed(Script(extras=True, usage="always"))[-1]["usage"]["x_usage"]
    plain = whole(Script(extras=True))
    assert plain["x_sim"]
    assert plain["choices"][0]["message"]["x_message"]


def test_big_integers_are_written_as_they_are() -> None:
    script = Script(big_integers=True)
    told = [orjson.dumps(data) for data, _ in chunks(script, HELLO, say(script, HELLO, 1))]
    for data in (*told, completion(script, say(script, HELLO, 1))):
        assert b'"x_big":123456789012345678901234567890' in data
        assert b'"x_exact":1.10' in data


def test_what_is_said_beside_words_is_the_same_whole_and_in_pieces() -> None:
    source = {"type": "url_citation", "url_citation": {"url": "https://e.com", "title": "E"}}
    script = Script(
        text="a",
        images=("data:image/png;base64,AA", "https://e.com/b.png"),
        spoken="one two",
        annotations=(source,),
        function_call=ToolCall(name="f", arguments='{"a": 1}'),
        found={"citations": ["https://e.com"]},
    )
    made = whole(script)
    message = made["choices"][0]["message"]
    deltas = [choice["delta"] for choice in choices(script)]
    joined: dict[str, str] = {}
    for delta in deltas:
        for key, value in (delta.get("audio") or delta.get("function_call") or {}).items():
            joined[key] = joined.get(key, "") + str(value)
    sound, call = message["audio"], message["function_call"]
    assert joined == {**{key: str(value) for key, value in sound.items()}, **call}
    assert (sound["transcript"], call) == ("one two", {"name": "f", "arguments": '{"a": 1}'})
    pictures = [one for delta in deltas for one in delta.get("images", ())]
    assert [one["image_url"] for one in pictures] == [one["image_url"] for one in message["images"]]
    assert (
        [one for delta in deltas for one in delta.get("annotations", ())]
        == message["annotations"]
        == [source]
    )
    assert made["choices"][0]["finish_reason"] == "function_call"
    assert made["citations"] == streamed(script)[0]["citations"] == ["https://e.com"]
    assert content(Script(spoken="x")) == "", "who speaks aloud echoes nothing"
