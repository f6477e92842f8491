"""What is seen of each choice of a stream, and the quirks of its chunks mended in their bytes.

Afterwards the role stands in the first chunk of a choice only, a finish reason is a word or null, tool calls
are numbered from 0 and say id, type and name once, and text and reasoning do not share a delta.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from msgspec import UNSET, Raw

from server.errors import UpstreamInvalid
from server.openai_wire import chunks
from server.openai_wire.chunks import MAX_INDEX, Choice, RawObject, Said, ToolCall, raw_of
from server.openai_wire.json_text import Nesting

_NULL = Raw(b"null")
_THOUGHT = ("reasoning_content", "reasoning")


class ToolCalls:
    """The tool calls of one choice: which piece belongs to which, and what has been said of each."""

    __slots__ = ("_arguments", "_by_index", "_ids", "_named")

    def __init__(self) -> None:
        self._ids: list[str] = []  # by position
        self._named: list[bool] = []
        self._arguments: list[Nesting] = []
        self._by_index: dict[int, int] = {}  # the upstream's index → position of the call it meant last

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def unfinished(self) -> bool:
        """Has a call arguments that have begun and not ended?"""
        return any(arguments.open for arguments in self._arguments)

    def in_order(self, pieces: Sequence[ToolCall]) -> bool:
        """May the pieces go out as they came?"""
        fresh = len(self)
        for piece in pieces:
            function = piece.function
            if piece.index is None or function is None or function.arguments is None:
                return False
            if self._by_index.get(piece.index) == piece.index:
                if piece.id is not None or piece.type is not None or function.name is not None:
                    return False
            elif piece.index == fresh and _is_whole_head(piece) and piece.id not in self._ids:
                fresh += 1
            else:
                return False
        return True

    def note(self, pieces: Sequence[ToolCall]) -> None:
        """Take notice of pieces that are in order."""
        for piece in pieces:
            position = piece.index or 0
            if position == len(self):
                self._add(piece.id or "", position, named=True)
            if piece.function is not None and piece.function.arguments:
                self._arguments[position].add(piece.function.arguments)

    def mend(self, pieces: Sequence[ToolCall], raw: Sequence[RawObject], seed: bytes) -> list[RawObject]:
        """The pieces put in order, and taken notice of. An id that did not come is made from ``seed``."""
        return [self._mend(piece, fields, seed) for piece, fields in zip(pieces, raw, strict=True)]

    def _mend(self, piece: ToolCall, fields: RawObject, seed: bytes) -> RawObject:
        position = self._position(piece)
        fields = {"index": raw_of(position)} | {key: fields[key] for key in fields if key != "index"}
        if position == len(self):
            id = piece.id if piece.id and piece.id not in self._ids else made_id(seed, position)
            self._add(id, piece.index, named=False)
            fields |= {"id": raw_of(self._ids[position]), "type": raw_of(piece.type or "function")}
        else:
            fields = {key: value for key, value in fields.items() if key not in ("id", "type")}
            if piece.index is not None:
                self._by_index[piece.index] = position
        function = chunks.fields_of(fields["function"]) if piece.function is not None else {}
        if piece.function is not None and piece.function.name and not self._named[position]:
            self._named[position] = True
        else:
            function.pop("name", None)
        if piece.function is None or piece.function.arguments is None:
            function["arguments"] = Raw(b'""')
        return fields | {"function": raw_of(function)}

    def _add(self, id: str, index: int | None, *, named: bool) -> None:
        if len(self._ids) > MAX_INDEX:
            raise UpstreamInvalid("The upstream's answer holds far too many tool calls.")
        if index is not None:
            self._by_index[index] = len(self)
        self._ids.append(id)
        self._named.append(named)
        self._arguments.append(Nesting())

    def _position(self, piece: ToolCall) -> int:
        """The position of the call that a piece belongs to; the number of calls if it begins one."""
        name = piece.function is not None and piece.function.name
        if piece.index is not None:
            known = self._by_index.get(piece.index, len(self))
            if known == len(self) or not (piece.id and name) or piece.id == self._ids[known]:
                return known
            # An id of its own with a name of its own is a call of its own: some give all calls the index 0.
            # An id alone is not: some make up another for each piece.
        if piece.id in self._ids:
            return self._ids.index(piece.id)
        if piece.id or name or not len(self):
            return len(self)
        return len(self) - 1


class ChoiceState:
    """What has been seen of one choice."""

    __slots__ = ("calls", "finish", "opened", "refusal", "text", "thought", "whole")

    def __init__(self) -> None:
        self.opened = False
        self.text = False
        self.thought = False
        self.refusal = False
        self.calls = ToolCalls()
        self.finish: str | None = None
        self.whole = False  # do its chunks have a ``message`` instead of a ``delta``?

    @property
    def content(self) -> bool:
        """Has it said anything?"""
        return self.text or self.thought or self.refusal or len(self.calls) > 0


def in_order(choice: Choice, state: ChoiceState | None) -> bool:
    """May a client of the same dialect see the choice's bytes as they are?"""
    said = choice.delta
    if said is None or choice.message is not None or choice.index is None or choice.usage is not UNSET:
        return False
    if state is None:
        state = ChoiceState()
    if state.finish is not None or choice.finish_reason == "":
        return False
    if said.role is not None if state.opened else not said.role:
        return False
    if said.content and (said.reasoning_content or said.reasoning):
        return False
    return not said.tool_calls or state.calls.in_order(said.tool_calls)


def mended(choice: Choice, raw: RawObject, state: ChoiceState, seed: bytes) -> list[RawObject]:
    """One choice as one or two in order: its reasoning, then the rest. Its tool calls are taken notice of.

    ``seed`` is the chunk, from which the ids of tool calls are made that came without one.
    """
    if state.finish is not None:
        return []  # the finish reason was the end of this choice
    said, delta = _said(choice, raw, state)
    raw = {"index": raw_of(choice.index or 0)} | {
        key: value for key, value in raw.items() if key not in ("index", "message", "usage")
    }
    if state.opened:
        delta.pop("role", None)
    elif not said.role:
        delta["role"] = Raw(b'"assistant"')
    if said.tool_calls:
        pieces = chunks.objects(delta["tool_calls"])
        delta["tool_calls"] = raw_of(state.calls.mend(said.tool_calls, pieces, seed))
    raw |= {"delta": raw_of(delta), "finish_reason": raw_of(choice.finish_reason or None)}
    if not (said.content and (said.reasoning_content or said.reasoning)):
        return [raw]
    first = {key: delta[key] for key in ("role", *_THOUGHT) if key in delta}
    rest = {key: value for key, value in delta.items() if key not in first}
    before = {key: value for key, value in raw.items() if key != "logprobs"}
    return [before | {"delta": raw_of(first), "finish_reason": _NULL}, raw | {"delta": raw_of(rest)}]


def ended_by_calls(choices: Sequence[Choice], states: Mapping[int, ChoiceState], data: bytes) -> bytes:
    """The JSON with ``tool_calls`` as the finish reason of those choices that stop and have called tools."""
    raw = chunks.objects(chunks.fields_of(data)["choices"])
    for choice, fields in zip(choices, raw, strict=True):
        said, state = choice.delta or choice.message, states.get(choice.index or 0)
        called = bool(said and said.tool_calls) or (state is not None and len(state.calls) > 0)
        if choice.finish_reason == "stop" and called:
            choice.finish_reason = "tool_calls"
            fields["finish_reason"] = raw_of(choice.finish_reason)
    return chunks.edit_object(data, lambda fields: fields.update(choices=raw_of(raw)))


def _said(choice: Choice, raw: RawObject, state: ChoiceState) -> tuple[Said, RawObject]:
    """What a chunk says, as struct and as fields: its delta, and what is new in its message."""
    delta = chunks.fields_of(raw["delta"]) if choice.delta is not None else {}
    if choice.message is None:
        return choice.delta or Said(), delta
    message = chunks.fields_of(raw["message"])
    if not choice.finish_reason:
        state.whole = True
    elif not state.whole and state.content:
        # Minimax repeats the whole message in its last chunk; what was streamed is not doubled.
        told = {"content": state.text, "refusal": state.refusal, "tool_calls": len(state.calls) > 0}
        told |= dict.fromkeys(_THOUGHT, state.thought)
        message = {key: value for key, value in message.items() if told.get(key) is False}
    delta = message | {key: value for key, value in delta.items() if key not in message or _says(value)}
    return chunks.decode_said(raw_of(delta)), delta


def _says(value: Raw) -> bool:
    return bytes(value) not in (b"null", b'""', b"[]")


def _is_whole_head(piece: ToolCall) -> bool:
    """Does it begin a call with all that belongs there?"""
    return bool(piece.id and piece.type and piece.function is not None and piece.function.name)


def made_id(seed: bytes, position: int) -> str:
    """An id for a call that came without one: the same for the same bytes, another for others."""
    return f"call_{hashlib.blake2s(seed, digest_size=8).hexdigest()}_{position}"
