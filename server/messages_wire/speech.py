"""Deltas → the blocks of a message: when each begins, its pieces, when it ends.

One state machine for the stream and for the whole message, so the two cannot differ. Blocks begin in the
order of what is said; a block ends when the next begins, but for a call whose arguments are not whole yet:
where an upstream sends the pieces of several calls in turns, their blocks are open side by side.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, assert_never

import msgspec

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
from server.errors import UpstreamInvalid
from server.foreign import OWN_EXTRA
from server.foreign_answer import figure
from server.messages_wire.beside import UNSIGNED, citation_of, image_block
from server.openai_wire import Details, Kept, LeftOut, kept_in, sealed

_REASONS = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}
# What the service says of the end beside its reason; ``_Ending`` reads it.
_OF_THE_END = ("stop_details", "container", "context_management")
_NATIVE = b'"native_finish_reason"'
_NATIVE_REASONS = ("stop_sequence", "pause_turn", "model_context_window_exceeded", "compaction")


class Begin(msgspec.Struct, frozen=True, gc=False):
    """Block ``index`` begins; ``block`` is it without what its pieces will bring."""

    index: int
    block: dict[str, Any]


class Piece(msgspec.Struct, frozen=True, gc=False):
    """The next piece of block ``index``."""

    index: int
    kind: Literal["text", "thinking", "signature", "partial_json"]
    text: str


class Cited(msgspec.Struct, frozen=True, gc=False):
    """Where the text of block ``index`` comes from."""

    index: int
    citation: dict[str, Any]


class End(msgspec.Struct, frozen=True, gc=False):
    """Block ``index`` is complete."""

    index: int


Step: TypeAlias = Begin | Piece | Cited | End


class _Call(msgspec.Struct):
    """A tool call that has begun."""

    index: int
    arguments: list[str]
    ended: bool = False

    def is_whole(self) -> bool:
        """Do its arguments make a JSON object?"""
        try:
            return isinstance(msgspec.json.decode("".join(self.arguments)), dict)
        except (msgspec.DecodeError, RecursionError):
            return False


class _Ending(msgspec.Struct):
    native_finish_reason: str | None = None
    stop_sequence: str | None = None
    stop_details: Any = None
    container: Any = None
    context_management: Any = None


class _Chunk(msgspec.Struct):
    choices: list[_Ending] = []


_CHUNK = msgspec.json.Decoder(_Chunk)


class Speech:
    """One answer as blocks.

    With ``thoughts`` what the model thinks becomes blocks of thinking; signed thoughts always do, for they
    must come back. What a vendor puts beside a call comes back sealed in a block of redacted thinking before
    it, as ``[{"call": id, "extra_content"}]``, what it puts beside the text in one behind it, without the id;
    ``reasoning_details`` that must come back in one behind the thoughts, as ``[{"reasoning_details"}]``.
    ``end_fields`` and ``usage`` are known after the last batch, as are ``images``, pictures that no block can
    show, and what was ``left`` out.
    """

    def __init__(self, *, thoughts: bool) -> None:
        self.usage: Usage | None = None
        self.images: list[dict[str, Any]] = []
        self.left = LeftOut()
        self._ending = _Ending()
        self._thoughts = thoughts
        self._count = 0
        self._open: tuple[str, int] | None = None  # kind and index of the text or thoughts under way
        self._calls: dict[int, _Call] = {}
        self._call: _Call | None = None  # the one that came last, while nothing came behind it
        self._reason = "stop"
        self._refused = False
        self._broken = False
        self._thought = False  # have the thoughts come whole, before any of their pieces?
        self._extras: dict[int, Any] = {}  # by position, of calls that have not begun
        self._unheard = False  # were there thoughts that nobody wants to see, and that are not signed?
        self._sources: list[dict[str, Any]] = []  # that wait for their text
        self._cited: set[bytes] = set()
        self._details = Details()

    @property
    def end_fields(self) -> dict[str, Any]:
        """How the answer ended, as a message tells it."""
        ending = self._ending
        fields = {"stop_reason": self.stop_reason, "stop_sequence": ending.stop_sequence}
        more = {"stop_details": ending.stop_details, "container": ending.container}
        return fields | {key: value for key, value in more.items() if value is not None}

    @property
    def context_management(self) -> Any:
        """What the service did to the conversation, in its own words; None: nothing."""
        return self._ending.context_management

    @property
    def stop_reason(self) -> str:
        """Why the answer ended, in Anthropic's word."""
        if self._ending.native_finish_reason in _NATIVE_REASONS:
            return self._ending.native_finish_reason
        if self._refused and self._reason == "stop":
            return "refusal"
        if self._calls and self._reason == "stop":
            return "tool_use"
        return _REASONS.get(self._reason, "end_turn")

    def say(self, batch: Batch) -> list[Step]:
        """What a batch brings. Only the first choice is heard: no other can be asked for."""
        steps: list[Step] = []
        for delta in batch:
            original = delta.original
            if original is not None and original.data and (kept := kept_in(original.data)) is not None:
                self._thought |= original.form == "openai.completion" and bool(kept.blocks)
                self._take_kept(kept, steps)
            if type(delta) in (TextDelta, ToolCallDelta, Finished):
                self._seal_details(steps)
            self._take(delta, steps)
            if self._sources:
                self._cite(steps)
        return steps

    def end(self) -> list[Step]:
        """The answer is complete: what is still open ends.

        Raises ``UpstreamInvalid`` if a call's arguments are not a JSON object, for which this dialect has no
        word, unless the answer was cut short by its limit of tokens.
        """
        steps: list[Step] = []
        if self._sources:
            self.left.note(["annotations"])
        if self._details.lost:
            self.left.note(["reasoning_details"])
        if self._unheard:
            self.left.note(["thinking"])
        self._close(steps)
        for call in self._calls.values():
            if not call.ended:
                if any(piece.strip() for piece in call.arguments):
                    self._broken |= not call.is_whole()
                self._end_call(call, steps)
        if self._broken and self.stop_reason != "max_tokens":
            raise UpstreamInvalid("The model wrote arguments of a tool that are no JSON object; try again.")
        return steps

    def _take(self, delta: Delta, steps: list[Step]) -> None:
        match delta:
            case TextDelta(text, 0):
                if text:
                    self._words("text", text, steps)
            case RefusalDelta(text, 0):
                self._refused = True
                self._words("text", text, steps)
            case ReasoningDelta(text, 0):
                if not self._thoughts:
                    self._unheard = not self._thought
                elif text and not self._thought:
                    self._words("thinking", text, steps)
            case ToolCallDelta() if delta.index == 0:
                self._take_call(delta, steps)
            case Finished(reason, 0, original):
                self._reason = reason
                if original is not None and _NATIVE in original.data:
                    self._note_native(original.data)
            case UsageDelta(usage):
                self.usage = usage
            case Finished():
                self.left.note(["choices"], "but the first were left out")
            case Extra() | Opening() | TextDelta() | RefusalDelta() | ReasoningDelta() | ToolCallDelta():
                pass
            case _ as never:
                assert_never(never)

    def _take_kept(self, kept: Kept, steps: list[Step]) -> None:
        """What stands beside the deltas."""
        self.left.note(name for name in kept.left if name not in _OF_THE_END)
        self._extras |= kept.extras
        for block in kept.blocks:
            self._keep(block, steps)
        self._details.add(kept.details)
        if kept.thought:
            self._take(ReasoningDelta(kept.thought), steps)
        if kept.begins:
            self._close(steps)
            if kept.citations:
                self._begin_words("text", steps)
        if kept.citations:
            self._sources += kept.citations
        elif kept.sources:
            made = [citation_of(source) for source in kept.sources]
            self._sources += [citation for citation in made if citation is not None]
            if None in made:
                self.left.note(["annotations"])
        if kept.transcript:
            self._words("text", kept.transcript, steps)
        for call in kept.calls:
            self._take_call(call, steps)
        for uri in kept.images:
            self._show(uri, steps)
        if kept.extra:
            data = sealed([{"extra_content": kept.extra}])
            self._keep({"type": "redacted_thinking", "data": data}, steps)

    def _show(self, uri: str, steps: list[Step]) -> None:
        """A picture: by its link within the text, or beside the message, where its data does no harm."""
        block = image_block(uri)
        if block is None:
            self._words("text", f"![image]({uri})", steps)
        else:
            self.images.append(block)
            self.left.note(["images"], "are in antiphon.images alone")

    def _cite(self, steps: list[Step]) -> None:
        """Sources belong to the text under way; those that come before it wait for it. Once each."""
        if self._open is None or self._open[0] != "text":
            return
        sources, self._sources = self._sources, []
        for source in sources:
            if (key := msgspec.json.encode([self._open[1], source])) not in self._cited:
                self._cited.add(key)
                steps.append(Cited(self._open[1], source))

    def _note_native(self, data: bytes) -> None:
        """The end in the service's own words, where that is this dialect's and not some other vendor's."""
        ending = _CHUNK.decode(data).choices[0]
        more = ending.stop_details or ending.container or ending.context_management
        if more or ending.native_finish_reason in _NATIVE_REASONS:
            self._ending = ending

    def _words(self, kind: Literal["text", "thinking"], text: str, steps: list[Step]) -> None:
        if self._open is None or self._open[0] != kind:
            self._close(steps)
            self._begin_words(kind, steps)
        assert self._open is not None
        steps.append(Piece(self._open[1], kind, text))

    def _begin_words(self, kind: Literal["text", "thinking"], steps: list[Step]) -> None:
        block = {"type": kind, kind: ""}
        if kind == "thinking":
            block["signature"] = ""
        self._open = (kind, self._begin(block, steps))

    def _keep(self, kept: dict[str, Any], steps: list[Step]) -> None:
        """A block that must come back as it is: signed thoughts, or what only the service can read."""
        if kept.get("type") != "thinking":
            self._close(steps)
            steps.append(End(self._begin(kept, steps)))
            return
        if self._open is None or self._open[0] != "thinking":
            self._words("thinking", str(kept.get("thinking") or ""), steps)
        self._unheard = False
        assert self._open is not None
        steps.append(Piece(self._open[1], "signature", str(kept.get("signature") or "")))
        self._close(steps, signed=True)

    def _seal_details(self, steps: list[Step]) -> None:
        """The thoughts have ended, or the answer has."""
        if details := self._details.take():
            self._unheard = False
            self._keep({"type": "redacted_thinking", "data": sealed([{"reasoning_details": details}])}, steps)

    def _take_call(self, delta: ToolCallDelta, steps: list[Step]) -> None:
        call = self._calls.get(delta.position)
        if call is None:
            self._close(steps)
            id = delta.id or f"call_{delta.position}"
            extra = self._extras.pop(delta.position, None)
            own = extra.pop(OWN_EXTRA, None) if isinstance(extra, dict) else None
            if extra:
                data = sealed([{"call": id, "extra_content": extra}])
                self._keep({"type": "redacted_thinking", "data": data}, steps)
            block = {"type": "tool_use", "id": id, "name": delta.name or "", "input": {}}
            block = (own if isinstance(own, dict) else {}) | block
            call = self._calls[delta.position] = _Call(self._begin(block, steps), [])
            self._call = call
        if delta.arguments:
            if call.ended:
                self._broken = True
                return
            call.arguments.append(delta.arguments)
            steps.append(Piece(call.index, "partial_json", delta.arguments))

    def _begin(self, block: dict[str, Any], steps: list[Step]) -> int:
        index = self._count
        self._count += 1
        steps.append(Begin(index, block))
        return index

    def _close(self, steps: list[Step], *, signed: bool = False) -> None:
        """Something else begins: end the text or the thoughts under way, or a call that is whole."""
        if self._open is not None:
            if self._open[0] == "thinking" and not signed:
                steps.append(Piece(self._open[1], "signature", UNSIGNED))
            steps.append(End(self._open[1]))
            self._open = None
        if self._call is not None:
            if self._call.is_whole():
                self._end_call(self._call, steps)
            self._call = None

    def _end_call(self, call: _Call, steps: list[Step]) -> None:
        call.ended = True
        call.arguments.clear()
        steps.append(End(call.index))


def usage_fields(usage: Usage) -> dict[str, Any]:
    """The figures as Anthropic counts them: what a cache gave or took is not among ``input_tokens``.

    The service's own object, where the answer came from there.
    """
    cached = written = 0
    if usage.raw is not None:
        raw = msgspec.json.decode(usage.raw)
        native = raw.get("native_usage")
        if isinstance(native, dict) and "input_tokens" in native:
            return {"input_tokens": 0, "output_tokens": 0} | native
        details = raw.get("prompt_tokens_details")
        details = details if isinstance(details, dict) else {}
        cached, written = figure(details, "cached_tokens"), figure(details, "cache_write_tokens")
    cached = min(cached, usage.prompt_tokens)
    written = min(written, usage.prompt_tokens - cached)
    fields: dict[str, Any] = {
        "input_tokens": usage.prompt_tokens - cached - written,
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": cached,
        "output_tokens": usage.completion_tokens,
    }
    return fields | {"estimated": True} if usage.estimated else fields


def head_fields(id: str, model: str) -> dict[str, Any]:
    """A message before anything was said."""
    return {"id": id, "type": "message", "role": "assistant", "model": model, "content": []}
