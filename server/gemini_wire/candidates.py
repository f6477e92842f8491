"""What each candidate of one answer says → deltas of its choice, and how it ended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from server.deltas import (
    Delta,
    Extra,
    Finished,
    Opening,
    Original,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
)
from server.errors import UpstreamCut, UpstreamInvalid
from server.gemini_wire.events import Blob, Candidate, FunctionCall, Part, Probabilities, Token

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
_UNSAID = ("", "FINISH_REASON_UNSPECIFIED")


class Candidates:
    """The candidates of one answer.

    ``answer_id`` goes into the ids of calls that came without one. ``begun``: has any candidate begun?
    ``spoken``: has any said something? ``unknown`` counts parts of kinds that nobody knows.
    """

    def __init__(self, answer_id: str) -> None:
        self.spoken = False
        self.unknown = 0
        self._answer_id = answer_id
        self._choices: dict[int, _Choice] = {}

    @property
    def begun(self) -> bool:
        return bool(self._choices)

    def take(self, candidate: Candidate) -> list[Delta]:
        """The next of what a candidate says. Raises ``UpstreamInvalid`` if it ended without sense."""
        index = candidate.index or 0
        if not 0 <= index < MOST_CANDIDATES:
            raise UpstreamInvalid("The upstream's answer has a candidate of an odd number; try again.")
        deltas: list[Delta] = []
        choice = self._choices.get(index)
        if choice is None:
            choice = self._choices[index] = _Choice()
            deltas.append(Opening(index))
        for part in (candidate.content.parts if candidate.content else None) or ():
            deltas += self._part(choice, index, part)
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
            if choice.signature:
                deltas.append(_extra(index, {"extra_content": _signed(choice.signature)}))
            deltas.append(_finished(index, choice.reason, called=bool(choice.calls)))
        return deltas

    @property
    def silent(self) -> bool:
        """Did the answer end in good order without a word?"""
        return not self.spoken and all(choice.reason == "STOP" for choice in self._choices.values())

    def _part(self, choice: _Choice, index: int, part: Part) -> Sequence[Delta]:
        if (call := part.function_call) is not None:
            self.spoken = True
            return [self._call(choice, index, call, part.thought_signature)]
        if part.thought_signature:
            choice.signature = part.thought_signature
        if part.text:
            self.spoken = True
            return [ReasoningDelta(part.text, index) if part.thought else TextDelta(part.text, index)]
        if part.inline_data is not None:
            self.spoken = True
            return [_image(index, part.inline_data)]
        if part.text is None and not part.thought_signature:
            self.unknown += 1
        return ()

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
        original = _chunk(index, {"tool_calls": [said]})
        return ToolCallDelta(position, id, call.name, arguments, index, original)


class _Choice(msgspec.Struct):
    """How far one candidate is. ``calls`` are their ids; ``signature`` is the last that came with no call."""

    calls: list[str] = []
    signature: str = ""
    reason: str | None = None


def _signed(signature: str) -> dict[str, Any]:
    """Where the vendor's own OpenAI mode has a signature, and where it is taken back from."""
    return {"google": {"thought_signature": signature}}


def _image(index: int, blob: Blob) -> Delta:
    url = f"data:{blob.mime_type};base64,{blob.data}"
    return _extra(index, {"images": [{"type": "image_url", "image_url": {"url": url}}]})


def _log_probabilities(index: int, told: Probabilities) -> list[Delta]:
    """As OpenAI has them."""
    chosen = told.chosen_candidates or []
    tops = [ranking.candidates or [] for ranking in told.top_candidates or ()]
    content = [
        _token(token) | {"top_logprobs": [_token(one) for one in (tops[at] if at < len(tops) else ())]}
        for at, token in enumerate(chosen)
    ]
    logprobs = {"content": content, "refusal": None}
    return [Extra(_chunk(index, {}, logprobs=logprobs))] if content else []


def _token(token: Token) -> dict[str, Any]:
    said = token.token
    return {"token": said, "logprob": token.log_probability, "bytes": [*said.encode(errors="replace")]}


def _extra(index: int, delta: dict[str, Any]) -> Delta:
    return Extra(_chunk(index, delta))


def _chunk(index: int, delta: dict[str, Any], **choice: Any) -> Original:
    whole = {"index": index, "delta": delta, "finish_reason": None} | choice
    return Original("openai.chunk", msgspec.json.encode({"choices": [whole]}))


def _finished(index: int, native: str, *, called: bool) -> Finished:
    """Our word for how it ended; where that says less than the vendor's, its own goes along."""
    reason = _REASONS.get(native, "stop")
    if reason == "stop" and called:
        reason = "tool_calls"
    if native in ("STOP", "MAX_TOKENS"):
        return Finished(reason, index)
    original = _chunk(index, {}, finish_reason=reason, native_finish_reason=native)
    return Finished(reason, index, original)
