"""What the output of a response is made of: an item as it grows, and parts of it as clients see them."""

from __future__ import annotations

from typing import Any

import msgspec

from server.errors import InvalidRequest
from server.foreign import read_data_uri


class Item:
    """One item as it grows; texts are kept in pieces."""

    __slots__ = (
        "blocks",
        "call_id",
        "ended",
        "fields",
        "id",
        "index",
        "kind",
        "name",
        "parts",
        "pieces",
        "sources",
    )

    def __init__(self, kind: str, id: str, index: int) -> None:
        self.kind = kind
        self.id = id
        self.index = index
        self.ended = False
        self.call_id = ""
        self.name = ""
        self.parts: list[str] = []  # of a message: output_text, refusal
        # Of each part; a call has one, of its arguments, and a picture one, of its data.
        self.pieces: list[list[str]] = []
        self.sources: dict[int, list[dict[str, Any]]] = {}  # of each part
        self.blocks: list[dict[str, Any]] = []  # signed thoughts, and what stands beside calls
        self.fields: dict[str, Any] | None = None  # when it has ended

    def text(self, part: int = 0) -> str:
        """All of one part by now; "" if none has begun."""
        return "".join(self.pieces[part]) if self.pieces else ""


def part_of(kind: str, text: str, sources: list[dict[str, Any]]) -> dict[str, Any]:
    """A part of a message: ``output_text`` or ``refusal``."""
    if kind == "refusal":
        return {"type": kind, "refusal": text}
    return {"type": kind, "text": text, "annotations": list(sources), "logprobs": []}


def annotation_of(source: dict[str, Any], before: int) -> dict[str, Any]:
    """An annotation of a chat in the form of responses, which has no object within for its kind.

    ``before``: so many characters of the answer stand in earlier parts.
    """
    kind = source.get("type")
    inner = source.get(kind) if isinstance(kind, str) else None
    fields = inner if isinstance(inner, dict) else source
    places: dict[str, Any] = {"start_index": 0, "end_index": 0} if kind == "url_citation" else {}
    told = {"type": kind, **places, **{key: value for key, value in fields.items() if key != "type"}}
    for place in ("start_index", "end_index"):
        if isinstance(told.get(place), int):
            told[place] = max(0, told[place] - before)
    return told


def picture_of(uri: str) -> tuple[str, str] | None:
    """Format and base64 of a picture; None if it is not given as data."""
    try:
        media, data = read_data_uri(uri, "images")
    except InvalidRequest:
        return None
    return media.partition("/")[2] or "png", data


def is_whole(arguments: str) -> bool:
    """Are they JSON from end to end?"""
    try:
        msgspec.json.decode(arguments)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True
