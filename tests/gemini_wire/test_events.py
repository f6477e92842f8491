"""What is read of an answer's JSON."""

from __future__ import annotations

import msgspec
import pytest

from server.gemini_wire.events import decode_candidate, decode_list, decode_part, decode_said


def test_names_are_read_as_the_service_writes_them() -> None:
    said = decode_said(
        b'{"candidates": [{"content": {"parts": [{"text": "a", "thought": true, "thoughtSignature": "s"}]},'
        b'"finishReason": "STOP", "safetyRatings": []}], "promptFeedback": {"blockReason": "SAFETY"},'
        b'"usageMetadata": {"promptTokenCount": 1}, "responseId": "r"}'
    )
    assert said.candidates is not None
    (raw,) = said.candidates
    candidate = decode_candidate(raw)
    assert candidate.content is not None
    assert candidate.content.parts is not None
    (part,) = map(decode_part, candidate.content.parts)
    assert (part.text, part.thought, part.thought_signature, candidate.finish_reason) == (
        "a",
        True,
        "s",
        "STOP",
    )
    assert said.prompt_feedback is not None
    assert said.prompt_feedback.block_reason == "SAFETY"
    assert bytes(said.usage_metadata) == b'{"promptTokenCount": 1}'


def test_nulls_and_absence_are_alike() -> None:
    assert decode_said(b'{"candidates": null, "error": null}') == decode_said(b"{}")
    assert decode_list(b'[{"candidates": [{"content": {}, "finishReason": null}]}]')[0].candidates


@pytest.mark.parametrize("data", [b'{"candidates": {}}', b"[]"])
def test_other_shapes_are_refused(data: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode_said(data)


def test_other_shapes_within_a_candidate_are_refused() -> None:
    for data in (b'{"index": "0"}', b'{"content": {"parts": {}}}'):
        with pytest.raises(msgspec.DecodeError):
            decode_candidate(data)
    with pytest.raises(msgspec.DecodeError):
        decode_part(b'{"text": 7}')
