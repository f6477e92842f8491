"""Deltas → the SSE events of a chat completion stream.

A delta that still has its chunk's bytes is relayed: only the model name (and, where the answer is ours, id
and time) is put in. Since an upstream begins all chunks of an answer alike, that head is recognised by one
comparison and replaced by ours; the rest of the bytes is never looked at.
"""

from __future__ import annotations

from typing import assert_never

import msgspec
from msgspec import Raw

from server.deltas import (
    Batch,
    Delta,
    Extra,
    Finished,
    Opening,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
    Usage,
    UsageDelta,
)
from server.errors import ServerError
from server.openai_wire import chunks
from server.openai_wire.errors import error_event

_OBJECT = "chat.completion.chunk"
_json = msgspec.json.encode
DONE = b"data: [DONE]\n\n"
_END = b"\n\n"
_WARNINGS = b'"warnings":'


class ChunkEncoder:
    """One client's stream.

    ``model`` is the name that the client asked for. ``id`` and ``created`` (Unix seconds) are used where the
    upstream gave none, or always with ``own_identity`` (a combination's answer is the run's). With
    ``include_usage`` one more chunk with ``choices: []`` and the usage stands before ``[DONE]``, and all
    others carry ``usage: null``; without it no usage goes out at all.
    """

    def __init__(
        self, *, model: str, id: str, created: int, include_usage: bool = False, own_identity: bool = False
    ) -> None:
        self._model = _json(model)
        self._id = _json(id)
        self._created = _json(created)
        self._fixed = own_identity  # are id and created settled?
        self._include_usage = include_usage
        self._head_in = b"\x00"  # no chunk begins so
        self._head_out = b""
        self._opened: set[int] = set()
        self.usage: Usage | None = None

    @property
    def warnings(self) -> tuple[str, ...]:
        """None: what has no word here goes on as it came, or in fields of its own."""
        return ()

    def encode(self, batch: Batch) -> bytes:
        """The events of a batch, joined for one write; b"" if it brings none."""
        pieces: list[bytes] = []
        for delta in batch:
            original = delta.original
            if original is None or original.form != "openai.chunk":
                if type(delta) is UsageDelta:
                    self.usage = delta.usage
                elif data := self._build(delta):
                    pieces += (b"data: ", data, b"\n\n")
                continue
            data = original.data
            if type(delta) is Opening and data and delta.index in self._opened:
                data = _without_role(data, delta.index)  # status of ours has begun the choice
            if type(delta) is Extra and delta.bare and not self._include_usage:
                continue  # no empty choices unless they were asked for
            if not data:
                if type(delta) is Opening:
                    self._opened.add(delta.index)
                continue
            if data.startswith(self._head_in):
                head, rest = self._head_out, data[len(self._head_in) :]
            else:
                head, rest = b"", self._relay(data)
            if type(delta) is Opening:
                self._opened.add(delta.index)
            if self._include_usage:
                pieces += (b"data: ", head, rest[:-1], b',"usage":null}\n\n')
            else:
                pieces += (b"data: ", head, rest, b"\n\n")
        return b"".join(pieces)

    def beside(self, field: str, value: bytes) -> bytes:
        """A chunk that brings nothing but a field of ours; ``value`` is JSON."""
        usage = b',"usage":null' if self._include_usage else b""
        return b'data: %b,"choices":[{"index":0,"delta":{},"finish_reason":null}]%b,"%b":%b}\n\n' % (
            self._own_head(),
            usage,
            field.encode(),
            value,
        )

    def finish(self, usage: Usage | None, antiphon: bytes | None = None) -> bytes:
        """The end of a complete stream: the usage chunk if it was asked for, then ``[DONE]``.

        ``usage`` is used when the stream brought none. ``antiphon`` is the JSON of the field of that name.
        """
        usage = self.usage or usage
        if not self._include_usage:
            return DONE
        extra = b',"antiphon":' + antiphon if antiphon else b""
        figures = usage_json(usage or Usage(estimated=True))
        return b"".join(
            (b"data: ", self._own_head(), b',"choices":[],"usage":', figures, extra, b"}\n\n", DONE)
        )

    def fail(self, error: ServerError) -> bytes:
        """The end of a stream that failed: one error event, and no ``[DONE]``."""
        return error_event(error)

    def _own_head(self) -> bytes:
        """The beginning of a chunk of ours, up to the model."""
        return b'{"id":%b,"object":"%b","created":%b,"model":%b' % (
            self._id,
            _OBJECT.encode(),
            self._created,
            self._model,
        )

    def _relay(self, data: bytes) -> bytes:
        """A chunk that begins unlike the ones before: learn its head, or put in the fields one by one."""
        head = chunks.decode_head(data)
        if not self._fixed:
            self._fixed = True
            if (id := head.own_id()) is not None:
                self._id = _json(id)
            if (created := head.own_created()) is not None:
                self._created = _json(created)
        end = _end_of_model(data, head)
        if end:
            self._head_in = data[:end]
            self._head_out = self._own_head()
            return self._head_out + data[end:]

        own = msgspec.json.decode(self._own_head() + b"}", type=dict[str, Raw])
        return chunks.edit_object(data, lambda fields: _put_first(fields, own))

    def _build(self, delta: Delta) -> bytes:
        """A chunk for a delta without bytes of its own."""
        match delta:
            case Opening(index):
                inner, reason = b"", b"null"
            case TextDelta(text, index):
                inner, reason = b'"content":' + _json(text), b"null"
            case ReasoningDelta(text, index, field):
                inner, reason = b'"' + field.encode() + b'":' + _json(text), b"null"
            case RefusalDelta(text, index):
                inner, reason = b'"refusal":' + _json(text), b"null"
            case ToolCallDelta():
                index, inner, reason = delta.index, b'"tool_calls":[' + _tool_call(delta) + b"]", b"null"
            case Finished(word, index):
                inner, reason = b"", _json(word)
            case UsageDelta() | Extra():
                return b""
            case _ as never:
                assert_never(never)
        if index not in self._opened:
            self._opened.add(index)
            role = b'"role":"assistant"'
            inner = role + b"," + inner if inner else role + b',"content":""'
        elif type(delta) is Opening:
            return b""
        tail = b',"usage":null}' if self._include_usage else b"}"
        return b'%b,"choices":[{"index":%d,"delta":{%b},"finish_reason":%b}]%b' % (
            self._own_head(),
            index,
            inner,
            reason,
            tail,
        )


class OwnEncoder(ChunkEncoder):
    """The stream of an answer that is ours, for a client that wants no usage chunk.

    What is to be told of its calls stands in the last chunk then, which waits for the answer's end.
    """

    def __init__(self, *, model: str, id: str, created: int) -> None:
        super().__init__(model=model, id=id, created=created, own_identity=True)
        self._last = b""

    def encode(self, batch: Batch) -> bytes:
        """See ``ChunkEncoder``."""
        data = super().encode(batch)
        if not data or not (self._last or any(type(delta) is Finished for delta in batch)):
            return data
        data = self._last + data
        # No empty line stands within an event: the last one begins behind the end of the one before.
        at = data.rfind(_END, 0, -len(_END)) + len(_END) if data.count(_END) > 1 else 0
        self._last = data[at:]
        return data[:at]

    def finish(self, usage: Usage | None, antiphon: bytes | None = None) -> bytes:
        """See ``ChunkEncoder``; ``antiphon`` goes out where it has warnings."""
        last = self._last
        if last and antiphon and _WARNINGS in antiphon:
            last = b'%b,"antiphon":%b}%b' % (last.removesuffix(_END)[:-1], antiphon, _END)
        return last + super().finish(usage)

    def fail(self, error: ServerError) -> bytes:
        """See ``ChunkEncoder``."""
        return self._last + super().fail(error)


def usage_json(usage: Usage) -> bytes:
    """The ``usage`` object: the upstream's own bytes, else our figures, marked if estimated."""
    if usage.raw is not None:
        return usage.raw
    fields: dict[str, int | bool] = {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
    }
    if usage.estimated:
        fields["estimated"] = True
    return _json(fields)


def _tool_call(delta: ToolCallDelta) -> bytes:
    fields: dict[str, object] = {"index": delta.position}
    if delta.id is not None:
        fields |= {"id": delta.id, "type": "function"}
    function: dict[str, str] = {} if delta.name is None else {"name": delta.name}
    fields["function"] = function | {"arguments": delta.arguments}
    return _json(fields)


def _without_role(data: bytes, index: int) -> bytes:
    """The chunk, without the role of this choice: clients join what they get twice."""

    def change(fields: dict[str, Raw]) -> None:
        choices = chunks.objects(fields["choices"])
        for choice in choices:
            if msgspec.json.decode(choice.get("index", b"0")) == index and "delta" in choice:
                said = chunks.fields_of(choice["delta"])
                said.pop("role", None)
                choice["delta"] = chunks.raw_of(said)
        fields["choices"] = chunks.raw_of(choices)

    return chunks.edit_object(data, change)


def _end_of_model(data: bytes, head: chunks.Head) -> int:
    """Where the value of ``model`` ends, if everything up to there is a whole head; else 0.

    Within a JSON string quotes are escaped, so the needle is a real key and value; a single brace before it
    says that it stands at the top level.
    """
    if not head.is_whole(_OBJECT):
        return 0
    for needle in (b'"model":', b'"model": '):
        needle += _json(head.model)
        at = data.find(needle)
        if at < 0:
            continue
        before, end = data[:at], at + len(needle)
        if before.count(b"{") != 1 or b"[" in before:
            return 0
        try:
            seen = chunks.decode_head(data[:end] + b"}")
        except msgspec.DecodeError:
            return 0
        return end if seen == head else 0
    return 0


def _put_first(fields: dict[str, Raw], own: dict[str, Raw]) -> None:
    """Put ``own`` before the other fields, so that the next chunk begins with a head that can be learnt."""
    rest = {key: value for key, value in fields.items() if key not in own}
    fields.clear()
    fields.update(own)
    fields.update(rest)
