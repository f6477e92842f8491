"""What a simulated Anthropic says, as one message and as the events of a stream."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import msgspec
import orjson

from server.simulators.asked import Asked
from server.simulators.errors import Fault, named_fault
from server.simulators.said import Chunk, Said, say
from server.simulators.script import Script, ToolCall
from server.simulators.steps import EventForm

_STOP_REASONS = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
}
_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_WORDS = {
    401: "invalid x-api-key",
    413: "Request exceeds the maximum size",
    429: "This request would exceed your organization's rate limit.",
    500: "Internal server error",
    529: "Overloaded",
}


class AnthropicScript(Script, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One answer of Anthropic: ``Script``, without ``[DONE]``, and some fields of its own."""

    done: int = 0
    error_after: int | None = None  # an error event after so many chunks; overloaded_error unless told
    pings: bool = True  # one after the first block's start
    ping_between: bool = False  # one before each chunk
    signature: str = "EqSim=="  # of the thoughts; "": none
    stop_reason: str | None = None  # None: by ``finish``
    blocks: tuple[dict[str, Any], ...] = ()  # whole blocks before the text, of the service's own tools
    citations: tuple[dict[str, Any], ...] = ()  # of a second block of text: all but the first word
    stop_details: dict[str, Any] | None = None
    container: dict[str, Any] | None = None
    odd: dict[str, Any] | None = None  # an event of a type that nobody knows, behind the blocks
    cache_read: int = 0  # tokens
    cache_creation: int = 0
    usage_at_end: Literal["output", "all"] = "output"  # what message_delta counts: newer servers say all


class NamedEvents(EventForm):
    """Writes each event under the name that its ``type`` is."""

    def json(self, data: object) -> bytes:
        assert isinstance(data, dict)  # every event is an object
        return self.event(orjson.dumps(data), str(data["type"]))


def error_json(fault: Fault, number: int) -> bytes:
    """The body of an error, and the data of an error event."""
    kind = fault.type if fault.type in _TYPES.values() and fault.type != _TYPES[400] else None
    kind = kind or _TYPES.get(fault.status, "api_error")
    error = {"type": kind, "message": fault.message}
    return orjson.dumps({"type": "error", "error": error, "request_id": f"req_sim{number}"})


def scripted_fault(script: Script, default: int) -> Fault:
    """The fault that a script tells; within a 200 one of status ``default``."""
    return named_fault(script, default, _WORDS, _TYPES, otherwise="api_error")


def say_anthropic(script: AnthropicScript, asked: Asked, number: int) -> Said:
    """The pieces of an answer; a call has an id in Anthropic's form."""
    tools = tuple(
        call if call.id is not None else msgspec.structs.replace(call, id=f"toolu_sim_{place}")
        for place, call in enumerate(script.tools, 1)
    )
    return say(msgspec.structs.replace(script, tools=tools), asked, number)


class Wire:
    """One answer, whole or as events."""

    def __init__(self, script: AnthropicScript, said: Said, number: int) -> None:
        self._script, self._said, self._number = script, said, number

    def message(self) -> bytes:
        """The plain answer."""
        script, said = self._script, self._said
        content: list[dict[str, Any]] = []
        if said.reasoning:
            thought = {"type": "thinking", "thinking": "".join(said.reasoning)}
            content.append(thought | {"signature": self._script.signature})
        content += script.blocks
        for text, citations in self._texts():
            cited = {"citations": list(citations)} if citations else {}
            content.append({"type": "text", "text": "".join(text), **cited})
        content += [{**_tool(call), "input": _input(call)} for call in said.tools]
        whole = self._envelope(content, self._reason(), said.completion_tokens)
        return orjson.dumps(whole | self._beside_the_end())

    def events(self) -> Iterator[Chunk]:
        """The stream, event by event."""
        script, said = self._script, self._said
        yield _quiet("message_start", message=self._envelope([], None, 1))
        index = 0
        for index, (block, deltas) in enumerate(self._blocks()):
            yield _quiet("content_block_start", index=index, content_block=block)
            if index == 0 and script.pings:
                yield _quiet("ping")
            for delta in deltas:
                if script.ping_between:
                    yield _quiet("ping")
                counts = delta["type"] not in ("signature_delta", "citations_delta")
                yield Chunk({"type": "content_block_delta", "index": index, "delta": delta}, counts)
            yield _quiet("content_block_stop", index=index)
        usage = {"output_tokens": said.completion_tokens}
        if script.usage_at_end == "all":
            usage = self._usage(said.completion_tokens)
        if script.finish_form != "missing":
            if script.odd is not None:
                yield Chunk(script.odd, False)
            delta = {"stop_reason": self._reason(), "stop_sequence": None, **self._beside_the_end()}
            yield _quiet("message_delta", delta=delta, usage=usage)
        yield _quiet("message_stop")

    def _blocks(self) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
        """Each block's start, and its deltas."""
        script, said = self._script, self._said
        if said.reasoning:
            thoughts = [{"type": "thinking_delta", "thinking": piece} for piece in said.reasoning]
            if script.signature:
                thoughts.append({"type": "signature_delta", "signature": script.signature})
            yield {"type": "thinking", "thinking": "", "signature": ""}, thoughts
        for block in script.blocks:
            given = orjson.dumps(block["input"]).decode() if "input" in block else ""
            pieces = ["", *_slices(given, 2)] if given else []
            started = {**block, "input": {}} if given else block
            yield started, [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]
        for text, citations in self._texts():
            started = {"type": "text", "text": "", **({"citations": []} if citations else {})}
            told: list[dict[str, Any]] = [{"type": "citations_delta", "citation": one} for one in citations]
            yield started, [*told, *({"type": "text_delta", "text": piece} for piece in text)]
        for call in said.tools:
            pieces = ["", *_slices(call.arguments, script.tool_pieces)] if script.tool_pieces else []
            yield (
                {**_tool(call), "input": {}},
                [{"type": "input_json_delta", "partial_json": piece} for piece in pieces],
            )

    def _texts(self) -> Iterator[tuple[tuple[str, ...], tuple[dict[str, Any], ...]]]:
        """The blocks of text: their pieces, and where they come from."""
        text, citations = self._said.text, self._script.citations
        if citations:
            yield text[:1], ()
            yield text[1:], citations
        elif text:
            yield text, ()

    def _beside_the_end(self) -> dict[str, Any]:
        told = {"stop_details": self._script.stop_details, "container": self._script.container}
        return {key: value for key, value in told.items() if value is not None}

    def _envelope(self, content: list[dict[str, Any]], reason: str | None, tokens: int) -> dict[str, Any]:
        return {
            "id": f"msg_sim{self._number}",
            "type": "message",
            "role": "assistant",
            "model": self._said.model,
            "content": content,
            "stop_reason": reason,
            "stop_sequence": None,
            "usage": self._usage(tokens),
        }

    def _usage(self, tokens: int) -> dict[str, Any]:
        script = self._script
        return {
            "input_tokens": self._said.prompt_tokens,
            "cache_creation_input_tokens": script.cache_creation,
            "cache_read_input_tokens": script.cache_read,
            "output_tokens": tokens,
            "service_tier": "standard",
        }

    def _reason(self) -> str:
        return self._script.stop_reason or _STOP_REASONS.get(self._said.finish, self._said.finish)


def _quiet(kind: str, **fields: Any) -> Chunk:
    return Chunk({"type": kind, **fields}, False)


def _tool(call: ToolCall) -> dict[str, Any]:
    return {"type": "tool_use", "id": call.id, "name": call.name}


def _input(call: ToolCall) -> Any:
    return orjson.Fragment(call.arguments.encode())


def _slices(text: str, count: int) -> list[str]:
    return [text[len(text) * at // count : len(text) * (at + 1) // count] for at in range(count)]
