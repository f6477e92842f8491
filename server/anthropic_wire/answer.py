"""The bytes of an answer → deltas, whether a stream or one message came."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from server.anthropic_wire.blocks import Blocks
from server.anthropic_wire.errors import Fault, fault_error
from server.anthropic_wire.events import Event, Message, decode_event, decode_kind, decode_whole
from server.deltas import Delta, Finished, Opening, Original, Usage, UsageDelta
from server.errors import UpstreamCut, UpstreamEmpty, UpstreamInvalid
from server.foreign_answer import ForeignReader, extra, figure, nothing_but_garbage

_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
# Reasons of which our word does not tell everything.
_MORE_EXACT = ("stop_sequence", "model_context_window_exceeded")
_OF_MESSAGES = frozenset(
    (
        *("id", "type", "role", "model", "content", "usage", "stop_reason", "stop_sequence"),
        *("stop_details", "container", "context_management"),
    )
)
_FIELDS = msgspec.json.Decoder(dict[str, Any]).decode
_EVENTS = frozenset(
    {
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
        "ping",
        "error",
    }
)


class MessagesReader(ForeignReader):
    """Takes the bytes of one answer as they come, and says what they mean; see ``ForeignReader``.

    When it is ``done``, ``eof`` gives the last deltas, or raises: nothing but ``message_stop`` makes a stream
    whole. ``skipped`` counts what nobody knows and what is no JSON.
    """

    def __init__(self) -> None:
        super().__init__()
        self._blocks = Blocks()
        self._opened = False
        self._unknown = 0
        self._stop_reason: str | None = None
        self._stop_sequence: str | None = None
        self._beside: dict[str, Any] = {}  # what else the service says of the end
        self._usage: dict[str, Any] = {}

    @property
    def skipped(self) -> int:
        """What was passed over: events that are no JSON, events and pieces of a type that is not known."""
        return self._unknown + self._blocks.unknown + self.garbage

    def eof(self) -> Sequence[Delta]:
        """The body ended in good order: the last deltas."""
        last = self._ended()
        if self._json is not None:
            return self._whole(b"".join(self._json))
        if self._sse is None:
            raise UpstreamEmpty("The upstream answered with nothing at all; try again later.")
        if self.garbage and not self._opened:
            raise nothing_but_garbage()
        if not self.done:
            raise UpstreamCut("The upstream's answer was cut off before its end; try again.")
        return last

    def _whole_events(self, data: bytes) -> list[bytes] | None:
        """A name and a line of data each."""
        if not data.endswith(b"\n\n") or b"\r" in data:
            return None
        events = data[:-2].split(b"\n\n")
        if data.count(b"\n") != 3 * len(events):
            return None
        found = []
        for event in events:
            name, _, said = event.partition(b"\ndata: ")
            if not name.startswith(b"event: ") or not said:
                return None
            found.append(said)
        return found

    def _event(self, data: bytes) -> Sequence[Delta]:
        try:
            event = decode_event(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return self._pass_over(data)
        if event.type != "ping":
            self.quiet = False
        if event.type == "content_block_delta" and event.delta is not None:
            said = self._blocks.piece(event.index, event.delta)
            return self._begun(self._tell(data) if said is None else said)
        return self._other(event, data)

    def _other(self, event: Event, data: bytes) -> Sequence[Delta]:
        match event.type:
            case "message_start":
                if event.message is not None:
                    self._note(event.message.usage)
                    self._note_beside(event.message.container, None, event.message.context_management)
                    self._note_unknown(_FIELDS(data)["message"])
                return self._begun(())
            case "content_block_start" if bytes(event.content_block):
                return self._begun(self._blocks.start(event.index, event.content_block))
            case "content_block_stop":
                return self._blocks.stop(event.index)
            case "message_delta":
                self._note(event.usage)
                if (delta := event.delta) is not None:
                    self._note_beside(delta.container, delta.stop_details, event.context_management)
                    if delta.stop_reason is not None:
                        self._stop_reason, self._stop_sequence = delta.stop_reason, delta.stop_sequence
                return ()
            case "message_stop":
                self.done = True
                return self._begun([*self._blocks.stop_all(), *self._end()])
            case "error":
                raise fault_error(event.error or Fault())
            case "ping":
                return ()
        self._unknown += 1
        return self._begun(self._tell(data))

    def _pass_over(self, data: bytes) -> Sequence[Delta]:
        """Pass over what is no JSON; an event of a type that is not known is told as it came.

        Raises ``UpstreamInvalid`` for any other: it may have been a part of the answer.
        """
        self.quiet = False
        try:
            kind = decode_kind(data).type
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self.garbage += 1
            return ()
        if kind in _EVENTS:
            raise UpstreamInvalid("The upstream sent an event that cannot be read; try again.")
        self._unknown += 1
        return self._begun(self._tell(data))

    def _tell(self, data: bytes) -> Sequence[Delta]:
        """An event that nobody knows, with all that it holds."""
        try:
            event = {"index": self.skipped - 1} | msgspec.json.decode(data, type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return ()
        return [extra({"native_events": [event]})]

    def _begun(self, deltas: Sequence[Delta]) -> Sequence[Delta]:
        if self._opened:
            return deltas
        self._opened = True
        return [Opening(), *deltas]

    def _note(self, usage: dict[str, Any] | None) -> None:
        """Figures are cumulative: each replaces the one before."""
        if usage:
            self._usage |= {key: value for key, value in usage.items() if value is not None}

    def _note_beside(self, container: Any, stop_details: Any, context_management: Any) -> None:
        told = {
            "container": container,
            "stop_details": stop_details,
            "context_management": context_management,
        }
        self._beside |= {key: value for key, value in told.items() if value}

    def _note_unknown(self, message: dict[str, Any]) -> None:
        """Fields of a message that nobody knows yet."""
        self._beside |= {key: one for key, one in message.items() if key not in _OF_MESSAGES and one}

    def _whole(self, body: bytes) -> Sequence[Delta]:
        try:
            message = decode_whole(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise UpstreamInvalid(
                "The upstream's answer is no message; check base_url of the channel."
            ) from None
        if message.error is not None:
            raise fault_error(message.error)
        if message.type != "message":
            raise UpstreamInvalid("The upstream's answer is no message; check base_url of the channel.")
        self._note_unknown(_FIELDS(body))
        return self._said(message)

    def _said(self, message: Message) -> Sequence[Delta]:
        deltas: list[Delta] = []
        try:
            for index, block in enumerate(message.content):
                deltas += self._blocks.start(index, block)
                deltas += self._blocks.stop(index)
        except msgspec.DecodeError:
            raise UpstreamInvalid("The upstream's answer holds a block that cannot be read.") from None
        self._note(message.usage)
        self._stop_reason = message.stop_reason
        self._stop_sequence = message.stop_sequence
        self._note_beside(message.container, message.stop_details, message.context_management)
        self.done = True
        return self._begun([*deltas, *self._end()])

    def _end(self) -> list[Delta]:
        if self._stop_reason is None:
            raise UpstreamCut("The upstream's answer has no stop reason, so it is not whole; try again.")
        reason = _REASONS.get(self._stop_reason)
        usage = usage_of(self._usage)
        if not self._blocks.spoken and reason in (None, "stop") and not usage.completion_tokens:
            raise UpstreamEmpty("The upstream answered without any content; try again later.")
        if reason is None or self._beside or self._stop_reason in _MORE_EXACT:
            finished = _native_finish(reason or "stop", self._stop_reason, self._stop_sequence, self._beside)
        else:
            finished = Finished(reason)
        return [finished, UsageDelta(usage)] if self._usage else [finished]


def _native_finish(reason: str, native: str, sequence: str | None, beside: dict[str, Any]) -> Finished:
    """The end for a reason that our word does not tell fully: the upstream's own words go along."""
    choice = {"index": 0, "delta": {}, "finish_reason": reason, "native_finish_reason": native}
    if sequence is not None:
        choice["stop_sequence"] = sequence
    chunk = {"choices": [choice | beside]}
    return Finished(reason, original=Original("openai.chunk", msgspec.json.encode(chunk)))


def usage_of(native: dict[str, Any]) -> Usage:
    """The figures in our terms; the upstream's own are kept beside them, under ``native_usage``."""
    cached = figure(native, "cache_read_input_tokens")
    written = figure(native, "cache_creation_input_tokens")
    prompt = figure(native, "input_tokens") + written + cached
    completion = figure(native, "output_tokens")
    details = {"cached_tokens": cached}
    if written:
        details["cache_write_tokens"] = written
    fields: dict[str, Any] = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": details,
    }
    if isinstance(parts := native.get("output_tokens_details"), dict):
        fields["completion_tokens_details"] = {"reasoning_tokens": figure(parts, "thinking_tokens")}
    fields["native_usage"] = native
    return Usage(prompt, completion, prompt + completion, raw=msgspec.json.encode(fields))
