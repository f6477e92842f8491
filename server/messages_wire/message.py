"""Deltas → one whole message: the same blocks that a stream is told in."""

from __future__ import annotations

from typing import Any, assert_never

import msgspec
from msgspec import Raw

from server.deltas import Batch, Usage
from server.messages_wire.speech import Begin, Cited, End, Piece, Speech, Step, head_fields, usage_fields


class MessageCollector:
    """Collects the batches of one answer; ``encode`` gives the body."""

    def __init__(self, *, model: str, id: str, thoughts: bool) -> None:
        self._head = head_fields(id, model)
        self._speech = Speech(thoughts=thoughts)
        self._blocks: list[dict[str, Any]] = []
        self._pieces: list[dict[str, list[str]]] = []

    def add(self, batch: Batch) -> None:
        """Take in one batch."""
        for step in self._speech.say(batch):
            self._note(step)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What could not be told, after ``encode``."""
        return self._speech.left.warnings

    def encode(self, usage: Usage | None = None, antiphon: bytes | None = None) -> bytes:
        """The body; ``usage`` is used where the upstream gave none. Raises ``UpstreamInvalid``."""
        for step in self._speech.end():
            self._note(step)
        content = [_whole(*one) for one in zip(self._blocks, self._pieces, strict=True)]
        fields = self._head | {
            "content": content,
            **self._speech.end_fields,
            "usage": usage_fields(self._speech.usage or usage or Usage(estimated=True)),
        }
        if (managed := self._speech.context_management) is not None:
            fields["context_management"] = managed
        if beside := self._speech.left.beside(antiphon, images=self._speech.images):
            fields["antiphon"] = Raw(beside)
        return msgspec.json.encode(fields)

    def _note(self, step: Step) -> None:
        match step:
            case Begin(_, block):
                self._blocks.append(block)
                self._pieces.append({})
            case Piece(index, kind, text):
                self._pieces[index].setdefault(kind, []).append(text)
            case Cited(index, citation):
                self._blocks[index].setdefault("citations", []).append(citation)
            case End():
                pass
            case _ as never:
                assert_never(never)


def _whole(block: dict[str, Any], pieces: dict[str, list[str]]) -> dict[str, Any]:
    """A block with its pieces in it."""
    made = dict(block)
    for kind, texts in pieces.items():
        if kind == "partial_json":
            made["input"] = _object("".join(texts))
        else:
            made[kind] = "".join(texts)
    return made


def _object(arguments: str) -> Raw | dict[str, Any]:
    """The arguments as they were written; none where the answer's limit of tokens cut them off."""
    try:
        whole = isinstance(msgspec.json.decode(arguments), dict)
    except (msgspec.DecodeError, RecursionError):
        whole = False
    return Raw(arguments.encode()) if whole else {}
