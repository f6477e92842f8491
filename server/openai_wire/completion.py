"""Deltas → one plain chat completion: the same loop that feeds a stream feeds this collector."""

from __future__ import annotations

from typing import Any, TypeAlias, assert_never

import msgspec
from msgspec import Raw

from server.deltas import (
    Batch,
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
from server.openai_wire import chunks
from server.openai_wire.chunks import RawObject, raw_of
from server.openai_wire.encoder import usage_json

_OBJECT = "chat.completion"
_json = msgspec.json.encode
# Fields of chunks that have a place of their own in a completion, or that the collector writes itself.
_KNOWN_TOP = frozenset({"id", "object", "created", "model", "choices", "usage", "obfuscation"})
_KNOWN_CHOICE = frozenset({"index", "delta", "finish_reason", "logprobs"})
_KNOWN_DELTA = frozenset(
    {"role", "content", "reasoning_content", "reasoning", "refusal", "tool_calls", "native_block"}
)
_KNOWN_CALL = frozenset({"index", "id", "type", "function"})
# Unknown fields of a delta grow as the official client lets them grow, but for what is said once or repeated.
_SAID_ONCE = frozenset({"id", "name", "type", "index", "format", "status", "role"})
_Pieces: TypeAlias = dict[str, list[Raw]]


class _Message:
    """One choice as it grows. Texts are kept in pieces and joined once."""

    __slots__ = (
        "calls",
        "content",
        "extra",
        "extra_calls",
        "extra_choice",
        "field",
        "finish",
        "logprobs",
        "reasoning",
        "refusal",
        "role",
    )

    def __init__(self) -> None:
        self.content: list[str] = []
        self.reasoning: list[str] = []
        self.field = "reasoning_content"
        self.refusal: list[str] = []
        self.calls: dict[int, dict[str, Any]] = {}
        self.finish: str | None = None
        self.role = Raw(b'"assistant"')
        self.extra: _Pieces = {}
        self.extra_calls: dict[int, _Pieces] = {}
        self.extra_choice: RawObject = {}
        self.logprobs: dict[str, list[Raw]] = {}


def relayed(batch: Batch, model: str) -> bytes | None:
    """The upstream's own plain answer with the public ``model`` name in it.

    None where more than the name must be changed, or where it did not come as one whole body.
    """
    first = batch[0].original if batch else None
    if first is None or first.named is None or type(batch[-1]) is not UsageDelta:
        return None
    return _renamed(first.data, first.named, model)


def _renamed(data: bytes, theirs: str, ours: str) -> bytes | None:
    """A completion with its top-level ``model`` replaced; None where that is not easily found."""
    name = _json(theirs)
    for needle in (b'"model":' + name, b'"model": ' + name):
        at = data.find(needle)
        if at >= 0 and data.count(b"{", 0, at) == 1 and data.find(b"[", 0, at) < 0:
            if theirs == ours:
                return data
            end = at + len(needle)
            return b"%b%b%b" % (data[: end - len(name)], _json(ours), data[end:])
    return None


class Completion:
    """Collects the batches of one answer; ``encode`` gives the body.

    A plain upstream answer is relayed as it came, with the public model name put in and what is missing
    filled in. Anything else is put together from its deltas. Unknown fields are kept: of a chunk or a choice
    the last value of each; of a delta text is joined, and lists and objects grow.
    """

    def __init__(self, *, model: str, id: str, created: int, own_identity: bool = False) -> None:
        self._model = model
        self._id = id
        self._created = created
        self._fixed = own_identity
        self._whole: Original | None = None
        self._messages: dict[int, _Message] = {}
        self._extra: RawObject = {}
        self.usage: Usage | None = None

    @property
    def warnings(self) -> tuple[str, ...]:
        """None: what has no word here goes on as it came, or in fields of its own."""
        return ()

    def add(self, batch: Batch) -> None:
        """Take in one batch."""
        for delta in batch:
            original = delta.original
            if original is not None and original.data:
                if original.form == "openai.completion":
                    self._whole = original
                else:
                    self._keep_unknown(original.data)
            if self._whole is None or type(delta) is UsageDelta:
                self._add(delta)

    def encode(self, usage: Usage | None = None, antiphon: bytes | None = None) -> bytes:
        """The body. ``usage`` is used where the upstream gave none; ``antiphon`` is that field's JSON."""
        usage = self.usage or usage or Usage(estimated=True)
        if self._whole is not None:
            return self._relay(self._whole, usage, antiphon)
        fields: dict[str, Any] = {
            "id": self._id,
            "object": _OBJECT,
            "created": self._created,
            "model": self._model,
            "choices": [self._choice(index) for index in sorted(self._messages)],
            "usage": Raw(usage_json(usage)),
        }
        fields |= self._extra
        if antiphon:
            fields["antiphon"] = Raw(antiphon)
        return _json(fields)

    def _add(self, delta: Delta) -> None:
        match delta:
            case UsageDelta(usage):
                self.usage = usage
                return
            case Extra():
                return
            case Opening() | TextDelta() | ReasoningDelta() | RefusalDelta() | ToolCallDelta() | Finished():
                message = self._messages.setdefault(delta.index, _Message())
            case _ as never:
                assert_never(never)
        match delta:
            case TextDelta(text):
                message.content.append(text)
            case ReasoningDelta(text):
                message.reasoning.append(text)
                message.field = delta.field
            case RefusalDelta(text):
                message.refusal.append(text)
            case ToolCallDelta():
                _add_call(message.calls, delta)
            case Finished(reason):
                message.finish = reason
            case Opening():
                pass

    def _keep_unknown(self, data: bytes) -> None:
        fields = chunks.fields_of(data)
        if not self._fixed:
            self._take_identity(data)
        self._extra |= {key: value for key, value in fields.items() if key not in _KNOWN_TOP}
        for choice in chunks.objects(fields.get("choices", Raw(b"[]"))):
            index = msgspec.json.decode(choice.get("index", Raw(b"0")))
            message = self._messages.setdefault(index if isinstance(index, int) else 0, _Message())
            message.extra_choice |= {k: v for k, v in choice.items() if k not in _KNOWN_CHOICE}
            if "logprobs" in choice and bytes(choice["logprobs"]) != b"null":
                _add_logprobs(message.logprobs, choice["logprobs"])
            if "delta" in choice:
                delta = chunks.fields_of(choice["delta"])
                message.role = delta.get("role", message.role)
                _note(message.extra, delta, _KNOWN_DELTA)
                for call in chunks.objects(delta["tool_calls"]) if _is_list(delta.get("tool_calls")) else ():
                    position = msgspec.json.decode(call["index"])  # the decoder has seen to it
                    _note(message.extra_calls.setdefault(position, {}), call, _KNOWN_CALL)

    def _take_identity(self, data: bytes) -> None:
        """The upstream's id and time, if it gave any; the first chunk decides."""
        self._fixed = True
        head = chunks.decode_head(data)
        self._id = head.own_id() or self._id
        self._created = head.own_created() or self._created

    def _choice(self, index: int) -> dict[str, Any]:
        message = self._messages[index]
        content = "".join(message.content)
        fields: dict[str, Any] = {"role": message.role}
        fields["content"] = content if content or not (message.calls or message.refusal) else None
        if message.reasoning:
            fields[message.field] = "".join(message.reasoning)
        if message.refusal:
            fields["refusal"] = "".join(message.refusal)
        if message.calls:
            fields["tool_calls"] = [
                message.calls[position] | _grown(message.extra_calls.get(position, {}))
                for position in sorted(message.calls)
            ]
        choice: dict[str, Any] = {"index": index, "message": fields | _grown(message.extra)}
        if message.logprobs:
            choice["logprobs"] = message.logprobs
        choice["finish_reason"] = message.finish
        return choice | message.extra_choice

    def _relay(self, whole: Original, usage: Usage, antiphon: bytes | None) -> bytes:
        """The upstream's own completion; only what must change is changed."""
        data = whole.data
        if whole.named is not None and self.usage is not None and not self._fixed and antiphon is None:
            renamed = _renamed(data, whole.named, self._model)
            if renamed is not None:
                return renamed
        head = chunks.decode_head(data)

        def put(fields: RawObject) -> None:
            if self._fixed or head.own_id() is None:
                fields["id"] = raw_of(self._id)
            fields["object"] = raw_of(_OBJECT)
            if self._fixed or type(head.created) is not int or head.own_created() is None:
                created = None if self._fixed else head.own_created()
                fields["created"] = raw_of(created or self._created)
            fields["model"] = raw_of(self._model)
            if self.usage is None:
                fields["usage"] = Raw(usage_json(usage))
            if antiphon is not None:
                fields["antiphon"] = Raw(antiphon)

        return chunks.edit_object(data, put)


def _add_call(calls: dict[int, dict[str, Any]], delta: ToolCallDelta) -> None:
    call = calls.setdefault(
        delta.position, {"id": None, "type": "function", "function": {"name": None, "arguments": ""}}
    )
    if delta.id is not None:
        call["id"] = delta.id
    if delta.name is not None:
        call["function"]["name"] = delta.name
    call["function"]["arguments"] += delta.arguments


def _add_logprobs(kept: dict[str, list[Raw]], data: Raw) -> None:
    """Log probabilities come piece by piece, as lists of tokens under ``content`` and ``refusal``."""
    if not bytes(data).startswith(b"{"):
        return
    for key, value in chunks.fields_of(data).items():
        if _is_list(value):
            kept.setdefault(key, []).extend(msgspec.json.decode(value, type=list[Raw]))


def _is_list(value: Raw | None) -> bool:
    return value is not None and bytes(value).startswith(b"[")


def _note(kept: _Pieces, fields: RawObject, known: frozenset[str]) -> None:
    """Keep the pieces of unknown fields."""
    for key, value in fields.items():
        if key not in known:
            kept.setdefault(key, []).append(value)


def _grown(kept: _Pieces) -> RawObject:
    return {key: pieces[-1] if key in _SAID_ONCE else _joined(pieces) for key, pieces in kept.items()}


def _joined(pieces: list[Raw]) -> Raw:
    """The pieces of one field as one value; where they are of kinds that do not grow, the last."""
    values = [value for piece in pieces if (value := bytes(piece)) != b"null"]
    kinds = {value[:1] for value in values}
    if len(values) < 2 or len(kinds) > 1:
        return Raw(values[-1]) if values else pieces[-1]
    if kinds == {b'"'}:
        return Raw(b'"' + b"".join(value[1:-1] for value in values) + b'"')
    if kinds == {b"["}:
        return raw_of([one for value in values for one in msgspec.json.decode(value, type=list[Raw])])
    if kinds == {b"{"}:
        grown: _Pieces = {}
        for value in values:
            _note(grown, chunks.fields_of(value), frozenset())
        return raw_of(_grown(grown))
    return Raw(values[-1])
