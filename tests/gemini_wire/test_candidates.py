"""What a candidate says, part by part, and how it ends."""

from __future__ import annotations

from typing import Any

import pytest

from server.deltas import Finished
from server.errors import UpstreamInvalid
from server.gemini_wire import GeminiReader
from tests.gemini_wire.generated import calls_of, event, finish_of, originals_of, read, said


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("STOP", "stop"),
        ("MAX_TOKENS", "length"),
        ("SAFETY", "content_filter"),
        ("RECITATION", "content_filter"),
        ("BLOCKLIST", "content_filter"),
        ("PROHIBITED_CONTENT", "content_filter"),
        ("SPII", "content_filter"),
        ("IMAGE_SAFETY", "content_filter"),
        ("LANGUAGE", "stop"),
        ("OTHER", "stop"),
        ("BRAND_NEW", "stop"),
    ],
)
def test_each_finish_reason_has_our_word(theirs: str, ours: str) -> None:
    deltas = read(event(said({"text": "a"}, finish=theirs)))
    assert finish_of(deltas) == [ours]
    native = [choice["native_finish_reason"] for choice in originals_of(deltas, Finished)]
    assert native == ([] if theirs in ("STOP", "MAX_TOKENS") else [theirs])


def test_a_limit_within_calls_is_still_a_limit() -> None:
    call = {"functionCall": {"name": "f", "args": {}}}
    assert finish_of(read(event(said(call, finish="MAX_TOKENS")))) == ["length"]
    assert finish_of(read(event(said(call)), event(said(finish="STOP")))) == ["tool_calls"]


@pytest.mark.parametrize(
    "reason", ["MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "TOO_MANY_TOOL_CALLS", "MALFORMED_RESPONSE"]
)
def test_a_model_that_went_astray_is_no_answer(reason: str) -> None:
    with pytest.raises(UpstreamInvalid, match=reason):
        read(event(said(finish=reason)))
    reader = GeminiReader("a")
    assert reader.feed(event(said({"text": "so far"})) + event(said(finish=reason)))
    with pytest.raises(UpstreamInvalid):
        reader.eof()


@pytest.mark.parametrize("unsaid", ["", "FINISH_REASON_UNSPECIFIED"])
def test_a_reason_that_says_nothing_is_none(unsaid: str) -> None:
    deltas = read(event(said({"text": "a"}, finish=unsaid)), event(said({"text": "b"}, finish="STOP")))
    assert finish_of(deltas) == ["stop"]


def test_calls_come_whole_with_ids_of_ours_where_they_have_none() -> None:
    calls: list[dict[str, Any]] = [
        {"functionCall": {"name": "f", "args": {"n": 10**30}}},
        {"functionCall": {"name": "g", "args": None}},
    ]
    deltas = read(event(said(*calls, finish="STOP")))
    assert calls_of(deltas) == [("call_a1_0_0", "f", '{"n":1' + "0" * 30 + "}"), ("call_a1_0_1", "g", "{}")]


def token(text: str, probability: float) -> dict[str, Any]:
    return {"token": text, "tokenId": 7, "logProbability": probability}


def test_log_probabilities_are_told_as_openai_tells_them() -> None:
    told = {
        "chosenCandidates": [token("Hé", -0.5), token("!", -1.0)],
        "topCandidates": [{"candidates": [token("Hé", -0.5), token("Ho", -2.0)]}],
    }
    answer = said({"text": "Hé!"}, finish="STOP")
    answer["candidates"][0]["logprobsResult"] = told
    (choice,) = originals_of(read(event(answer)))
    first = {"token": "Hé", "logprob": -0.5, "bytes": [72, 195, 169]}
    other = {"token": "Ho", "logprob": -2.0, "bytes": [72, 111]}
    assert choice["logprobs"]["content"] == [
        first | {"top_logprobs": [first, other]},
        {"token": "!", "logprob": -1.0, "bytes": [33], "top_logprobs": []},
    ]
    answer["candidates"][0]["logprobsResult"] = {"topCandidates": [{}]}
    assert originals_of(read(event(answer))) == []


def test_two_calls_of_one_id_are_told_apart() -> None:
    calls = [{"functionCall": {"name": name, "id": "f"}} for name in ("f", "g")]
    assert calls_of(read(event(said(*calls, finish="STOP")))) == [
        ("f", "f", "{}"),
        ("call_a1_0_1", "g", "{}"),
    ]


@pytest.mark.parametrize("index", [-1, 128, 10**30])
def test_a_candidate_of_an_odd_number_is_no_answer(index: int) -> None:
    with pytest.raises(UpstreamInvalid):
        read(event(said({"text": "a"}, index=index, finish="STOP")))


def test_an_image_is_handed_on_as_a_data_uri() -> None:
    image = {"inlineData": {"mimeType": "image/png", "data": "iVBORw0KGgo="}}
    (choice,) = originals_of(read(event(said(image, finish="STOP"))))
    url = "data:image/png;base64,iVBORw0KGgo="
    assert choice["delta"] == {"images": [{"type": "image_url", "image_url": {"url": url}}]}


def test_parts_that_nobody_knows_are_passed_over_and_counted() -> None:
    reader = GeminiReader("a")
    reader.feed(
        event(said({"executableCode": {"code": "1"}}, {"smell": "roses"}, {"text": ""}, {"text": "a"}))
    )
    assert reader.skipped == 2
