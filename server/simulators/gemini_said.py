"""What a simulated Gemini says, whole, as the events of a stream, and as the array that a stream can be."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import msgspec
import orjson

from server.simulators.errors import Fault, named_fault
from server.simulators.said import Chunk, Said
from server.simulators.script import Script, ToolCall
from server.simulators.steps import EventForm

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
_REASONS = {"stop": "STOP", "tool_calls": "STOP", "length": "MAX_TOKENS", "content_filter": "SAFETY"}
_STATUS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ABORTED",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
_WORDS = {
    429: "You exceeded your current quota, please check your plan and billing details.",
    500: "An internal error has occurred. Please retry.",
    503: "The model is overloaded. Please try again later.",
}


class GeminiScript(Script, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One answer of Gemini: ``Script``, with CRLF and without ``[DONE]``, and some fields of its own."""

    done: int = 0
    line_end: Literal["lf", "crlf", "cr", "mixed"] = "crlf"
    error_after: int | None = None  # an error event after so many chunks; UNAVAILABLE unless told
    signature: str = "EjSim=="  # of the first call; "": none
    text_signature: str = ""  # in a part of its own at the end
    call_ids: bool = False  # newer models give calls an id
    block: str | None = None  # the prompt is blocked for this reason, with status 200
    finish_reason: str | None = None  # None: by ``finish``
    parts: tuple[dict[str, Any], ...] = ()  # further parts behind the text, as they are
    # Further fields of the candidate, where it ends.
    metadata: dict[str, Any] = msgspec.field(default_factory=dict)
    cached: int = 0  # tokens
    draws: bool = True  # where an image is asked for
    retry_delay: str | None = None  # of the RetryInfo in an error, such as "34s"
    error_reason: str | None = None  # of the ErrorInfo in it, such as API_KEY_INVALID


class ArrayForm(EventForm):
    """Writes a stream as the service does without ``alt=sse``: an array, an element at a time."""

    def __init__(self, script: Script) -> None:
        super().__init__(script)
        self._begun = False

    def event(self, data: bytes, name: str | None = None) -> bytes:
        before, self._begun = b",\r\n" if self._begun else b"[", True
        return before + data


def error_json(script: GeminiScript, fault: Fault) -> bytes:
    """The body of an error, and the data of an error event: a google.rpc.Status."""
    details: list[dict[str, Any]] = []
    if (reason := script.error_reason or fault.code) is not None:
        details.append({**_kind("ErrorInfo"), "reason": reason, "domain": "googleapis.com"})
    if fault.param is not None:
        violation = {"field": fault.param, "description": fault.message}
        details.append({**_kind("BadRequest"), "fieldViolations": [violation]})
    if script.retry_delay is not None:
        details.append({**_kind("RetryInfo"), "retryDelay": script.retry_delay})
    status = fault.type if fault.type.isupper() else _STATUS.get(fault.status, "UNKNOWN")
    error = {"code": fault.status, "message": fault.message, "status": status}
    return orjson.dumps({"error": error | ({"details": details} if details else {})})


def _kind(name: str) -> dict[str, Any]:
    return {"@type": f"type.googleapis.com/google.rpc.{name}"}


def scripted_fault(script: GeminiScript, default: int) -> Fault:
    """The fault that a script tells; within a 200 one of status ``default``."""
    return named_fault(script, default, _WORDS, _STATUS, otherwise="UNKNOWN")


class Wire:
    """One answer, whole or as events."""

    def __init__(self, script: GeminiScript, said: Said, number: int, *, drawn: bool = False) -> None:
        """``drawn``: there is an image, whole, behind the text."""
        self._script, self._said, self._number, self._drawn = script, said, number, drawn

    def whole(self) -> bytes:
        """The plain answer: neighbours of one kind are one part."""
        said = self._said
        parts: list[dict[str, Any]] = []
        if said.reasoning:
            parts.append({"text": "".join(said.reasoning), "thought": True})
        if said.text:
            parts.append({"text": "".join(said.text)})
        parts += self._script.parts
        if self._drawn:
            parts.append({"inlineData": {"mimeType": "image/png", "data": PIXEL}})
        parts += [*self._calls(), *self._last()]
        if self._script.block is not None:
            return orjson.dumps(self._blocked())
        return orjson.dumps(self._answer(parts, said.completion_tokens, end=True, words=said.text))

    def events(self) -> Iterator[Chunk]:
        """The stream, event by event. Usage is cumulative and in each of them."""
        script, said = self._script, self._said
        if script.block is not None:
            yield Chunk(self._blocked(), False)
            return
        told: list[list[dict[str, Any]]] = [
            *([{"text": piece, "thought": True}] for piece in said.reasoning),
            *([{"text": piece}] for piece in said.text),
        ]
        first = len(said.reasoning)
        told += [[part] for part in script.parts]
        if said.tools:
            told.append(list(self._calls()))
        for count, parts in enumerate(told, 1):
            last = count == len(told) and script.finish_form == "last"
            words = said.text[count - first - 1 : count - first] if count > first else ()
            yield Chunk(self._answer(parts, count, end=last, words=words), True)
        if script.finish_form == "own":
            parts = list(self._last()) or [{"text": ""}]
            yield Chunk(self._answer(parts, said.completion_tokens, end=True), False)

    def _calls(self) -> Iterator[dict[str, Any]]:
        for place, call in enumerate(self._said.tools, 1):
            part: dict[str, Any] = {"functionCall": self._call(call, place)}
            if place == 1 and self._script.signature:
                part["thoughtSignature"] = self._script.signature
            yield part

    def _call(self, call: ToolCall, place: int) -> dict[str, Any]:
        given = self._script.tools[place - 1].id
        id = given or (f"sim{self._number}{place}" if self._script.call_ids else None)
        return {"name": call.name, "args": orjson.Fragment(call.arguments)} | ({"id": id} if id else {})

    def _last(self) -> Iterator[dict[str, Any]]:
        if self._script.text_signature:
            yield {"text": "", "thoughtSignature": self._script.text_signature}

    def _answer(
        self, parts: list[dict[str, Any]], tokens: int, *, end: bool, words: tuple[str, ...] = ()
    ) -> dict[str, Any]:
        candidate: dict[str, Any] = {"content": {"parts": parts, "role": "model"}}
        if words and self._said.logprobs:
            candidate["logprobsResult"] = _probabilities(words)
        if end:
            candidate |= self._script.metadata
        if end and self._script.finish_form != "missing":
            candidate["finishReason"] = self._script.finish_reason or _REASONS.get(
                self._said.finish, self._said.finish
            )
        return {
            "candidates": [candidate | {"index": index} for index in range(self._said.n)],
            **self._envelope(tokens),
        }

    def _blocked(self) -> dict[str, Any]:
        return {"promptFeedback": {"blockReason": self._script.block}, **self._envelope(0)}

    def _envelope(self, tokens: int) -> dict[str, Any]:
        said, script = self._said, self._script
        thoughts = min(tokens, len(said.reasoning))
        usage = {"promptTokenCount": said.prompt_tokens + script.cached}
        if script.cached:
            usage["cachedContentTokenCount"] = script.cached
        if tokens > thoughts:
            usage["candidatesTokenCount"] = tokens - thoughts
        if thoughts:
            usage["thoughtsTokenCount"] = thoughts
        usage["totalTokenCount"] = usage["promptTokenCount"] + tokens
        return {
            "usageMetadata": usage,
            "modelVersion": said.model,
            "responseId": f"sim{self._number}",
        }


def _probabilities(words: tuple[str, ...]) -> dict[str, Any]:
    """Each word a token, as probable as any."""
    chosen = [{"token": word, "tokenId": len(word), "logProbability": -0.25} for word in words]
    return {"chosenCandidates": chosen, "topCandidates": [{"candidates": [token]} for token in chosen]}


def told_in_all(said: Said) -> Said:
    """What is said, its tokens counted as events: calls come in one."""
    count = len(said.reasoning) + len(said.text) + bool(said.tools)
    return msgspec.structs.replace(said, completion_tokens=count)


def spelled_models(names: tuple[str, ...]) -> bytes:
    """The list of models."""
    methods = ["generateContent", "countTokens"]
    fields: dict[str, Any] = {"version": "001", "inputTokenLimit": 1048576, "outputTokenLimit": 65536}
    listed = [{"name": f"models/{name}", **fields, "supportedGenerationMethods": methods} for name in names]
    return orjson.dumps({"models": listed})
