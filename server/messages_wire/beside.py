"""Pictures and sources of a chat's answer, in the forms of a message that come nearest."""

from __future__ import annotations

from typing import Any

from server.errors import InvalidRequest
from server.foreign import read_data_uri

UNSIGNED = "antiphon:unsigned"
"""Stands where only the service itself can sign: clients leave out what has nothing there."""


def image_block(uri: str) -> dict[str, Any] | None:
    """A picture as requests have it; None if it is not given as data."""
    try:
        media, data = read_data_uri(uri, "images")
    except InvalidRequest:
        return None
    return {"type": "image", "source": {"type": "base64", "media_type": media or "image/png", "data": data}}


def citation_of(source: dict[str, Any]) -> dict[str, Any] | None:
    """A source on the web, as a search of the service would have found it; None for any other."""
    cited = source.get("url_citation", source)
    url = cited.get("url") if isinstance(cited, dict) else None
    if source.get("type") != "url_citation" or not isinstance(url, str):
        return None
    said = cited.get("content")
    return {
        "type": "web_search_result_location",
        "url": url,
        "title": cited.get("title"),
        "cited_text": said if isinstance(said, str) else "",
        "encrypted_index": UNSIGNED,
    }
