"""What a candidate says, part by part, and how it ends."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from server.deltas import Finished, TextDelta
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
    assert choice["delta"] == {"images": [{"index": 0, "type": "image_url", "image_url": {"url": url}}]}


def test_parts_that_nobody_knows_are_counted_and_told_as_they_came() -> None:
    odd, file = {"smell": "roses"}, {"fileData": {"mimeType": "text/csv", "fileUri": "https://e.com/f"}}
    reader = GeminiReader("a")
    reader.feed(event(said(odd, {"text": ""}, {"thoughtSignature": "s"}, {"text": "a"})))
    assert reader.skipped == 1
    told = read(event(said(odd, file, {"text": "a"}, finish="STOP")))
    assert [choice["delta"] for choice in originals_of(told)] == [
        {"native_parts": [{"index": 0, **odd}]},
        {"native_parts": [{"index": 1, **file}]},
    ]


def test_a_part_that_cannot_be_read_is_no_answer() -> None:
    with pytest.raises(UpstreamInvalid):
        read(event(said({"text": 7}, finish="STOP")))


def test_a_program_and_what_became_of_it_stand_in_the_text_as_code() -> None:
    code = {"executableCode": {"language": "PYTHON", "code": "print(1)\n"}, "thoughtSignature": "s"}
    fine = {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "1\n```\nx\n"}}
    late = {"codeExecutionResult": {"outcome": "OUTCOME_DEADLINE_EXCEEDED", "output": ""}}
    deltas = read(event(said(code, fine, {"text": "So."}, late, finish="STOP")))
    text = "".join(delta.text for delta in deltas if isinstance(delta, TextDelta))
    assert text == (
        "```python\nprint(1)\n```\n\n````output\n1\n```\nx\n````\nSo.\n```output (deadline_exceeded)\n\n```\n"
    )
    assert finish_of(read(event(said(code, finish="STOP")))) == ["stop"], "it says something"


def test_sounds_and_files_have_fields_of_their_own() -> None:
    pieces = [base64.b64encode(data).decode() for data in (b"abcd", b"ef", b"gh")]
    sounds = [{"inlineData": {"mimeType": "audio/L16;rate=24000", "data": piece}} for piece in pieces]
    file = {"inlineData": {"mimeType": "text/csv", "data": "YQ=="}}
    link = {"fileData": {"mimeType": "image/png", "fileUri": "https://e.com/a.png"}}
    told = [
        choice["delta"]
        for choice in originals_of(read(event(said(*sounds)), event(said(file, link, finish="STOP"))))
    ]
    head = {"id": "audio_a1_0", "format": "audio/L16;rate=24000", "expires_at": 0, "transcript": ""}
    assert {**told[0]["audio"], "data": ""} == {**head, "data": ""}
    joined = "".join(one["audio"]["data"] for one in told if "audio" in one)
    assert base64.b64decode(joined) == b"abcdefgh"
    uri = {"file_data": "data:text/csv;base64,YQ=="}
    assert {"files": [{"index": 0, "type": "file", "file": uri}]} in told
    seen = {"index": 0, "type": "image_url", "image_url": {"url": "https://e.com/a.png"}}
    assert {"images": [seen]} in told
    broken = {"inlineData": {"mimeType": "audio/wav", "data": "A"}}
    (kept,) = originals_of(read(event(said(broken, finish="STOP"))))
    assert kept["delta"]["audio"]["data"] == "A"


def test_what_the_service_tells_beside_the_answer_comes_at_the_end_as_it_was_last() -> None:
    early = {"groundingMetadata": {"webSearchQueries": ["a"]}, "safetyRatings": []}
    first = event(said({"text": "Pari"}, beside=early))
    web = {"web": {"uri": "https://e.com", "title": "E"}}
    grounding = {
        "groundingChunks": [web],
        "groundingSupports": [{"segment": {"endIndex": 9, "text": "Paris"}, "groundingChunkIndices": [0]}],
    }
    late = {"groundingMetadata": grounding, "avgLogprobs": 1.5}
    deltas = read(first, event(said({"text": "s"}, beside=late, finish="STOP")))
    (choice,) = originals_of(deltas)
    assert choice["delta"] == {
        "annotations": [
            {
                "index": 0,
                "type": "url_citation",
                "url_citation": {"url": "https://e.com", "title": "E", "start_index": 0, "end_index": 5},
            }
        ],
        "native_metadata": {"groundingMetadata": grounding, "avgLogprobs": 1.5},
    }
