"""What a simulated Ollama says: an object a line, or one object."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import orjson

from server.simulators.answers import vector
from server.simulators.said import Chunk, Said
from server.simulators.script import Script, ToolCall
from server.simulators.steps import EventForm

_CREATED = "2023-11-14T22:13:20.123456789Z"


class OllamaScript(Script, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One answer of Ollama: ``Script``, a line a chunk and without ``[DONE]``, and fields of its own.

    Of ``usage`` only ``never`` and ``zero`` count; ``images`` are base64 and no URLs.
    """

    done: int = 0
    done_reason: str | None = None  # None: stop, or length by ``finish``
    call_ids: bool = False  # newer servers give calls an id
    cannot: tuple[Literal["tools", "thinking", "levels"], ...] = ()  # refused as of a model that has it not
    context: int = 2048  # so many words of a text for an embedding are taken
    cached: bool = False  # a prompt that was seen before is not counted


class LineForm(EventForm):
    """Writes objects, one a line."""

    def event(self, data: bytes, name: str | None = None) -> bytes:
        return data + b"\n"

    def comment(self) -> bytes:
        return b"\n"


class Wire:
    """One answer."""

    def __init__(self, script: OllamaScript, said: Said) -> None:
        self._script, self._said = script, said

    def whole(self) -> bytes:
        """The answer as one object."""
        said = self._said
        message: dict[str, Any] = {"role": "assistant", "content": "".join(said.text)}
        if said.reasoning:
            message["thinking"] = "".join(said.reasoning)
        if said.tools:
            message["tool_calls"] = [self._call(at, call) for at, call in enumerate(said.tools)]
        if self._script.images:
            message["images"] = list(self._script.images)
        return orjson.dumps({**self._line(message), **self._ending()})

    def lines(self) -> Iterator[Chunk]:
        """The same in pieces; a call comes whole."""
        said = self._said
        for thought in said.reasoning:
            yield Chunk(self._line({"role": "assistant", "content": "", "thinking": thought}), True)
        for text in said.text:
            yield Chunk(self._line({"role": "assistant", "content": text}), True)
        for at, call in enumerate(said.tools):
            message = {"role": "assistant", "content": "", "tool_calls": [self._call(at, call)]}
            yield Chunk(self._line(message), True)
        for image in self._script.images:
            yield Chunk(self._line({"role": "assistant", "content": "", "images": [image]}), True)
        last = {**self._line({"role": "assistant", "content": ""}), **self._ending()}
        if self._script.finish_form != "missing":
            yield Chunk(last, False)

    def _line(self, message: dict[str, Any]) -> dict[str, Any]:
        line = {"model": self._said.model, "created_at": _CREATED, "message": message, "done": False}
        return {**line, "x_sim": [None]} if self._script.extras else line

    def _ending(self) -> dict[str, Any]:
        script, said = self._script, self._said
        reason = script.done_reason or ("length" if said.finish == "length" else "stop")
        ending: dict[str, Any] = {"done": True, "done_reason": reason}
        if script.usage == "never":
            return ending
        zero = script.usage == "zero"
        ending |= {"total_duration": 4_883_583_458, "load_duration": 1_334_875}
        if not script.cached:
            ending["prompt_eval_count"] = 0 if zero else said.prompt_tokens
        ending |= {
            "prompt_eval_duration": 342_546_000,
            "eval_count": 0 if zero else said.completion_tokens,
            "eval_duration": 4_535_599_000,
        }
        return ending

    def _call(self, at: int, call: ToolCall) -> dict[str, Any]:
        function = {"index": at, "name": call.name, "arguments": orjson.Fragment(call.arguments)}
        return {"id": call.id, "function": function} if self._script.call_ids else {"function": function}


def loaded(model: str) -> bytes:
    """The answer to a request without messages, which only loads the model."""
    message = {"role": "assistant", "content": ""}
    return orjson.dumps(
        {"model": model, "created_at": _CREATED, "message": message, "done_reason": "load", "done": True}
    )


def tags(models: tuple[str, ...]) -> bytes:
    """The models that are there."""
    listed = [
        {
            "name": name,
            "model": name,
            "modified_at": _CREATED,
            "size": 2_019_393_189,
            "digest": "a80c4f17acd55265feec403c7aef86be0c25983ab279d83f3bcd3abbcb5b8b72",
            "details": {"format": "gguf", "family": "llama", "parameter_size": "3.2B"},
        }
        for name in models
    ]
    return orjson.dumps({"models": listed})


def embedded(model: str, texts: list[str], size: int) -> bytes:
    """Vectors that their texts alone decide."""
    vectors = [vector(text.encode(), size) for text in texts]
    count = sum(len(text.split()) for text in texts)
    times = {"total_duration": 14143917, "load_duration": 1019500}
    return orjson.dumps({"model": model, "embeddings": vectors, **times, "prompt_eval_count": count})


def pulling() -> list[bytes]:
    """How a pull is told that ends well, a line each."""
    layer = {"status": "pulling c6eb396dbd59", "digest": "sha256:c6eb396dbd59", "total": 9608}
    told: list[dict[str, Any]] = [
        {"status": "pulling manifest"},
        {**layer, "completed": 4804},
        {**layer, "completed": 9608},
        {"status": "verifying sha256 digest"},
        {"status": "writing manifest"},
        {"status": "success"},
    ]
    return [orjson.dumps(line) for line in told]
