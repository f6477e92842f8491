"""The content blocks of one answer → deltas, from their starts, pieces and stops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Raw

from server.anthropic_wire.events import Block, Citation, Piece, decode_block
from server.deltas import Delta, Extra, Original, ReasoningDelta, TextDelta, ToolCallDelta
from server.errors import UpstreamInvalid


class _Open(msgspec.Struct):
    """A block that has begun. ``original`` is it as it came, ``position`` that of a tool call."""

    type: str
    original: Raw
    thinking: list[str]
    signature: str
    position: int = 0
    input: str = ""  # what stands for the arguments if no piece of them comes
    arguments: bool = False


class Blocks:
    """The blocks of one answer. ``spoken``: has the model said anything? ``unknown`` counts odd pieces."""

    def __init__(self) -> None:
        self.spoken = False
        self.unknown = 0
        self._open: dict[int, _Open] = {}
        self._calls = 0
        self._kept = 0  # thinking blocks that were handed on

    def start(self, index: int, raw: Raw) -> Sequence[Delta]:
        """A block begins; some services say all of it at once."""
        try:
            block = decode_block(raw)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise UpstreamInvalid("The upstream sent a block that cannot be read; try again.") from None
        opened = _Open(block.type, raw, [block.thinking] if block.thinking else [], block.signature)
        self._open[index] = opened
        if block.type == "tool_use":
            return [self._call(opened, block)]
        if block.type == "text" and block.text:
            self.spoken = True
            return [TextDelta(block.text)]
        if block.type == "thinking" and block.thinking:
            self.spoken = True
            return [ReasoningDelta(block.thinking)]
        return ()

    def piece(self, index: int, piece: Piece) -> Sequence[Delta]:
        """The next piece of a block."""
        match piece.type:
            case "text_delta":
                if piece.text:
                    self.spoken = True
                    return [TextDelta(piece.text)]
            case "thinking_delta":
                if piece.thinking:
                    self.spoken = True
                    if (block := self._open.get(index)) is not None:
                        block.thinking.append(piece.thinking)
                    return [ReasoningDelta(piece.thinking)]
            case "input_json_delta":
                return self._arguments(index, piece.partial_json)
            case "signature_delta":
                if (block := self._open.get(index)) is not None:
                    block.signature += piece.signature
            case "citations_delta":
                return _cite(piece.citation)
            case _:
                self.unknown += 1
        return ()

    def stop(self, index: int) -> Sequence[Delta]:
        """A block is complete."""
        block = self._open.pop(index, None)
        if block is None or block.type == "text":
            return ()
        if block.type == "tool_use":
            return () if block.arguments else [ToolCallDelta(block.position, arguments=block.input)]
        if block.type == "thinking":
            if not block.signature:
                return ()  # nobody could take it back
            kept: dict[str, Any] = {
                "type": "thinking",
                "thinking": "".join(block.thinking),
                "signature": block.signature,
            }
        else:
            kept = msgspec.json.decode(block.original)
        self._kept += 1
        return [_extra({"thinking_blocks": [{"index": self._kept - 1} | kept]})]

    def stop_all(self) -> list[Delta]:
        """The answer is complete, and with it the blocks whose stop did not come."""
        return [delta for index in sorted(self._open) for delta in self.stop(index)]

    def _call(self, opened: _Open, block: Block) -> Delta:
        self.spoken = True
        opened.position = self._calls
        self._calls += 1
        whole = bytes(block.input).startswith(b"{")
        opened.input = msgspec.json.format(bytes(block.input), indent=-1).decode() if whole else "{}"
        return ToolCallDelta(opened.position, block.id, block.name)

    def _arguments(self, index: int, piece: str) -> Sequence[Delta]:
        block = self._open.get(index)
        if block is None:
            raise UpstreamInvalid("The upstream sent arguments of a call that has not begun; try again.")
        if block.type != "tool_use" or not piece:
            return ()  # the service's own tools, which it answers itself
        block.arguments = True
        return [ToolCallDelta(block.position, arguments=piece)]


def _cite(citation: Citation | None) -> Sequence[Delta]:
    """A source on the web, as OpenAI's annotation. Places in the client's own documents have no such form."""
    if citation is None or citation.url is None:
        return ()
    source = {"url": citation.url, "title": citation.title or citation.url}
    return [_extra({"annotations": [{"type": "url_citation", "url_citation": source}]})]


def _extra(delta: dict[str, Any]) -> Delta:
    chunk = {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
    return Extra(Original("openai.chunk", msgspec.json.encode(chunk)))
