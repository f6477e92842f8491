"""What a scripted answer says, as a completion and as chunks: both are made from the same pieces."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import msgspec
import orjson

from server.simulators.asked import Asked
from server.simulators.script import Script, ToolCall, words

CREATED = 1_700_000_000
"""When every answer was made: one answer for one input."""

ECHOED_CHARACTERS = 4_000
"""So much of a user message is echoed, not ten megabytes of it."""

SOUND = ("UklGRiQA", "AABXQVZF")
"""A sound in base64, in two pieces."""

_BIG = {
    "x_big": orjson.Fragment(b"123456789012345678901234567890"),
    "x_negative": orjson.Fragment(b"-98765432109876543210"),
    "x_exact": orjson.Fragment(b"1.10"),
    "x_exponent": orjson.Fragment(b"1E+2"),
}


class Said(msgspec.Struct, frozen=True):
    """The pieces of one answer; each choice says the same."""

    id: str
    model: str
    n: int
    reasoning: tuple[str, ...]
    text: tuple[str, ...]
    refusal: tuple[str, ...]
    tools: tuple[ToolCall, ...]
    finish: str
    logprobs: bool
    prompt_tokens: int
    completion_tokens: int


class Chunk(NamedTuple):
    """One event of a stream. Only what ``counts`` is a chunk in the sense of a script."""

    data: dict[str, Any]
    counts: bool


def say(script: Script, asked: Asked, number: int) -> Said:
    """The pieces that ``script`` says to the ``number``-th request."""
    text: tuple[str, ...] = ()
    if script.pieces is not None:
        text = script.pieces
    elif script.huge_bytes:
        text = ("x" * script.huge_bytes,)
    elif script.text is not None:
        text = _by_words(script.text) if script.chunks is None else _slices(script.text, script.chunks)
    elif script.chunks is not None:
        text = words(script.chunks)
    elif not (script.tools or script.refusal or script.spoken or script.images or script.function_call):
        text = _by_words(f"You said: {asked.last_user[:ECHOED_CHARACTERS]}")
    refusal = () if script.refusal is None else _by_words(script.refusal)
    n = asked.n if script.n is None else script.n
    tools = tuple(
        call if call.id is not None else msgspec.structs.replace(call, id=f"call_sim_{place}")
        for place, call in enumerate(script.tools, 1)
    )
    calls = sum(1 for _ in _tool_deltas(script, tools))
    return Said(
        id=f"chatcmpl-sim{number}",
        model=asked.model if script.answer_model is None else script.answer_model,
        n=n,
        reasoning=script.reasoning,
        text=text,
        refusal=refusal,
        tools=tools,
        finish=script.finish or _finish_of(script),
        logprobs=asked.logprobs if script.logprobs is None else script.logprobs,
        prompt_tokens=asked.prompt_tokens,
        completion_tokens=(len(script.reasoning) + len(text) + len(refusal) + calls) * n,
    )


def _finish_of(script: Script) -> str:
    if script.function_call is not None:
        return "function_call"
    return "tool_calls" if script.tools else "stop"


def usage_of(script: Script, said: Said) -> dict[str, Any]:
    """The usage, with every detail object."""
    zero = script.usage == "zero"
    prompt, completion = (0, 0) if zero else (said.prompt_tokens, said.completion_tokens)
    usage: dict[str, Any] = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0 if zero else len(said.reasoning) * said.n},
    }
    return {**usage, "x_usage": {"cost": 0.25}} if script.extras else usage


def completion(script: Script, said: Said) -> bytes:
    """The plain answer."""
    usage = usage_of(script, said)
    choices = []
    for index in range(said.n):
        choice: dict[str, Any] = {"index": index, "message": message_of(script, said)}
        choice["logprobs"] = _logprobs(said.text) if said.logprobs else None
        if script.finish_form != "missing":
            choice["finish_reason"] = said.finish
        if script.usage == "in_choices":
            choice["usage"] = usage
        choices.append({**choice, "x_choice": [None]} if script.extras else choice)
    whole = {**_envelope(script, said, "chat.completion", 0), "choices": choices}
    if script.usage not in ("never", "in_choices"):
        whole["usage"] = usage
    return orjson.dumps(whole)


def message_of(script: Script, said: Said) -> dict[str, Any]:
    """The assistant's message, whole."""
    content = "".join(said.text) if said.text or not (said.tools or said.refusal) else None
    message: dict[str, Any] = {"role": "assistant", "content": content}
    message["refusal"] = "".join(said.refusal) if said.refusal else None
    if said.reasoning:
        message[script.reasoning_field] = "".join(said.reasoning)
    if said.tools:
        calls = [_tool(call, call.arguments) for call in said.tools]
        message["tool_calls"] = calls[0] if script.tool_form == "object" else calls
    if script.extras:
        message |= {"annotations": [], "x_message": {"deep": [{}]}}
    return message | _beside(script)


def _beside(script: Script) -> dict[str, Any]:
    """What a message holds beside words, whole."""
    made: dict[str, Any] = {}
    if script.annotations:
        made["annotations"] = list(script.annotations)
    if script.images:
        made["images"] = [{"type": "image_url", "image_url": {"url": url}} for url in script.images]
    if script.spoken is not None:
        sound = {"id": "audio_sim", "data": SOUND[0] + SOUND[1], "expires_at": CREATED + 3600}
        made["audio"] = {**sound, "transcript": script.spoken}
    if (call := script.function_call) is not None:
        made["function_call"] = {"name": call.name, "arguments": call.arguments}
    return made


def _beside_deltas(script: Script) -> Iterator[dict[str, Any]]:
    """The same, piece by piece."""
    if script.annotations:
        yield {"annotations": list(script.annotations)}
    for at, url in enumerate(script.images):
        yield {"images": [{"index": at, "type": "image_url", "image_url": {"url": url}}]}
    if script.spoken is not None:
        yield {"audio": {"id": "audio_sim"}}
        yield from ({"audio": {"transcript": piece}} for piece in _by_words(script.spoken))
        yield from ({"audio": {"data": piece}} for piece in SOUND)
        yield {"audio": {"expires_at": CREATED + 3600}}
    if (call := script.function_call) is not None:
        yield {"function_call": {"name": call.name, "arguments": ""}}
        pieces = _slices(call.arguments, script.tool_pieces)
        yield from ({"function_call": {"arguments": piece}} for piece in pieces)


def chunks(script: Script, asked: Asked, said: Said) -> Iterator[Chunk]:
    """The events of the stream, in order, without ``[DONE]``."""
    wire = _Chunks(script, asked, said)
    if script.filter_first:
        results = {
            "prompt_index": 0,
            "content_filter_results": {"hate": {"filtered": False, "severity": "safe"}},
        }
        yield Chunk(
            {**wire.envelope(), "model": "", "choices": [], "prompt_filter_results": [results]}, False
        )
    if script.role == "first":
        for index in range(said.n):
            yield wire.event(index, {"role": "assistant", "content": "", "refusal": None}, counts=False)
    deltas = list(_deltas(script, said))
    for place, delta in enumerate(deltas, 1):
        last = place == len(deltas) and script.finish_form == "last"
        for index in range(said.n):
            role = {"role": "assistant"} if script.role == "every" else {}
            yield wire.event(index, {**role, **delta}, counts=True, finish=last)
    if script.finish_form == "own" or (script.finish_form == "last" and not deltas):
        for index in range(said.n):
            yield wire.event(index, {}, counts=False, finish=True)
    if script.usage in ("always", "zero") or (script.usage == "asked" and asked.include_usage):
        yield Chunk({**wire.envelope(), "choices": [], "usage": usage_of(script, said)}, False)


class _Chunks:
    """Makes one stream's events."""

    def __init__(self, script: Script, asked: Asked, said: Said) -> None:
        self._script, self._said = script, said
        self._usage_null = asked.include_usage and script.usage == "asked"
        self._number = 0
        self._spoken = 0

    def envelope(self) -> dict[str, Any]:
        self._number += 1
        return _envelope(self._script, self._said, "chat.completion.chunk", self._number)

    def event(self, index: int, delta: dict[str, Any], *, counts: bool, finish: bool = False) -> Chunk:
        script, said = self._script, self._said
        choice: dict[str, Any] = {
            "index": index,
            "delta": {**delta, "x_delta": "é"} if script.extras else delta,
        }
        if said.logprobs:
            choice["logprobs"] = _logprobs((delta["content"],)) if delta.get("content") else None
        if finish:
            choice["finish_reason"] = said.finish
        elif script.no_finish != "absent":
            choice["finish_reason"] = None if script.no_finish == "null" else ""
        if finish and script.message_last:
            choice["message"] = message_of(script, said)
        if finish and script.usage == "in_choices":
            choice["usage"] = usage_of(script, said)
        if script.extras:
            choice["x_choice"] = [None]
        event = {**self.envelope(), "choices": [choice]}
        self._spoken += counts
        if script.usage == "every":
            tokens = said.completion_tokens if finish else self._spoken
            event["usage"] = usage_of(script, msgspec.structs.replace(said, completion_tokens=tokens))
        elif script.usage == "with_finish" and finish:
            event["usage"] = usage_of(script, said)
        elif self._usage_null:
            event["usage"] = None
        return Chunk(event, counts)


def _deltas(script: Script, said: Said) -> Iterator[dict[str, Any]]:
    """What every choice says, delta by delta."""
    field, both = script.reasoning_field, min(len(said.reasoning), len(said.text)) if script.mixed else 0
    for thought, piece in zip(said.reasoning[:both], said.text[:both], strict=True):
        yield {"content": piece, field: thought}
    for thought in said.reasoning[both:]:
        yield {field: thought}
    for piece in said.text[both:]:
        yield {"content": piece}
    for piece in said.refusal:
        yield {"refusal": piece}
    yield from _beside_deltas(script)
    yield from _tool_deltas(script, said.tools)


def _tool_deltas(script: Script, calls: tuple[ToolCall, ...]) -> Iterator[dict[str, Any]]:
    def delta(place: int, call: dict[str, Any]) -> dict[str, Any]:
        whole = {"index": place, **call} if script.tool_index else call
        return {"tool_calls": whole if script.tool_form == "object" else [whole]}

    if script.tool_form in ("whole", "object"):
        for place, call in enumerate(calls):
            yield delta(place, _tool(call, call.arguments))
        return
    streamed = [
        [delta(place, _tool(call, "")), *(delta(place, {"function": {"arguments": piece}})
                                          for piece in _slices(call.arguments, script.tool_pieces))]
        for place, call in enumerate(calls)
    ]  # fmt: skip
    if script.tool_form == "interleaved":
        for step in range(max(map(len, streamed), default=0)):
            yield from (call[step] for call in streamed if step < len(call))
    else:
        for call_deltas in streamed:
            yield from call_deltas


def _tool(call: ToolCall, arguments: str) -> dict[str, Any]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}}


def _envelope(script: Script, said: Said, kind: str, number: int) -> dict[str, Any]:
    envelope: dict[str, Any] = {}
    if script.ids != "absent":
        envelope["id"] = said.id if script.ids == "same" else f"{said.id}-{number}"
    envelope["object"] = kind
    if script.created:
        envelope["created"] = CREATED
    envelope |= script.found
    envelope |= {"model": said.model, "service_tier": "default", "system_fingerprint": "fp_sim"}
    if script.extras:
        envelope["x_sim"] = {"nested": [1, None, {"key": "\u2028"}]}
    return envelope | _BIG if script.big_integers else envelope


def _logprobs(pieces: tuple[str, ...]) -> dict[str, Any]:
    content = [
        {"token": piece, "logprob": -0.25, "bytes": list(piece.encode(errors="replace")), "top_logprobs": []}
        for piece in pieces
    ]
    return {"content": content, "refusal": None}


def _by_words(text: str) -> tuple[str, ...]:
    """The words, each with the blank before it. An empty text is one empty piece: it is said all the same."""
    first, *rest = text.split(" ")
    return (first, *(f" {word}" for word in rest))


def _slices(text: str, count: int) -> tuple[str, ...]:
    """``text`` in ``count`` pieces whose lengths differ by one at most; some are empty if it is short."""
    edges = [len(text) * place // count for place in range(count + 1)] if count else [0]
    return tuple(text[start:end] for start, end in pairwise(edges))
