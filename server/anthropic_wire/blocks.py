"""The content blocks of one answer → deltas, from their starts, pieces and stops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Raw

from server.anthropic_wire.events import Block, Piece, decode_block
from server.deltas import Delta, ReasoningDelta, TextDelta, ToolCallDelta
from server.errors import UpstreamInvalid
from server.foreign import OWN_EXTRA
from server.foreign_answer import chunk_of, extra

_OF_CALLS = ("type", "id", "name", "input", "cache_control")
_DIRECT = {"type": "direct"}  # the model itself called


class _Open(msgspec.Struct):
    """A block that has begun. ``original`` is it as it came, ``position`` that of a tool call."""

    type: str
    original: Raw
    thinking: list[str]
    signature: str
    position: int = 0
    input: list[str] = []  # what stands for the arguments if no piece of them comes; else the pieces
    arguments: bool = False
    begins: bool = False  # is it a text behind a text, of which nothing has been told?
    start: int = 0  # of a text: how much text came before it, in characters
    citations: list[dict[str, Any]] = []


class Blocks:
    """The blocks of one answer. ``spoken``: has the model said anything? ``unknown`` counts odd pieces."""

    def __init__(self) -> None:
        self.spoken = False
        self.unknown = 0
        self._open: dict[int, _Open] = {}
        self._calls = 0
        self._kept = 0  # blocks that were handed on
        self._citations = 0  # citations that were
        self._texts = 0
        self._length = 0  # of the text, in characters

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
        if block.type == "text":
            opened.begins, opened.start = self._texts > 0, self._length
            opened.citations = [*(block.citations or ())]
            self._texts += 1
            return self._say(opened, block.text)
        if block.type == "thinking" and block.thinking:
            self.spoken = True
            return [ReasoningDelta(block.thinking)]
        return ()

    def piece(self, index: int, piece: Piece) -> Sequence[Delta] | None:
        """The next piece of a block; None if it is of a type that is not known."""
        match piece.type:
            case "text_delta":
                return self._say(self._open.get(index), piece.text)
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
                if (block := self._open.get(index)) is not None and piece.citation:
                    block.citations.append(piece.citation)
            case _:
                self.unknown += 1
                return None
        return ()

    def stop(self, index: int) -> Sequence[Delta]:
        """A block is complete."""
        block = self._open.pop(index, None)
        if block is None:
            return ()
        if block.type == "text":
            return self._cited(block) if block.citations else ()
        if block.type == "tool_use":
            return () if block.arguments else [ToolCallDelta(block.position, arguments="".join(block.input))]
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
            if block.arguments:  # of a tool that the service itself carries out
                kept["input"] = _value("".join(block.input))
        self._kept += 1
        return [extra({"thinking_blocks": [{"index": self._kept - 1} | kept]})]

    def stop_all(self) -> list[Delta]:
        """The answer is complete, and with it the blocks whose stop did not come."""
        return [delta for index in sorted(self._open) for delta in self.stop(index)]

    def _say(self, block: _Open | None, text: str) -> Sequence[Delta]:
        if not text:
            return ()
        self.spoken = True
        self._length += len(text)
        if block is None or not block.begins:
            return [TextDelta(text)]
        block.begins = False
        return [TextDelta(text, original=chunk_of({"content": text, "native_block": True}))]

    def _cited(self, block: _Open) -> Sequence[Delta]:
        """Where a text comes from: as OpenAI's annotations, and in the service's own words."""
        place = {"start_index": block.start, "end_index": self._length}
        told = [*enumerate(block.citations, self._citations)]
        self._citations += len(told)
        delta: dict[str, Any] = {
            "annotations": [{"index": at} | _annotation(citation, place) for at, citation in told],
            "native_citations": [{"index": at} | citation for at, citation in told],
        }
        return [extra(delta | ({"native_block": True} if block.begins else {}))]

    def _call(self, opened: _Open, block: Block) -> Delta:
        self.spoken = True
        opened.position = self._calls
        self._calls += 1
        whole = bytes(block.input).startswith(b"{")
        opened.input = [msgspec.json.format(bytes(block.input), indent=-1).decode() if whole else "{}"]
        original = None
        if beside := _beside(opened.original):
            call = {"index": opened.position, "id": block.id, "type": "function"}
            function = {"name": block.name, "arguments": ""}
            call |= {"function": function, "extra_content": {OWN_EXTRA: beside}}
            original = chunk_of({"tool_calls": [call]})
        return ToolCallDelta(opened.position, block.id, block.name, original=original)

    def _arguments(self, index: int, piece: str) -> Sequence[Delta]:
        block = self._open.get(index)
        if block is None:
            raise UpstreamInvalid("The upstream sent arguments of a call that has not begun; try again.")
        if not piece:
            return ()
        block.arguments = True
        if block.type != "tool_use":
            block.input.append(piece)
            return ()
        return [ToolCallDelta(block.position, arguments=piece)]


def _annotation(citation: dict[str, Any], place: dict[str, int]) -> dict[str, Any]:
    """A source on the web by its address; one in a document or a file by its name and its place there."""
    title = citation.get("title") or citation.get("document_title")
    source = citation.get("source")
    url = citation.get("url") or (source if isinstance(source, str) and "://" in source else None)
    if isinstance(url, str):
        said = {"content": citation["cited_text"]} if citation.get("cited_text") else {}
        return {"type": "url_citation", "url_citation": {"url": url, "title": title or url, **said, **place}}
    index = citation.get("document_index", citation.get("search_result_index", 0))
    named = {"file_id": citation.get("file_id") or f"document_{index}", "filename": title or source or ""}
    where = {key: value for key, value in citation.items() if key.startswith(("start_", "end_", "cited_"))}
    return {"type": "file_citation", "file_citation": {**named, "index": index, **where, **place}}


def _beside(call: Raw) -> dict[str, Any]:
    """What a call says beside what all calls say: who made it, if not the model itself, and its toolset."""
    fields = msgspec.json.decode(call, type=dict[str, Any])
    left = {key: value for key, value in fields.items() if key not in _OF_CALLS and value is not None}
    return left if left.get("caller") != _DIRECT else {key: left[key] for key in left if key != "caller"}


def _value(text: str) -> Any:
    """The JSON of a text; the text itself if it is none."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return text
