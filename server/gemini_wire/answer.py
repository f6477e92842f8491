"""The bytes of an answer → deltas, whether a stream, one object or an array of them came."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Raw

from server.deltas import Delta, Usage, UsageDelta
from server.errors import ContentFiltered, UpstreamCut, UpstreamEmpty, UpstreamInvalid
from server.foreign_answer import ForeignReader, figure, nothing_but_garbage
from server.gemini_wire.candidates import Candidates
from server.gemini_wire.errors import fault_error
from server.gemini_wire.events import Said, decode_list, decode_said

# The service never says so; proxies that serve its dialect do.
_DONE = b"[DONE]"


class GeminiReader(ForeignReader):
    """Takes the bytes of one answer as they come, and says what they mean; see ``ForeignReader``.

    The service ends a stream by closing it, so ``eof`` gives the last deltas, or raises: only a finish reason
    makes an answer whole. Before that ``done`` is true after an error alone. ``answer_id`` goes into the ids
    of calls that came without one. ``skipped`` counts what nobody knows.
    """

    json_begins = (b"{", b"[")

    def __init__(self, answer_id: str) -> None:
        super().__init__()
        self._candidates = Candidates(answer_id)
        self._heard = False
        self._usage = Raw()

    @property
    def skipped(self) -> int:
        """Events that cannot be read, and parts of a kind that is not known: they were passed over."""
        return self._candidates.unknown + self.garbage

    def eof(self) -> Sequence[Delta]:
        """The body ended in good order: the last deltas."""
        deltas = self._ended()
        if self._json is not None:
            for said in _read_whole(b"".join(self._json)):
                deltas += self._said(said)
        self.done = True
        return [*deltas, *self._end()]

    def _event(self, data: bytes) -> Sequence[Delta]:
        if data == _DONE:
            return ()
        self.quiet = False
        try:
            said = decode_said(data)
        except msgspec.ValidationError:
            raise UpstreamInvalid("The upstream sent an event that cannot be read; try again.") from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self.garbage += 1
            return ()
        return self._said(said)

    def _last(self, data: bytes) -> Sequence[Delta]:
        """As the base has it; but what makes no sense once it is read was no half of an event."""
        try:
            said = decode_said(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return ()
        return self._said(said)

    def _whole_events(self, data: bytes) -> list[bytes] | None:
        """A line of data each, with CRLF or LF."""
        if data.endswith(b"\r\n\r\n"):
            end = len(data) - 4
            if data.startswith(b"data: ") and data.find(b"\r") == end and data.find(b"\n") == end + 1:
                return [data[6:end]]  # one, as they come
            events, line_ends = data[:-4].split(b"\r\n\r\n"), data.count(b"\r")
        elif data.endswith(b"\n\n") and b"\r" not in data:
            events, line_ends = data[:-2].split(b"\n\n"), data.count(b"\n")
        else:
            return None
        if line_ends != 2 * len(events) or data.count(b"\n") != line_ends:
            return None
        found = [event[6:] for event in events if event.startswith(b"data: ")]
        return found if len(found) == len(events) else None

    def _said(self, said: Said) -> list[Delta]:
        self._heard = True
        if said.error is not None:
            raise fault_error(said.error)
        if said.usage_metadata:  # cumulative: each replaces the one before
            self._usage = said.usage_metadata
        deltas: list[Delta] = []
        for candidate in said.candidates or ():
            deltas += self._candidates.take(candidate)
        feedback = said.prompt_feedback
        if feedback is not None and feedback.block_reason and not self._candidates.begun:
            raise ContentFiltered(
                "The upstream's moderation refused the request; change what it says and send it again."
            )
        return deltas

    def _end(self) -> list[Delta]:
        candidates = self._candidates
        if self.garbage and not self._heard:
            raise nothing_but_garbage()
        if not self._heard or (not candidates.begun and self._json is not None):
            raise UpstreamEmpty("The upstream answered with nothing at all; try again later.")
        if not candidates.begun:
            raise UpstreamCut("The upstream's answer was cut off before its end; try again.")
        deltas = candidates.end()
        usage = _figures(self._usage)
        if candidates.silent and not figure(usage, "candidatesTokenCount"):
            raise UpstreamEmpty("The upstream answered without any content; try again later.")
        return [*deltas, UsageDelta(usage_of(usage))] if usage else deltas


def _read_whole(body: bytes) -> list[Said]:
    """The object of a plain answer, or the array that a stream without events is."""
    try:
        return decode_list(body) if body.startswith(b"[") else [decode_said(body)]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise UpstreamInvalid(
            "The upstream's answer cannot be read; check base_url of the channel."
        ) from None


def _figures(usage: Raw) -> dict[str, Any]:
    """The usage as it came last; none where there was none, or nothing of the kind."""
    found = msgspec.json.decode(usage) if bytes(usage) else None
    return found if isinstance(found, dict) else {}


def usage_of(native: dict[str, Any]) -> Usage:
    """The figures in our terms; the upstream's own are kept beside them, under ``native_usage``."""
    prompt = figure(native, "promptTokenCount") + figure(native, "toolUsePromptTokenCount")
    thoughts = figure(native, "thoughtsTokenCount")
    completion = figure(native, "candidatesTokenCount") + thoughts
    fields: dict[str, Any] = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": figure(native, "cachedContentTokenCount")},
        "completion_tokens_details": {"reasoning_tokens": thoughts},
        "native_usage": native,
    }
    return Usage(prompt, completion, prompt + completion, raw=msgspec.json.encode(fields))
