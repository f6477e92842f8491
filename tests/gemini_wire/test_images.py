"""Images in Gemini's words."""

from __future__ import annotations

import json
from typing import Any

import pytest

from server.chat import JsonObject
from server.errors import (
    ContentFiltered,
    InvalidRequest,
    RateLimited,
    ServerError,
    UpstreamEmpty,
    UpstreamInvalid,
)
from server.gemini_wire.images import image_request, read_image


def made(**fields: Any) -> tuple[Any, tuple[str, ...]]:
    request = image_request(JsonObject(json.dumps({"model": "m", "prompt": "a cat – 猫", **fields}).encode()))
    return json.loads(request.body), request.warnings


def test_the_least_that_is_sent() -> None:
    body, warnings = made(n=1, size="auto", response_format="b64_json", stream=False)
    assert body == {
        "contents": [{"role": "user", "parts": [{"text": "a cat – 猫"}]}],
        "generationConfig": {"responseModalities": ["IMAGE"]},
    }
    assert warnings == ()


@pytest.mark.parametrize(
    ("size", "ratio"),
    [
        ("1024x1024", "1:1"),
        ("1536x1024", "3:2"),
        ("1024x1536", "2:3"),
        ("1792x1024", "16:9"),
        ("1024x1792", "9:16"),
    ],
)
def test_a_size_is_the_nearest_ratio_and_that_is_told(size: str, ratio: str) -> None:
    body, warnings = made(size=size, quality="high")
    assert body["generationConfig"]["imageConfig"] == {"aspectRatio": ratio}
    assert warnings == (f"size was changed to the aspect ratio {ratio}", "quality was left out")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": " "}, "prompt"),
        ({"prompt": 3}, "prompt"),
        ({"n": 2}, "n"),
        ({"stream": True}, "stream"),
        ({"response_format": "url"}, "response_format"),
        ({"size": "10x1"}, "size"),
        ({"size": "large"}, "size"),
        ({"size": "0x0"}, "size"),
    ],
)
def test_what_cannot_be_had_is_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        made(**fields)
    assert raised.value.param == param


def answer(*parts: dict[str, Any], **fields: Any) -> bytes:
    candidate = {"content": {"role": "model", "parts": list(parts)}, "finishReason": "STOP"}
    return json.dumps({"candidates": [candidate | fields]}).encode()


def test_images_are_told_without_words_and_thoughts() -> None:
    image = {"inlineData": {"mimeType": "image/png", "data": "aGk="}}
    usage = {"promptTokenCount": 3, "candidatesTokenCount": 1290, "thoughtsTokenCount": 7}
    body = json.loads(answer({"text": "Here:"}, image, {**image, "thought": True})) | {"usageMetadata": usage}
    assert json.loads(read_image(json.dumps(body).encode(), 5)) == {
        "created": 5,
        "data": [{"b64_json": "aGk="}],
        "usage": {"input_tokens": 3, "output_tokens": 1297, "total_tokens": 1300},
    }
    assert "usage" not in json.loads(read_image(answer(image), 5))


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"<html>", UpstreamInvalid),
        (b"{}", UpstreamEmpty),
        (answer({"text": "no"}), UpstreamEmpty),
        (answer(finishReason="NO_IMAGE"), UpstreamEmpty),
        (answer(finishReason="IMAGE_SAFETY"), ContentFiltered),
        (b'{"promptFeedback": {"blockReason": "SAFETY"}}', ContentFiltered),
        (b'{"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "x"}}', RateLimited),
    ],
)
def test_without_an_image_there_is_a_reason(body: bytes, kind: type[ServerError]) -> None:
    with pytest.raises(kind):
        read_image(body, 1)
