"""Sources of an answer, with their places in characters."""

from __future__ import annotations

import json
from typing import Any

from msgspec import Raw

from server.gemini_wire.sources import MOST_KEPT, Spoken, annotations_of

TEXT = "巴黎 is – the city. 巴黎!"
WEB = {"web": {"uri": "https://e.com", "title": "E"}}
RETRIEVED = {"retrievedContext": {"uri": "https://f.com", "text": "…"}}


def told(text: str = TEXT, **metadata: Any) -> list[dict[str, Any]]:
    spoken = Spoken()
    for at in range(0, len(text), 3):
        spoken.add(text[at : at + 3])
    raw = {key: Raw(json.dumps(value).encode()) for key, value in metadata.items()}
    return [one["url_citation"] for one in annotations_of(raw, spoken)]


def segment(said: str, at: int, **more: Any) -> dict[str, Any]:
    """A segment as the service counts it: in bytes."""
    start = len(TEXT[:at].encode())
    return {"startIndex": start, "endIndex": start + len(said.encode()), "text": said, **more}


def test_places_are_counted_in_characters() -> None:
    last = TEXT.rindex("巴黎")
    supports = [
        {"segment": segment("巴黎", 0), "groundingChunkIndices": [0]},
        {"segment": segment("巴黎", last), "groundingChunkIndices": [0, 1, 7, "x"]},
    ]
    grounding = {"groundingChunks": [WEB, RETRIEVED, {"odd": 1}], "groundingSupports": supports}
    assert told(groundingMetadata=grounding) == [
        {"url": "https://e.com", "title": "E", "start_index": 0, "end_index": 2},
        {"url": "https://e.com", "title": "E", "start_index": last, "end_index": last + 2},
        {"url": "https://f.com", "title": "https://f.com", "start_index": last, "end_index": last + 2},
    ]


def test_a_place_that_is_counted_otherwise_is_found_by_its_words_or_not_told() -> None:
    for place, expected in (
        ({"startIndex": 1, "endIndex": 3, "text": "city"}, {"start_index": 12, "end_index": 16}),
        ({"startIndex": 1, "endIndex": 10_000, "text": "nowhere"}, {}),
        ({"startIndex": "x", "text": None}, {}),
    ):
        support = {"segment": place, "groundingChunkIndices": [0]}
        (source,) = told(groundingMetadata={"groundingChunks": [WEB], "groundingSupports": [support]})
        assert source == {"url": "https://e.com", "title": "E", **expected}


def test_what_supports_nothing_and_what_is_cited_are_sources_too() -> None:
    cited = {"startIndex": 0, "endIndex": 6, "uri": "https://g.com", "license": "mit"}
    grounding = {"groundingChunks": [WEB]}
    for name in ("citationSources", "citations"):
        made = told(groundingMetadata=grounding, citationMetadata={name: [cited, {"startIndex": 1}]})
        assert [one["url"] for one in made] == ["https://e.com", "https://g.com"]
        assert (made[1]["start_index"], made[1]["end_index"]) == (0, 2)


def test_oddities_are_no_sources() -> None:
    assert told(groundingMetadata=[], citationMetadata=7) == []
    assert told(groundingMetadata={"groundingChunks": {}, "groundingSupports": [{"segment": 1}]}) == []
    assert told(urlContextMetadata={"urlMetadata": []}) == []


def test_of_a_text_that_is_too_long_no_places_are_told() -> None:
    support = {"segment": {"endIndex": 3, "text": "aaa"}, "groundingChunkIndices": [0]}
    grounding = {"groundingChunks": [WEB], "groundingSupports": [support]}
    assert "start_index" in told("a" * MOST_KEPT, groundingMetadata=grounding)[0]
    assert "start_index" not in told("a" * (MOST_KEPT + 1), groundingMetadata=grounding)[0]
