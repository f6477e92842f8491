"""Deltas → the events of a Messages stream."""

from __future__ import annotations

from typing import Any, assert_never

import msgspec
from msgspec import Raw

from server.deltas import Batch, Usage
from server.errors import ServerError
from server.messages_wire.errors import error_body
from server.messages_wire.speech import Begin, Cited, End, Piece, Speech, Step, head_fields, usage_fields

PING = b'event: ping\ndata: {"type":"ping"}\n\n'
"""Fills a silence; never before ``message_start``, where the SDK takes nothing else."""

_json = msgspec.json.encode
_PIECES = {
    "text": b'{"type":"text_delta","text":',
    "thinking": b'{"type":"thinking_delta","thinking":',
    "signature": b'{"type":"signature_delta","signature":',
    "partial_json": b'{"type":"input_json_delta","partial_json":',
}
_PIECE = b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,"delta":%b%b}}\n\n'
_CITED = (
    b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,'
    b'"delta":{"type":"citations_delta","citation":%b}}\n\n'
)
_END = b'event: content_block_stop\ndata: {"type":"content_block_stop","index":%d}\n\n'
_STOP = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
_NO_FIGURES = usage_fields(Usage())


class MessagesEncoder:
    """One client's stream. ``thoughts``: does it want to see what the model thinks?

    What the prompt cost is known at the end only, and told there, in ``message_delta``.
    """

    def __init__(self, *, model: str, id: str, request_id: str, thoughts: bool) -> None:
        self._start = head_fields(id, model)
        self._request_id = request_id
        self._speech = Speech(thoughts=thoughts)
        self._started = False

    @property
    def warnings(self) -> tuple[str, ...]:
        """What could not be told, after ``finish``."""
        return self._speech.left.warnings

    def encode(self, batch: Batch) -> bytes:
        """The events of a batch, joined for one write."""
        said = b"".join([_event(step) for step in self._speech.say(batch)])
        return said if self._started else self._begin() + said

    def finish(self, usage: Usage | None, antiphon: bytes | None = None) -> bytes:
        """The end of a complete answer. Raises ``UpstreamInvalid`` for one that cannot be told."""
        last = b"".join([_event(step) for step in self._speech.end()])
        told: dict[str, Any] = {
            "type": "message_delta",
            "delta": self._speech.end_fields,
            "usage": usage_fields(self._speech.usage or usage or Usage(estimated=True)),
        }
        if (managed := self._speech.context_management) is not None:
            told["context_management"] = managed
        if beside := self._speech.left.beside(antiphon, images=self._speech.images):
            told["antiphon"] = Raw(beside)
        begun = b"" if self._started else self._begin()
        return begun + last + _named("message_delta", told) + _STOP

    def fail(self, error: ServerError) -> bytes:
        """An error event, and no ``message_stop``."""
        return b"event: error\ndata: " + error_body(error, self._request_id) + b"\n\n"

    def _begin(self) -> bytes:
        self._started = True
        message = self._start | {"stop_reason": None, "stop_sequence": None, "usage": _NO_FIGURES}
        return _named("message_start", {"type": "message_start", "message": message})


def _event(step: Step) -> bytes:
    match step:
        case Piece(index, kind, text):
            return _PIECE % (index, _PIECES[kind], _json(text))
        case Begin(index, block):
            started = {"type": "content_block_start", "index": index, "content_block": block}
            return _named("content_block_start", started)
        case Cited(index, citation):
            return _CITED % (index, _json(citation))
        case End(index):
            return _END % index
        case _ as never:
            assert_never(never)


def _named(name: str, fields: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), _json(fields))
