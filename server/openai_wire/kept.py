"""What of a chunk or completion clients of other dialects want, though no delta has a word for it.

Some must come back with the next request: signed thoughts (``thinking_blocks``, ``reasoning_details``), and
what a vendor puts beside a call or a text (``extra_content``, in which Gemini has its thought signature).
Clients of OpenAI's dialect see it where it stands; encoders of other dialects find a place of their own for
it, for the sources of a text, for pictures and what is said aloud. What has no place there is named, so that
it can be told.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
from msgspec import Raw

from server.deltas import ToolCallDelta
from server.foreign import MOST_WARNINGS, plain_key, shortened
from server.openai_wire.details import words_of
from server.openai_wire.mending import made_id

SEALED = "antiphon:"
"""Begins what ``sealed`` makes; base64 of JSON follows."""

# fmt: off
# What tells of the service and not of what the model says; verdicts of filters are in the finish reason.
_TOP = frozenset({
    "id", "object", "created", "model", "choices", "usage", "system_fingerprint", "service_tier",
    "obfuscation", "provider", "x_groq", "timings", "prompt_filter_results", "prompt_annotations",
    "base_resp", "request_id", "input_sensitive", "output_sensitive", "input_sensitive_type",
    "output_sensitive_type", "input_sensitive_int", "output_sensitive_int", "error", "prompt_logprobs",
    "prompt_token_ids", "kv_transfer_params", "metadata", "stats", "model_info", "runtime", "version",
    "domain", "code", "message", "sid",
})
_CHOICE = frozenset({
    "index", "delta", "message", "finish_reason", "usage", "native_finish_reason", "stop_sequence",
    "stop_reason", "matched_stop", "token_ids", "content_filter_results", "content_filter_offsets",
    "content_filter_result", "seed",
})
# The rest is read here, one way or another.
_SAID = frozenset({
    "role", "content", "reasoning_content", "reasoning", "refusal", "tool_calls", "name", "annotations",
    "images", "function_call", "thinking_blocks", "extra_content", "native_citations", "native_block",
    "native_metadata", "reasoning_details",
})
_METADATA = frozenset({"safetyRatings", "avgLogprobs", "tokenCount"})
# fmt: on
# Where vendors put what they have found, beside the answer itself.
_FOUND = ("search_results", "citations", "web_search", "references", "search_info")
_NO_VALUES: tuple[Any, ...] = (None, "", [], {}, False)
_BESIDE_CALLS = b'"extra_content"'


class _PlainSaid(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    role: Raw = Raw()
    content: Raw = Raw()
    reasoning_content: Raw = Raw()
    reasoning: Raw = Raw()
    refusal: Raw = Raw()
    tool_calls: Raw = Raw()
    function_call: None = None
    audio: None = None
    annotations: None = None


class _PlainChoice(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    index: Raw = Raw()
    delta: _PlainSaid | None = None
    finish_reason: Raw = Raw()
    content_filter_results: Raw = Raw()
    native_finish_reason: Raw = Raw()
    stop_reason: Raw = Raw()
    token_ids: None = None
    logprobs: None = None


class _PlainChunk(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A chunk in which every field is a delta's or tells nothing."""

    choices: list[_PlainChoice]
    id: Raw = Raw()
    object: Raw = Raw()
    created: Raw = Raw()
    model: Raw = Raw()
    usage: Raw = Raw()
    system_fingerprint: Raw = Raw()
    service_tier: Raw = Raw()
    obfuscation: Raw = Raw()
    provider: Raw = Raw()
    request_id: Raw = Raw()
    prompt_token_ids: None = None


_PLAIN = msgspec.json.Decoder(_PlainChunk)
_OBJECT = msgspec.json.Decoder(dict[str, Raw])
_LIST = msgspec.json.Decoder(list[dict[str, Any]])


class Kept(msgspec.Struct):
    """``blocks`` of thoughts as they came, ``extras`` by the position of their call, ``extra`` of the text.

    ``sources`` are annotations, in the form of chats, ``citations`` the same in Anthropic's own, if they came
    from there; ``begins``: this text is a block of its own. ``images`` are URLs, mostly data URIs;
    ``details`` are the next pieces of ``reasoning_details``, ``thought`` their words, where no field of
    thoughts has them; ``transcript`` is the next piece of what is said aloud. ``calls`` are of the legacy
    form. ``left`` names what other dialects have no place for.
    """

    blocks: list[dict[str, Any]] = []
    extras: dict[int, Any] = {}
    extra: Any = None
    sources: list[dict[str, Any]] = []
    citations: list[dict[str, Any]] = []
    begins: bool = False
    images: list[str] = []
    details: list[dict[str, Any]] = []
    thought: str = ""
    transcript: str = ""
    calls: list[ToolCallDelta] = []
    left: list[str] = []


_NOTHING = Kept()


class LeftOut:
    """What of an answer could not be told in the client's dialect, by name and once each."""

    def __init__(self) -> None:
        self._told: dict[str, None] = {}

    def note(self, names: Iterable[str], what: str = "was left out") -> None:
        """``names`` are fields of the answer; ``what`` became of them."""
        for name in names:
            if len(self._told) <= 2 * MOST_WARNINGS:
                self._told[f"{plain_key(name)} {what}"] = None

    @property
    def warnings(self) -> tuple[str, ...]:
        """In short ASCII words."""
        return shortened([*self._told])

    def beside(self, antiphon: bytes | None, **more: Any) -> bytes | None:
        """The ``antiphon`` field of the answer, with the warnings in it and what of ``more`` there is."""
        fields: dict[str, Any] = {} if antiphon is None else _OBJECT.decode(antiphon)
        if self._told:
            fields["warnings"] = self.warnings
        fields |= {key: value for key, value in more.items() if value}
        return msgspec.json.encode(fields) if fields else None


def kept_in(data: bytes) -> Kept | None:
    """What is to be kept of a chunk's or completion's JSON; None if there is nothing."""
    try:
        for choice in _PLAIN.decode(data).choices:
            if choice.delta is not None and _BESIDE_CALLS in bytes(choice.delta.tool_calls):
                break
        else:
            return None
        value = msgspec.json.decode(data)
    except msgspec.ValidationError:
        value = msgspec.json.decode(data)
    except msgspec.DecodeError:
        return None
    if not isinstance(value, dict) or not isinstance(value.get("choices"), list):
        return None
    kept = Kept()
    kept.left += _left(value, _TOP.union(_FOUND))
    kept.sources += _found(value)
    for choice in value["choices"]:
        if isinstance(choice, dict):
            _read_choice(choice, data, kept)
    return None if kept == _NOTHING else kept


def _read_choice(choice: dict[str, Any], seed: bytes, kept: Kept) -> None:
    kept.left += _left(choice, _CHOICE)
    said = choice.get("delta") or choice.get("message")
    if not isinstance(said, dict):
        return
    kept.left += _left(said, _SAID)
    kept.blocks += _own(said.get("thinking_blocks"))
    for at, call in enumerate(_objects(said.get("tool_calls"))):
        if call.get("extra_content"):
            kept.extras[call["index"] if isinstance(call.get("index"), int) else at] = call["extra_content"]
    kept.extra = said.get("extra_content") or kept.extra
    kept.sources += [
        source if isinstance(source.get("file_id"), str) else own
        for source, own in zip(_objects(said.get("annotations")), _own(said.get("annotations")), strict=True)
    ]
    kept.citations += _own(said.get("native_citations"))
    kept.begins |= said.get("native_block") is True
    kept.images += _images(said)
    if details := _objects(said.get("reasoning_details")):
        kept.details += details
        if not (said.get("reasoning") or said.get("reasoning_content")):
            kept.thought += words_of(details)
    if isinstance(audio := said.get("audio"), dict) and isinstance(audio.get("transcript"), str):
        kept.transcript += audio["transcript"]
    if isinstance(legacy := said.get("function_call"), dict):
        kept.calls.append(_legacy_call(legacy, seed))
    if isinstance(metadata := said.get("native_metadata"), dict):
        kept.left += [key for key in metadata if key not in _METADATA]


def _left(fields: dict[str, Any], known: frozenset[str]) -> list[str]:
    """The names of what says something and is not known."""
    return [key for key, value in fields.items() if key not in known and value not in _NO_VALUES]


def _objects(value: object) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _own(value: object) -> list[dict[str, Any]]:
    """The objects without their ``index``, which is for clients that join the pieces of a stream."""
    return [{key: value for key, value in one.items() if key != "index"} for one in _objects(value)]


def _images(said: dict[str, Any]) -> Iterator[str]:
    """Pictures, in ``images`` as most vendors have them."""
    for image in _objects(said.get("images")):
        inner = image.get("image_url")
        url = inner.get("url") if isinstance(inner, dict) else inner
        if isinstance(url, str) and url:
            yield url


def _legacy_call(call: dict[str, Any], seed: bytes) -> ToolCallDelta:
    name, arguments = call.get("name"), call.get("arguments")
    return ToolCallDelta(
        -1,  # beside the others, if there are any
        made_id(seed, 0) if name else None,
        name if isinstance(name, str) else None,
        arguments if isinstance(arguments, str) else "",
    )


def _found(value: dict[str, Any]) -> list[dict[str, Any]]:
    """What vendors that search tell of, beside the answer: addresses, or objects that have one."""
    for key in _FOUND:
        found = value.get(key)
        if isinstance(found, dict):
            found = found.get("search_results")
        if isinstance(found, list) and (sources := [*_sources(found)]):
            return sources
    return []


def _sources(found: list[Any]) -> Iterator[dict[str, Any]]:
    for one in found:
        url = one.get("url") or one.get("link") if isinstance(one, dict) else one
        if isinstance(url, str) and url:
            title = one.get("title") if isinstance(one, dict) else None
            yield {"type": "url_citation", "url_citation": {"url": url, "title": title or url}}


def sealed(things: list[dict[str, Any]]) -> str:
    """Things for nobody but us to read, as a text that a client gives back."""
    return SEALED + base64.b64encode(msgspec.json.encode(things)).decode()


def unsealed(text: str) -> list[dict[str, Any]] | None:
    """What ``sealed`` has made a text of; None for a text that it did not make. Raises ``ValueError``."""
    if not text.startswith(SEALED):
        return None
    try:
        return _LIST.decode(base64.b64decode(text[len(SEALED) :], validate=True))
    except (binascii.Error, msgspec.DecodeError):
        raise ValueError("it is not as it was given") from None
