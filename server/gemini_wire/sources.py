"""Where an answer comes from, by what the service tells beside it → annotations as chats have them.

The service counts in bytes of UTF-8, chats in characters. Places are told for texts of up to ``MOST_KEPT``
characters, of which the pieces are kept until the end.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from msgspec import Raw

MOST_KEPT = 100_000


class Spoken:
    """The text of one candidate as it grows, so that places in it can be found."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._length = 0

    @property
    def begun(self) -> bool:
        """Has anything been said?"""
        return self._length > 0

    def add(self, text: str) -> None:
        """Take in the next piece."""
        self._length += len(text)
        if self._length <= MOST_KEPT:
            self._pieces.append(text)
        else:
            self._pieces.clear()

    def places(self) -> _Places:
        """To find places in all of it."""
        return _Places("".join(self._pieces))


class _Places:
    def __init__(self, text: str) -> None:
        self._text = text
        self._data = text.encode(errors="replace")

    def of(self, segment: Mapping[str, Any]) -> dict[str, int]:
        """Where a segment stands, in characters; {} if that cannot be said."""
        start, end, said = segment.get("startIndex", 0), segment.get("endIndex"), segment.get("text")
        if type(start) is int and type(end) is int and 0 <= start < end <= len(self._data):
            found = self._data[start:end].decode(errors="replace")
            if not isinstance(said, str) or said == found:
                begin = len(self._data[:start].decode(errors="replace"))
                return {"start_index": begin, "end_index": begin + len(found)}
        # Counted within a part of several, or otherwise: by its words.
        if isinstance(said, str) and said and (begin := self._text.find(said)) >= 0:
            return {"start_index": begin, "end_index": begin + len(said)}
        return {}


def annotations_of(metadata: Mapping[str, Raw], spoken: Spoken) -> list[dict[str, Any]]:
    """The sources of a candidate, of what grounds it and of what it cites."""
    if not metadata.keys() & {"groundingMetadata", "citationMetadata"}:
        return []
    places = spoken.places()
    grounding = _object(metadata.get("groundingMetadata"))
    citing = _object(metadata.get("citationMetadata"))
    cited = _objects(citing, "citationSources") or _objects(citing, "citations")
    made = [*_grounded(grounding, places)]
    made += [_annotation(one["uri"], one.get("title"), places.of(one)) for one in cited if _uri(one)]
    return made


def _grounded(grounding: dict[str, Any], places: _Places) -> Iterator[dict[str, Any]]:
    chunks: list[dict[str, Any] | None] = []
    for chunk in _objects(grounding, "groundingChunks"):
        found = [one for one in chunk.values() if isinstance(one, dict) and _uri(one)]
        chunks.append(found[0] if found else None)
    told: set[int] = set()
    for support in _objects(grounding, "groundingSupports"):
        segment = support.get("segment")
        place = places.of(segment) if isinstance(segment, dict) else {}
        indices = support.get("groundingChunkIndices")
        for at in indices if isinstance(indices, list) else ():
            if type(at) is int and 0 <= at < len(chunks) and (source := chunks[at]) is not None:
                told.add(at)
                yield _annotation(source["uri"], source.get("title"), place)
    for at, source in enumerate(chunks):
        if source is not None and at not in told:
            yield _annotation(source["uri"], source.get("title"), {})


def _annotation(url: str, title: object, place: dict[str, int]) -> dict[str, Any]:
    source = {"url": url, "title": title if isinstance(title, str) and title else url, **place}
    return {"type": "url_citation", "url_citation": source}


def _uri(fields: dict[str, Any]) -> bool:
    return isinstance(fields.get("uri"), str) and bool(fields["uri"])


def _object(raw: Raw | None) -> dict[str, Any]:
    value = None if raw is None else msgspec.json.decode(raw)
    return value if isinstance(value, dict) else {}


def _objects(fields: dict[str, Any], key: str) -> list[dict[str, Any]]:
    value = fields.get(key)
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
