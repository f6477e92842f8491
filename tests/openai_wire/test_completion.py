"""A whole answer: the upstream's own, or put together from the deltas of a stream."""

from __future__ import annotations

import json
from typing import Any

import pytest

from server.deltas import Usage
from server.openai_wire import Completion, decode_completion
from tests.openai_wire.wire_chunks import OPENING, USAGE, chunk, decoded

DONE = b"[DONE]"
WHOLE: dict[str, Any] = {
    "id": "c1",
    "object": "chat.completion",
    "created": 5,
    "model": "theirs",
    "choices": [
        {"index": 0, "message": {"role": "assistant", "content": "hi", "x": 1.0}, "finish_reason": "stop"}
    ],
    "usage": {**USAGE, "prompt_tokens_details": {"cached_tokens": 0}},
    "service_tier": "default",
    "y": 12345678901234567890123,
}


def body(**fields: Any) -> bytes:
    whole = {key: value for key, value in (WHOLE | fields).items() if value is not ...}
    return json.dumps(whole, separators=(",", ":")).encode()


def relayed(data: bytes, *, own_identity: bool = False, **more: Any) -> bytes:
    completion = Completion(model="ours", id="run", created=7, own_identity=own_identity)
    completion.add(decode_completion(data))
    return completion.encode(**more)


def collected(*data: bytes) -> dict[str, Any]:
    completion = Completion(model="ours", id="run", created=7)
    completion.add(decoded(*data))
    answer: dict[str, Any] = json.loads(completion.encode())
    return answer


def test_a_whole_answer_is_byte_for_byte_the_upstreams_but_for_the_name() -> None:
    assert relayed(body()) == body().replace(b'"theirs"', b'"ours"')


def test_an_answer_that_speaks_of_its_model_is_not_touched_elsewhere() -> None:
    said = [
        {"index": 0, "message": {"role": "assistant", "content": '"model":"theirs"'}, "finish_reason": "stop"}
    ]
    assert json.loads(relayed(body(choices=said)))["choices"] == said


@pytest.mark.parametrize("field", ["id", "object", "created", "model", "usage"])
def test_what_is_missing_is_filled_in_and_the_rest_kept(field: str) -> None:
    answer = json.loads(relayed(body(**{field: ...}), usage=Usage(1, 2, 3, estimated=True)))
    assert answer[field]
    assert answer["y"] == WHOLE["y"]
    assert answer["choices"] == WHOLE["choices"]


def test_a_missing_reason_is_stop_or_tool_calls() -> None:
    plain = [{"index": 0, "message": {"role": "assistant", "content": "x"}}]
    assert json.loads(relayed(body(choices=plain)))["choices"][0]["finish_reason"] == "stop"
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    calls = [{"index": 0, "message": {"role": "assistant", "content": None, "tool_calls": [call]}}]
    answer = json.loads(relayed(body(choices=calls)))
    assert answer["choices"][0]["finish_reason"] == "tool_calls"
    assert answer["choices"][0]["message"]["tool_calls"] == [call]


def test_a_combinations_answer_is_the_runs() -> None:
    answer = json.loads(relayed(body(), own_identity=True, antiphon=b'{"level":"lone"}'))
    assert (answer["id"], answer["created"]) == ("run", 7)
    assert answer["antiphon"] == {"level": "lone"}


def test_a_collected_stream_says_what_the_stream_said() -> None:
    call = {"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": "{"}}
    logprobs = {"content": [{"token": "x", "logprob": -1.0}]}
    answer = collected(
        OPENING,
        chunk({"reasoning_content": "hm"}),
        chunk(
            choices=[{"index": 0, "delta": {"content": "Hel"}, "finish_reason": None, "logprobs": logprobs}]
        ),
        chunk(
            choices=[{"index": 0, "delta": {"content": "lo"}, "finish_reason": None, "logprobs": logprobs}]
        ),
        chunk({"tool_calls": [call]}),
        chunk({"tool_calls": [{"index": 0, "function": {"arguments": "}"}}]}),
        chunk({"annotations": [1]}, service_tier="flex"),
        chunk({}, "tool_calls"),
        chunk(choices=[], usage=USAGE),
        DONE,
    )
    choice = answer["choices"][0]
    assert choice["message"]["content"] == "Hello"
    assert choice["message"]["reasoning_content"] == "hm"
    assert choice["message"]["annotations"] == [1]
    assert choice["message"]["tool_calls"] == [
        {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    ]
    assert choice["finish_reason"] == "tool_calls"
    assert len(choice["logprobs"]["content"]) == 2
    assert answer["usage"] == USAGE
    assert answer["service_tier"] == "flex"
    assert (answer["id"], answer["object"], answer["model"]) == ("c1", "chat.completion", "ours")


def test_several_choices_stay_apart() -> None:
    def piece(index: int, text: str, finish: str | None = None) -> dict[str, Any]:
        return {"index": index, "delta": {"role": "assistant", "content": text}, "finish_reason": finish}

    answer = collected(
        chunk(choices=[piece(0, "a"), piece(1, "b")]),
        chunk(choices=[piece(1, "d", "stop")]),
        chunk(choices=[piece(0, "c", "length")]),
        DONE,
    )
    assert [(one["index"], one["message"]["content"], one["finish_reason"]) for one in answer["choices"]] == [
        (0, "ac", "length"),
        (1, "bd", "stop"),
    ]
