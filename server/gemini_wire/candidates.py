"""What each candidate of one answer says → deltas of its choice, and how it ended."""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from msgspec import Raw

from server.deltas import (
    Delta,
    Extra,
    Finished,
    Opening,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
)
from server.errors import UpstreamCut, UpstreamInvalid
from server.foreign_answer import chunk_of, extra
from server.gemini_wire.events import (
    CANDIDATE,
    Blob,
    Code,
    FunctionCall,
    Outcome,
    Part,
    Probabilities,
    Token,
    decode_candidate,
    decode_fields,
    decode_part,
)
from server.gemini_wire.sources import Spoken, annotations_of

_REASONS = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    **dict.fromkeys(
        (
            "SAFETY",
            "RECITATION",
            "BLOCKLIST",
            "PROHIBITED_CONTENT",
            "SPII",
            "MODEL_ARMOR",
            "IMAGE_SAFETY",
            "IMAGE_PROHIBITED_CONTENT",
            "IMAGE_RECITATION",
        ),
        "content_filter",
    ),
}
# The model went astray: what it wanted to say was thrown away.
_FAILED = frozenset(
    {
        "MALFORMED_FUNCTION_CALL",
        "MALFORMED_RESPONSE",
        "UNEXPECTED_TOOL_CALL",
        "TOO_MANY_TOOL_CALLS",
        "MISSING_THOUGHT_SIGNATURE",
    }
)
# The service gives eight at most.
MOST_CANDIDATES = 128
_TICKS = re.compile(r"^`{3,}", re.MULTILINE)
_NOTHING = (b"null", b"[]", b"{}", b'""')
_format = msgspec.json.format
_UNSAID = ("", "FINISH_REASON_UNSPECIFIED")


class Candidates:
    """The candidates of one answer.

    ``answer_id`` goes into the ids of calls that came without one. ``begun``: has any candidate begun?
    ``spoken``: has any said something? ``unknown`` counts parts of kinds that nobody knows; they are
    passed on as they came.
    """

    def __init__(self, answer_id: str) -> None:
        self.spoken = False
        self.unknown = 0
        self._answer_id = answer_id
        self._choices: dict[int, _Choice] = {}

    @property
    def begun(self) -> bool:
        return bool(self._choices)

    def take(self, raw: Raw) -> list[Delta]:
        """The next of what a candidate says. Raises ``UpstreamInvalid`` if it ended without sense."""
        try:
            return self._take(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise UpstreamInvalid("The upstream sent a candidate that cannot be read; try again.") from None

    def _take(self, raw: Raw) -> list[Delta]:
        candidate = decode_candidate(raw)
        index = candidate.index or 0
        if not 0 <= index < MOST_CANDIDATES:
            raise UpstreamInvalid("The upstream's answer has a candidate of an odd number; try again.")
        deltas: list[Delta] = []
        choice = self._choices.get(index)
        if choice is None:
            choice = self._choices[index] = _Choice(Spoken())
            deltas.append(Opening(index))
        for part in (candidate.content.parts if candidate.content else None) or ():
            deltas += self._part(choice, index, part)
        # Cumulative: each replaces the one before.
        more = {key: value for key, value in decode_fields(raw).items() if key not in CANDIDATE}
        choice.metadata |= {key: value for key, value in more.items() if bytes(value) not in _NOTHING}
        if candidate.logprobs_result is not None:
            deltas += _log_probabilities(index, candidate.logprobs_result)
        if (reason := candidate.finish_reason) is not None:
            if reason in _FAILED:
                raise UpstreamInvalid(f"The upstream's model went astray ({reason}); try again.")
            if reason not in _UNSAID:
                choice.reason = reason
        return deltas

    def end(self) -> list[Delta]:
        """How each ended. Raises ``UpstreamCut`` if one did not."""
        deltas: list[Delta] = []
        for index, choice in sorted(self._choices.items()):
            if choice.reason is None:
                raise UpstreamCut("The upstream's answer was cut off before its end; try again.")
            deltas += _told_at_the_end(index, choice)
            if choice.signature:
                deltas.append(extra({"extra_content": _signed(choice.signature)}, index))
            deltas.append(_finished(index, choice.reason, called=bool(choice.calls)))
        return deltas

    @property
    def silent(self) -> bool:
        """Did the answer end in good order without a word?"""
        return not self.spoken and all(choice.reason == "STOP" for choice in self._choices.values())

    def _part(self, choice: _Choice, index: int, raw: Raw) -> Sequence[Delta]:
        part = decode_part(raw)
        if (call := part.function_call) is not None:
            self.spoken = True
            return [self._call(choice, index, call, part.thought_signature)]
        if part.thought_signature:
            choice.signature = part.thought_signature
        if part.text:
            self.spoken = True
            if part.thought:
                return [ReasoningDelta(part.text, index)]
            choice.said.add(part.text)
            return [TextDelta(part.text, index)]
        if part.text is not None:
            return ()
        return self._other(choice, index, part, raw)

    def _other(self, choice: _Choice, index: int, part: Part, raw: Raw) -> Sequence[Delta]:
        """What is no words of the model's."""
        if decode_fields(raw).keys() <= {"thoughtSignature", "thought"}:
            return ()
        self.spoken = True
        if part.inline_data is not None:
            return [self._data(choice, index, part.inline_data)]
        if part.executable_code is not None or part.code_execution_result is not None:
            text = _fenced(part.executable_code, part.code_execution_result)
            text = text if choice.said.begun else text.lstrip("\n")
            choice.said.add(text)
            return [TextDelta(text, index)]
        if (file := part.file_data) is not None and file.mime_type.startswith("image/"):
            return [choice.image(index, file.file_uri)]
        self.unknown += part.file_data is None
        return [choice.listed(index, "native_parts", msgspec.json.decode(raw))]

    def _data(self, choice: _Choice, index: int, blob: Blob) -> Delta:
        """A picture, a sound or a file."""
        uri = f"data:{blob.mime_type};base64,{blob.data}"
        if blob.mime_type.startswith("image/"):
            return choice.image(index, uri)
        if not blob.mime_type.startswith("audio/"):
            return choice.listed(index, "files", {"type": "file", "file": {"file_data": uri}})
        piece: dict[str, Any] = {"data": _aligned(choice, blob.data)}
        if not choice.sounds:
            head = {"id": f"audio_{self._answer_id}_{index}", "format": blob.mime_type, "expires_at": 0}
            piece = {**head, **piece, "transcript": ""}
        choice.sounds += 1
        return extra({"audio": piece}, index)

    def _call(self, choice: _Choice, index: int, call: FunctionCall, signature: str | None) -> Delta:
        position = len(choice.calls)
        id = call.id if call.id and call.id not in choice.calls else None
        id = id or f"call_{self._answer_id}_{index}_{position}"
        choice.calls.append(id)
        whole = bytes(call.args).startswith(b"{")
        arguments = msgspec.json.format(bytes(call.args), indent=-1).decode() if whole else "{}"
        if not signature:
            return ToolCallDelta(position, id, call.name, arguments, index)
        said = {
            "index": position,
            "id": id,
            "type": "function",
            "function": {"name": call.name, "arguments": arguments},
            "extra_content": _signed(signature),
        }
        original = chunk_of({"tool_calls": [said]}, index)
        return ToolCallDelta(position, id, call.name, arguments, index, original)


class _Choice(msgspec.Struct):
    """How far one candidate is. ``calls`` are their ids; ``signature`` is the last that came with no call.

    ``metadata`` is what the service tells of the candidate beside what it says, as it came last.
    """

    said: Spoken
    calls: list[str] = []
    signature: str = ""
    reason: str | None = None
    sounds: int = 0
    rest: bytes = b""  # of the sound, that makes no whole group of base64
    metadata: dict[str, Raw] = {}
    lengths: dict[str, int] = {}  # of the lists that grow piece by piece

    def image(self, index: int, url: str) -> Delta:
        """A picture."""
        return self.listed(index, "images", {"type": "image_url", "image_url": {"url": url}})

    def listed(self, index: int, field: str, value: dict[str, Any]) -> Delta:
        """The next object of a list; its ``index`` is for clients that join the pieces of a stream."""
        at = self.lengths.get(field, 0)
        self.lengths[field] = at + 1
        return extra({field: [{"index": at} | value]}, index)


def _signed(signature: str) -> dict[str, Any]:
    """Where the vendor's own OpenAI mode has a signature, and where it is taken back from."""
    return {"google": {"thought_signature": signature}}


def _fenced(code: Code | None, result: Outcome | None) -> str:
    """A program that the service runs, or what became of it, as code in the text."""
    if code is not None:
        said, info = code.code, code.language.lower()
    else:
        assert result is not None  # one of both
        said, outcome = result.output, result.outcome.removeprefix("OUTCOME_").lower()
        info = "output" if outcome in ("", "ok") else f"output ({outcome})"
    ticks = max((len(found[0]) for found in _TICKS.finditer(said)), default=2)
    fence = "`" * max(3, ticks + 1)
    return f"\n{fence}{info}\n{said.rstrip(chr(10))}\n{fence}\n"


def _aligned(choice: _Choice, data: str) -> str:
    """The next piece of a sound in base64 that clients may join to the pieces before it."""
    try:
        sound = choice.rest + binascii.a2b_base64(data)
    except binascii.Error:
        return data
    whole = len(sound) // 3 * 3
    choice.rest = sound[whole:]
    return binascii.b2a_base64(sound[:whole], newline=False).decode()


def _told_at_the_end(index: int, choice: _Choice) -> Iterator[Delta]:
    """The end of a sound, the sources, and all that the service tells of the candidate, as it came."""
    if choice.rest:
        rest = binascii.b2a_base64(choice.rest, newline=False).decode()
        yield extra({"audio": {"data": rest}}, index)
    if choice.metadata:
        sources = annotations_of(choice.metadata, choice.said)
        cited = {"annotations": [{"index": at} | one for at, one in enumerate(sources)]} if sources else {}
        told = {key: Raw(_format(bytes(value), indent=-1)) for key, value in choice.metadata.items()}
        yield extra(cited | {"native_metadata": told}, index)


def _log_probabilities(index: int, told: Probabilities) -> list[Delta]:
    """As OpenAI has them."""
    chosen = told.chosen_candidates or []
    tops = [ranking.candidates or [] for ranking in told.top_candidates or ()]
    content = [
        _token(token) | {"top_logprobs": [_token(one) for one in (tops[at] if at < len(tops) else ())]}
        for at, token in enumerate(chosen)
    ]
    logprobs = {"content": content, "refusal": None}
    return [Extra(chunk_of({}, index, logprobs=logprobs))] if content else []


def _token(token: Token) -> dict[str, Any]:
    said = token.token
    return {"token": said, "logprob": token.log_probability, "bytes": [*said.encode(errors="replace")]}


def _finished(index: int, native: str, *, called: bool) -> Finished:
    """Our word for how it ended; where that says less than the vendor's, its own goes along."""
    reason = _REASONS.get(native, "stop")
    if reason == "stop" and called:
        reason = "tool_calls"
    if native in ("STOP", "MAX_TOKENS"):
        return Finished(reason, index)
    original = chunk_of({}, index, finish_reason=reason, native_finish_reason=native)
    return Finished(reason, index, original)
