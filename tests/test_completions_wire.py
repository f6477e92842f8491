"""Text completions: what is asked in chats' terms, and deltas as completions, streamed and whole."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.completions_wire import CompletionCollector, CompletionEncoder, parse_completion
from server.deltas import Delta, Finished, Opening, ReasoningDelta, TextDelta, Usage, UsageDelta
from server.errors import InvalidRequest, UpstreamCut

IDENTITY: dict[str, Any] = {"model": "m", "id": "cmpl-1", "created": 5}


def asked(**fields: object) -> bytes:
    return json.dumps({"model": "m", "prompt": "hi", **fields}).encode()


def events(data: bytes) -> list[Any]:
    *said, done, end = data.split(b"\n\n")
    assert (done, end) == (b"data: [DONE]", b"")
    return [json.loads(event.removeprefix(b"data: ")) for event in said]


def test_a_prompt_is_one_user_turn_and_all_other_bytes_are_the_clients() -> None:
    body = b'{"model": "m", "prompt": "a\\u00e9", "seed": 12345678901234567890, "echo": false, "top_p": 1.0}'
    prompt = parse_completion(body)
    assert [turn.text for turn in prompt.chat.messages] == ["aé"]
    assert b'"seed": 12345678901234567890' in prompt.chat.body
    assert b'"top_p": 1.0' in prompt.chat.body
    assert b"echo" not in prompt.chat.body
    assert prompt.echo == ""
    assert parse_completion(asked(echo=True, best_of=2, n=2)).echo == "hi"


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        (b"{", None, "invalid_json"),
        (b"[]", None, "invalid_type"),
        (b'{"prompt": "a"}', "model", "missing_required_parameter"),
        (b'{"model": "m"}', "prompt", "missing_required_parameter"),
        (b'{"model": "m", "prompt": 1}', "prompt", "invalid_type"),
        (b'{"model": "m", "prompt": "a", "prompt": "b"}', "prompt", "duplicate_key"),
        (asked(temperature="hot"), "temperature", "invalid_type"),
        (asked(n=0), "n", "invalid_value"),
        (asked(prompt=[]), "prompt", "unsupported_parameter"),
        (asked(prompt=[[1, 2]]), "prompt", "unsupported_parameter"),
    ],
)
def test_a_fault_names_its_field(body: bytes, param: str | None, code: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse_completion(body)
    assert (refused.value.param, refused.value.code) == (param, code)


@given(st.lists(st.tuples(st.text(), st.integers(0, 1))), st.text())
def test_a_stream_and_a_body_say_the_same(pieces: list[tuple[str, int]], echo: str) -> None:
    deltas: list[Delta] = [Opening(), ReasoningDelta("hm")]
    deltas += [TextDelta(text, index) for text, index in pieces]
    deltas += [Finished("stop", 0), Finished("length", 1), UsageDelta(Usage(1, 2, 3))]
    encoder = CompletionEncoder(**IDENTITY, echo=echo, include_usage=True)
    said = events(encoder.encode(deltas) + encoder.finish(None))
    collector = CompletionCollector(**IDENTITY, echo=echo)
    collector.add(deltas)
    whole = json.loads(collector.encode())
    for choice in whole["choices"]:
        mine = [one for event in said for one in event["choices"] if one["index"] == choice["index"]]
        assert "".join(one["text"] for one in mine) == choice["text"]
        assert [one["finish_reason"] for one in mine if one["finish_reason"]] == [choice["finish_reason"]]
    assert said[-1]["usage"] == whole["usage"]
    assert all(event["usage"] is None for event in said[:-1])


def test_without_a_wish_there_is_no_usage_and_a_failure_has_no_done() -> None:
    encoder = CompletionEncoder(**IDENTITY)
    sent = encoder.encode([TextDelta("a"), Finished("stop"), UsageDelta(Usage(1, 1, 2))])
    assert b"usage" not in sent + encoder.finish(None)
    assert b"DONE" not in encoder.fail(UpstreamCut("cut"))
    assert json.loads(encoder.fail(UpstreamCut("cut"))[6:])["error"]["code"] == "upstream_cut"
