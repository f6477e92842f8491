"""A request for an image → generateContent's, its answer in OpenAI's shape. Source: the vendor's guide."""

from __future__ import annotations

import re
from typing import Any

import msgspec
from msgspec import Raw

from server.chat import JsonObject
from server.errors import ContentFiltered, InvalidRequest, UpstreamEmpty, UpstreamInvalid
from server.foreign import NativeRequest, plain_key, shortened, unsupported
from server.gemini_wire.answer import usage_of
from server.gemini_wire.errors import Fault, fault_error
from server.gemini_wire.events import Feedback, Part

_KNOWN = frozenset(("model", "prompt", "n", "size", "response_format", "stream"))
_SIZE = re.compile(r"([1-9]\d{1,4})x([1-9]\d{1,4})")
_RATIOS = ("1:1", "2:3", "3:2", "3:4", "4:3", "4:5", "5:4", "9:16", "16:9", "21:9")
# So far a size may be from a ratio that is drawn: OpenAI's 1792x1024 is a little less than 16:9.
_NEAR = 0.03


class _Asked(msgspec.Struct):
    prompt: str = ""
    n: int | None = None
    size: str | None = None
    response_format: str | None = None
    stream: bool | None = None


class _Content(msgspec.Struct):
    parts: list[Part] | None = None


class _Candidate(msgspec.Struct, rename="camel"):
    content: _Content | None = None
    finish_reason: str | None = None


class _Answer(msgspec.Struct, rename="camel"):
    candidates: list[_Candidate] | None = None
    prompt_feedback: Feedback | None = None
    usage_metadata: Raw = Raw()
    error: Fault | None = None


def image_request(json: JsonObject) -> NativeRequest:
    """The request for one image. Raises ``InvalidRequest`` for what cannot be had."""
    try:
        asked = msgspec.json.decode(json.data, type=_Asked)
    except msgspec.ValidationError as error:
        words, _, place = str(error).partition(" - at `$.")
        raise InvalidRequest(f"{words}.", param=place.rstrip("`") or None, code="invalid_type") from error
    if not asked.prompt.strip():
        raise InvalidRequest(
            "prompt is missing; say what is to be seen.", param="prompt", code="missing_required_parameter"
        )
    if asked.n not in (None, 1):
        raise unsupported("n", "must be 1 for this model")
    if asked.stream:
        raise unsupported("stream", "cannot be had: the image of this model comes whole")
    if asked.response_format not in (None, "b64_json"):
        raise unsupported("response_format", "must be b64_json for this model")
    generation: dict[str, Any] = {"responseModalities": ["IMAGE"]}
    warnings = []
    if asked.size not in (None, "auto"):
        ratio = _ratio(asked.size or "")
        generation["imageConfig"] = {"aspectRatio": ratio}
        warnings.append(f"size was changed to the aspect ratio {ratio}")
    unknown = (key for key in json if key not in _KNOWN and json.raw(key) != b"null")
    warnings += [f"{plain_key(key)} was left out" for key in unknown]
    contents = [{"role": "user", "parts": [{"text": asked.prompt}]}]
    body = msgspec.json.encode({"contents": contents, "generationConfig": generation})
    return NativeRequest(body, shortened(warnings))


def _ratio(size: str) -> str:
    """The ratio that is nearest to a size in pixels."""
    if (match := _SIZE.fullmatch(size)) is not None:
        wanted = int(match[1]) / int(match[2])
        for ratio in _RATIOS:
            width, height = map(int, ratio.split(":"))
            if abs(wanted * height / width - 1) <= _NEAR:
                return ratio
    raise unsupported("size", f"must be auto or of one of the ratios {', '.join(_RATIOS)} for this model")


def read_image(body: bytes, created: int) -> bytes:
    """OpenAI's list of images; ``created`` is in Unix seconds.

    Raises what an error within the answer means, ``ContentFiltered`` for a prompt or image that was blocked,
    and ``UpstreamEmpty`` or ``UpstreamInvalid`` where there is no image.
    """
    try:
        said = msgspec.json.decode(body, type=_Answer)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UpstreamInvalid("The upstream's answer holds no image that can be read.") from error
    if said.error is not None:
        raise fault_error(said.error)
    images = _images(said)
    if not images:
        raise _missing(said)
    told: dict[str, Any] = {"created": created, "data": [{"b64_json": data} for data in images]}
    native = msgspec.json.decode(said.usage_metadata) if bytes(said.usage_metadata) else None
    if isinstance(native, dict):
        usage = usage_of(native)
        told["usage"] = {
            "input_tokens": usage.prompt_tokens,
            "output_tokens": usage.completion_tokens,
            "total_tokens": usage.total_tokens,
        }
    return msgspec.json.encode(told)


def _images(said: _Answer) -> list[str]:
    return [
        part.inline_data.data
        for candidate in said.candidates or ()
        for part in (candidate.content.parts if candidate.content is not None else None) or ()
        if part.inline_data is not None and part.inline_data.data and not part.thought
    ]


def _missing(said: _Answer) -> ContentFiltered | UpstreamEmpty:
    """Why there is no image: the service blocked it, or said something else, or nothing."""
    blocked = said.prompt_feedback is not None and bool(said.prompt_feedback.block_reason)
    reasons = {candidate.finish_reason for candidate in said.candidates or ()}
    if blocked or reasons - {None, "STOP", "MAX_TOKENS", "NO_IMAGE", "OTHER", "IMAGE_OTHER"}:
        return ContentFiltered("The upstream's moderation refused the image; change the prompt.")
    return UpstreamEmpty("The upstream answered without an image; ask a model that draws, or try again.")
