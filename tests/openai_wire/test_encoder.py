"""What a client gets: the upstream's own chunks under the public name, or chunks of ours."""

from __future__ import annotations

import json

import pytest

from server.deltas import (
    Batch,
    Delta,
    Extra,
    Finished,
    Opening,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
    Usage,
    UsageDelta,
)
from server.errors import ServerError
from server.openai_wire import ChunkEncoder, OwnEncoder, usage_json
from tests.openai_wire.wire_chunks import OPENING, USAGE, check_stream, chunk, decoded, relayed, text_of

DONE = b"[DONE]"
STOP = chunk({}, "stop")


def encoder(*, include_usage: bool = False, own_identity: bool = False) -> ChunkEncoder:
    return ChunkEncoder(
        model="ours", id="run", created=7, include_usage=include_usage, own_identity=own_identity
    )


def test_a_relayed_stream_is_byte_for_byte_the_upstreams_but_for_the_name() -> None:
    stream = [OPENING, chunk({"content": 'say "model":"theirs"', "x": {"model": "theirs"}}, y=1.0), STOP]
    sent = encoder().encode(decoded(*stream))
    assert sent == b"".join(
        b"data: " + one.replace(b'"model":"theirs"', b'"model":"ours"', 1) + b"\n\n" for one in stream
    )


def test_a_name_that_changes_and_ids_that_change_are_settled_by_the_first() -> None:
    chunks = relayed(OPENING, chunk({"content": "x"}, model="other", id="c2", created=9), STOP, DONE)
    assert chunks[1]["id"] == "c1"
    assert chunks[1]["created"] == 5


@pytest.mark.parametrize(
    "missing", [{"id": ...}, {"created": ...}, {"created": None}, {"object": ...}, {"model": ...}, {"id": ""}]
)
def test_what_an_upstream_left_out_of_the_head_is_filled_in(missing: dict[str, object]) -> None:
    stream = [chunk({"role": "assistant"}, **missing), chunk({"content": "x"}, **missing)]  # type: ignore[arg-type]
    assert text_of(relayed(*stream, chunk({}, "stop", **missing), DONE)) == "x"


def test_a_model_that_stands_behind_the_choices_is_replaced_too() -> None:
    body = b'{"choices":[{"index":0,"delta":{"role":"assistant","content":"x"},"finish_reason":"stop"}],'
    body += b'"x":{"model":"theirs"},"model":"theirs","id":"c1","created":5,"object":"chat.completion.chunk"}'
    (one,) = relayed(body)
    assert one["model"] == "ours"
    assert one["x"] == {"model": "theirs"}


def test_a_combinations_answer_is_the_runs() -> None:
    sent = encoder(own_identity=True).encode(decoded(OPENING, chunk({"content": "x"}), STOP))
    assert sent.count(b'"id":"run"') == 3
    assert sent.count(b'"created":7') == 3


def test_deltas_without_bytes_become_chunks_of_ours() -> None:
    batch: list[Delta] = [
        ReasoningDelta("hm"),
        TextDelta("a\u2028b"),
        RefusalDelta("no"),
        ToolCallDelta(0, "id", "f", ""),
        ToolCallDelta(0, arguments="{}"),
        TextDelta("c", index=1),
        Finished("tool_calls"),
        Finished("stop", index=1),
        UsageDelta(Usage(1, 2, 3)),
    ]
    one = encoder(include_usage=True)
    chunks = check_stream(one.encode(batch) + one.finish(None), model="ours", include_usage=True)
    assert text_of(chunks) == "a\u2028b"
    assert text_of(chunks, index=1) == "c"
    assert text_of(chunks, field="refusal") == "no"
    assert chunks[-1]["usage"] == {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}


def test_an_opening_without_bytes_brings_the_role_alone() -> None:
    sent = encoder().encode([Opening()])
    assert json.loads(sent[6:])["choices"][0]["delta"] == {"role": "assistant", "content": ""}


def test_usage_that_nobody_told_is_estimated_and_says_so() -> None:
    one = encoder(include_usage=True)
    one.encode(decoded(OPENING, chunk({"content": "x"}), STOP))
    assert b'"estimated":true' in one.finish(Usage(1, 2, 3, estimated=True))


def test_what_is_ours_to_tell_stands_in_the_usage_chunk_only() -> None:
    assert b"antiphon" not in encoder().finish(None, b'{"level":"none"}')
    assert b'"antiphon":{"level":"none"}' in encoder(include_usage=True).finish(None, b'{"level":"none"}')


def test_the_upstreams_usage_keeps_its_details() -> None:
    raw = json.dumps({**USAGE, "completion_tokens_details": {"reasoning_tokens": 1}}).encode()
    assert usage_json(Usage(3, 2, 5, raw=raw)) == raw


def test_a_field_of_ours_stands_beside_an_empty_delta() -> None:
    one = encoder(include_usage=True)
    sent = one.encode([Opening()]) + one.beside("antiphon", b'{"state":"done"}')
    opening, said = (json.loads(event[6:]) for event in sent.split(b"\n\n")[:-1])
    assert opening["choices"][0]["delta"]["role"] == "assistant"
    assert said["choices"] == [{"index": 0, "delta": {}, "finish_reason": None}]
    assert (said["antiphon"], said["usage"], said["id"]) == ({"state": "done"}, None, opening["id"])


def test_a_choice_that_was_begun_already_is_relayed_without_its_role() -> None:
    one = encoder(own_identity=True)
    one.encode([Opening()])
    first = chunk({"role": "assistant", "content": "", "odd": 1})
    sent = one.encode(decoded(first, chunk({"content": "x"}), STOP))
    deltas = [json.loads(event[6:])["choices"][0]["delta"] for event in sent.split(b"\n\n")[:-1]]
    assert deltas == [{"content": "", "odd": 1}, {"content": "x"}, {}]


# ── answers of ours, without a usage chunk ──

WARNED = b'{"members":[{"id":"m1","warnings":["seed was left out"]}]}'


def own() -> OwnEncoder:
    return OwnEncoder(model="panel", id="chatcmpl-run", created=5)


def test_warnings_stand_in_the_last_chunk_of_an_answer_of_ours() -> None:
    batches: list[Batch] = [
        [TextDelta("a"), TextDelta("b")],
        [Finished("stop")],
        [UsageDelta(Usage(1, 2, 3))],
    ]
    made = own()
    first = [made.encode(batch) for batch in batches]
    assert (first[0].count(b"data: "), first[1]) == (2, b"")
    out = b"".join(first) + made.finish(None, WARNED)
    *chunks, done = out.removesuffix(b"\n\n").split(b"\n\n")
    assert done == b"data: [DONE]"
    told = [json.loads(chunk.removeprefix(b"data: ")) for chunk in chunks]
    assert [one["choices"][0]["finish_reason"] for one in told] == [None, None, "stop"]
    assert [one.get("antiphon") for one in told] == [None, None, json.loads(WARNED)]


@pytest.mark.parametrize("antiphon", [None, b'{"members":[{"id":"\\"warnings\\":"}]}'])
def test_without_warnings_an_answer_of_ours_is_as_any_other(antiphon: bytes | None) -> None:
    plain = encoder(own_identity=True)
    made = OwnEncoder(model="public", id="chatcmpl-run", created=5)
    batches: list[Batch] = [
        [TextDelta("a"), Finished("stop"), Extra()],
        [TextDelta("b", 1), Finished("stop", 1)],
    ]
    expected = b"".join([plain.encode(batch) for batch in batches]) + plain.finish(None)
    said = b"".join([made.encode(batch) for batch in batches]) + made.finish(None, antiphon)
    assert normal(said) == normal(expected)


def normal(events: bytes) -> list[object]:
    """The events' JSON, without what names the stream."""
    made: list[object] = []
    for event in events.removesuffix(b"\n\n").split(b"\n\n"):
        data = event.removeprefix(b"data: ")
        made.append(data if data == b"[DONE]" else json.loads(data)["choices"])
    return made


def test_an_answer_of_ours_that_fails_at_its_end_has_had_its_last_chunk() -> None:
    made = own()
    assert made.encode([Finished("stop")]) == b""
    out = made.fail(ServerError("no"))
    assert out.index(b'"finish_reason":"stop"') < out.index(b'"error"')
    assert b"[DONE]" not in out
