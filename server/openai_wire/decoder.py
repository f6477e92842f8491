"""An OpenAI-compatible upstream's stream → deltas, tolerant of the dialects seen in the wild.

``ChunkDecoder`` takes the data of each SSE event. No socket, no clock. Quirks are mended in the bytes that a
delta carries on (``mending``), so that an encoder of the same dialect may relay them; usage stands apart.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet

import msgspec
from msgspec import UNSET

from server.deltas import (
    Delta,
    Extra,
    Finished,
    Opening,
    Original,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
    Usage,
    UsageDelta,
)
from server.errors import UpstreamCut, UpstreamEmpty, UpstreamError, UpstreamInvalid
from server.openai_wire import chunks
from server.openai_wire.chunks import MAX_INDEX, Choice, Chunk, RawObject, Said, ToolCall, UsageFields, raw_of
from server.openai_wire.errors import is_error_object, upstream_error
from server.openai_wire.json_text import MAX_DEPTH, is_too_deep, one_line
from server.openai_wire.mending import ChoiceState, ended_by_calls, in_order, mended
from server.openai_wire.reshaping import reshaped

_DONE = b"[DONE]"
_LF = 10  # a byte is found in a seventh of the time that a slice takes
_SHORT = 2 * MAX_DEPTH  # too short to nest too deep
_NULL_USAGE = b',"usage":null}'
# What an ``error`` field holds where there is none.
NO_ERROR = (b"null", b"false", b'""', b"{}", b"[]", b"0")
# Words for "the answer was broken off" (OpenRouter, Zhipu, DeepSeek): no finish of an answer.
BROKEN = frozenset({"error", "network_error", "insufficient_system_resource"})
# Reasons of an end that say that the model has spoken.
_SPOKEN = frozenset({"stop", "tool_calls", "function_call"})
_HEAD_FIELDS = frozenset({"id", "object", "created", "model", "choices", "usage"})


class ChunkDecoder:
    """One streamed answer. Feed ``chunk`` with each event's data, then call ``eof`` once.

    ``skipped`` counts garbage lines. After ``[DONE]`` (``done``) further data is ignored. With
    ``stops_at_calls`` a finish reason of ``stop`` means ``tool_calls`` where tools were called.
    """

    def __init__(self, *, stops_at_calls: bool = False) -> None:
        self._stops_at_calls = stops_at_calls
        self.done = False
        self.skipped = 0
        self._choices: dict[int, ChoiceState] = {}
        self._usage: Usage | None = None
        self._held: list[Delta] = []  # a finish without content: an answer, unless usage says that it is none

    def chunk(self, data: bytes) -> list[Delta]:
        """The deltas of one event's data, oldest first.

        Raises a ``ServerError`` if the event tells of an error, or is beyond what is read.
        """
        if self.done:
            return []
        data = data.strip()
        if data == _DONE:
            self.done = True
            return []
        try:
            chunk = chunks.decode_chunk(data)
        except msgspec.ValidationError:
            return self._odd(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self.skipped += 1
            return []
        if len(data) > _SHORT and is_too_deep(data):
            self.skipped += 1
            return []
        if _LF in data:
            data = one_line(data)
        # The road that nearly every chunk takes: one choice, some text, nothing else.
        if (
            type(chunk.choices) is list
            and len(chunk.choices) == 1
            and (chunk.usage is UNSET or chunk.usage is None)
            and chunk.error is UNSET
        ):
            choice = chunk.choices[0]
            said = choice.delta
            index = choice.index
            state = None if index is None else self._choices.get(index)
            if (
                state is not None
                and index is not None
                and said is not None
                and said.content
                and choice.finish_reason is None
                and said.role is None
                and said.reasoning_content is None
                and said.reasoning is None
                and said.refusal is None
                and said.tool_calls is None
                and choice.message is None
                and choice.usage is UNSET
                and state.opened
                and state.finish is None
            ):
                state.text = True
                if chunk.usage is None:
                    data = without_usage(data)
                return [TextDelta(said.content, index, Original("openai.chunk", data))]
        return self._any(chunk, data)

    def eof(self) -> list[Delta]:
        """The stream ended: what was held back, finish reasons that ``[DONE]`` implies, and the usage.

        Raises ``UpstreamCut`` if a choice has not ended, or without a reason within the arguments of a call,
        ``UpstreamEmpty`` if nothing was said, ``UpstreamInvalid`` if there was nothing but garbage.
        """
        if not self._choices and self.skipped:
            raise UpstreamInvalid("The upstream's stream held nothing that can be read; try again later.")
        if not self._choices:
            raise UpstreamEmpty("The upstream's stream was empty; try again later.")
        if not self.done and any(state.finish is None for state in self._choices.values()):
            raise UpstreamCut("The upstream's answer was cut off before its end; try again.")
        if any(state.finish is None and state.calls.unfinished for state in self._choices.values()):
            raise UpstreamCut("The upstream's answer was cut off within a tool call; try again.")
        if self._is_empty():
            raise UpstreamEmpty("The upstream answered without any content; try again later.")
        deltas, self._held = self._held, []
        for index, state in self._choices.items():
            if state.finish is None:
                deltas.append(Finished("tool_calls" if state.calls else "stop", index))
        if self._usage is not None:
            deltas.append(UsageDelta(self._usage))
        return deltas

    def _is_empty(self) -> bool:
        if any(state.content for state in self._choices.values()):
            return False
        return is_nothing({state.finish for state in self._choices.values()} - {None}, self._usage)

    def _odd(self, data: bytes) -> list[Delta]:
        """A JSON value in which a known field has an unknown type."""
        shaped = None if is_too_deep(data) else reshaped(data)
        if shaped is None:
            self.skipped += 1
            return []
        try:
            chunk = chunks.decode_chunk(shaped)
        except msgspec.ValidationError:  # an index of thousands, say
            raise UpstreamInvalid("The upstream sent a chunk that cannot be read; try again later.") from None
        return self._any(chunk, one_line(shaped))

    def _any(self, chunk: Chunk, data: bytes) -> list[Delta]:
        """Any chunk at all, step by step."""
        if chunk.error is not UNSET and bytes(chunk.error) not in NO_ERROR:
            raise upstream_error(200, data)
        if chunk.usage is not UNSET:
            self._note_usage(chunk.usage, data)
            data = without_usage(data)
        if not chunk.choices:
            return self._without_choices(chunk, data)
        # Each is mended within the whole chunk: the time that takes grows with the square of their number.
        if len(chunk.choices) > MAX_INDEX + 1:
            raise UpstreamInvalid("The upstream's chunk holds far too many choices.")
        if broken := BROKEN.intersection(choice.finish_reason or "" for choice in chunk.choices):
            raise UpstreamError(f"The upstream broke its answer off ({min(broken)}); try again.")
        if self._stops_at_calls and any(choice.finish_reason == "stop" for choice in chunk.choices):
            data = ended_by_calls(chunk.choices, self._choices, data)
        if len(chunk.choices) == 1:
            return self._hold(self._one(chunk.choices[0], data))
        indices = {choice.index for choice in chunk.choices}
        if len(indices) == len(chunk.choices) and all(
            in_order(choice, self._state_of(choice)) for choice in chunk.choices
        ):
            return self._hold(_share(data, [self._read(choice) for choice in chunk.choices]))
        # One chunk a choice: then each can be mended by itself.
        return [delta for one in _split(chunk, data) for delta in self.chunk(one)]

    def _without_choices(self, chunk: Chunk, data: bytes) -> list[Delta]:
        if is_error_object(chunks.value_of(data)):
            raise upstream_error(200, data)
        if not isinstance(chunk.choices, list):
            self.skipped += chunk.usage is UNSET
            return []
        extra = set(chunks.fields_of(data)) - _HEAD_FIELDS
        if not extra or isinstance(chunk.usage, UsageFields):
            return []  # the usage chunk: the encoder writes its own, if the client wants one
        return self._hold([Extra(Original("openai.chunk", data), bare=True)])

    def _one(self, choice: Choice, data: bytes) -> list[Delta]:
        if in_order(choice, self._state_of(choice)):
            return _share(data, [self._read(choice)])
        raw = chunks.objects(chunks.fields_of(data)["choices"])[0]
        if isinstance(choice.usage, UsageFields):
            self._take_usage(choice.usage, bytes(raw["usage"]))
        index = choice.index or 0
        state = self._choices.setdefault(index, ChoiceState())
        deltas: list[Delta] = []
        for one in mended(choice, raw, state, data):
            made = chunks.with_choice(data, one)
            read = chunks.decode_chunk(made).choices
            deltas += _share(made, [self._read(again) for again in read or ()])
        return deltas

    def _hold(self, deltas: list[Delta]) -> list[Delta]:
        """Keep back a finish without any content: the usage that follows tells whether it is an answer."""
        if self._held or any(isinstance(delta, Finished) and delta.reason in _SPOKEN for delta in deltas):
            if not any(state.content for state in self._choices.values()):
                self._held += deltas
                return []
            deltas, self._held = self._held + deltas, []
        return deltas

    def _note_usage(self, usage: UsageFields | None, data: bytes) -> None:
        if usage is not None:
            self._take_usage(usage, bytes(chunks.fields_of(data)["usage"]))

    def _take_usage(self, usage: UsageFields, raw: bytes) -> None:
        self._usage = usage_of(usage, raw) or self._usage

    def _state_of(self, choice: Choice) -> ChoiceState | None:
        return None if choice.index is None else self._choices.get(choice.index)

    def _read(self, choice: Choice) -> list[Delta]:
        """The deltas of a choice whose bytes are in order."""
        index = choice.index or 0
        state = self._choices.setdefault(index, ChoiceState())
        deltas = [] if state.opened else [Opening(index)]
        state.opened = True
        return [*deltas, *said_deltas(choice, state)] or [Extra()]


def said_deltas(choice: Choice, state: ChoiceState) -> list[Delta]:
    """What a choice in order says, without its opening; its state takes notice."""
    said, index = choice.delta or choice.message or Said(), choice.index or 0
    deltas: list[Delta] = []
    if said.reasoning_content:
        deltas.append(ReasoningDelta(said.reasoning_content, index))
    elif said.reasoning:
        deltas.append(ReasoningDelta(said.reasoning, index, "reasoning"))
    state.thought |= bool(deltas)
    if said.content:
        state.text = True
        deltas.append(TextDelta(said.content, index))
    if said.refusal:
        state.refusal = True
        deltas.append(RefusalDelta(said.refusal, index))
    if said.tool_calls:
        state.calls.note(said.tool_calls)
        deltas += [_read_call(call, index) for call in said.tool_calls]
    if choice.finish_reason:
        state.finish = choice.finish_reason
        deltas.append(Finished(choice.finish_reason, index))
    return deltas


def is_nothing(reasons: AbstractSet[str | None], usage: Usage | None) -> bool:
    """Is an answer without content none at all? Why its choices ended is known, and perhaps what it cost.

    An end for another reason (``length``, ``content_filter``) is an answer by itself. One that claims to have
    spoken is believed if tokens are counted for it: models may have nothing to say.
    """
    return reasons <= _SPOKEN and not (reasons and usage is not None and usage.completion_tokens)


def usage_of(usage: UsageFields, raw: bytes) -> Usage | None:
    """The figures of a usage object, which is kept as ``raw``; None if it has none."""
    prompt, completion = chunks.figure(usage.prompt_tokens), chunks.figure(usage.completion_tokens)
    total = chunks.figure(usage.total_tokens)
    if prompt is None and completion is None and total is None:
        return None
    if completion is None:
        completion = max(0, (total or 0) - (prompt or 0))
    return Usage(
        prompt or 0, completion, (prompt or 0) + completion if total is None else total, raw=one_line(raw)
    )


def without_usage(data: bytes) -> bytes:
    """A chunk without its ``usage``, every other byte as it was."""
    if data.endswith(_NULL_USAGE) and data.count(b'"usage"') == 1:
        return data[: -len(_NULL_USAGE)] + b"}"

    def remove(fields: RawObject) -> None:
        fields.pop("usage", None)

    return chunks.edit_object(data, remove)


def _share(data: bytes, groups: list[list[Delta]]) -> list[Delta]:
    """Give the first delta the chunk's bytes and the others an original without data."""
    deltas = [delta for group in groups for delta in group]
    bearing, rest = Original("openai.chunk", data), Original("openai.chunk", b"")
    return [
        msgspec.structs.replace(delta, original=rest if place else bearing)
        for place, delta in enumerate(deltas)
    ]


def _split(chunk: Chunk, data: bytes) -> list[bytes]:
    """A chunk for each of several choices; if none of them has an index, their order tells it."""
    choices = chunks.objects(chunks.fields_of(data)["choices"])
    if all(choice.index is None for choice in chunk.choices or ()):
        choices = [choice | {"index": raw_of(place)} for place, choice in enumerate(choices)]
    return [chunks.with_choice(data, choice) for choice in choices]


def _read_call(call: ToolCall, index: int) -> ToolCallDelta:
    function = call.function
    return ToolCallDelta(
        call.index or 0,
        call.id,
        (function.name if function else None) or None,
        (function.arguments if function else None) or "",
        index,
    )
