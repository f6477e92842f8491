"""Citations that a client of chats sends back: the text that they were true of, and they with it.

In a chat a text is one, its ``native_citations`` stand beside it, and the ``annotations`` of the same number
tell the place of each.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw

from server.foreign import wrong

_CITATIONS = msgspec.json.Decoder(list[dict[str, Raw]])
_ANNOTATIONS = msgspec.json.Decoder(list[dict[str, Any]])


def cited(text: str, citations: Raw, annotations: Raw, param: str) -> list[dict[str, Any]]:
    """The text as blocks, each with its citations; those whose place nobody tells are of the whole text.

    Raises ``InvalidRequest`` that names ``param`` for what are no citations.
    """
    try:
        native = _CITATIONS.decode(citations)
    except msgspec.ValidationError:
        raise wrong(f"{param}.native_citations", "must be a list of objects", "invalid_type") from None
    places = _places(annotations, len(native), len(text))
    blocks: list[dict[str, Any]] = []
    at = 0
    for (start, end), one in sorted(zip(places, native, strict=True), key=lambda pair: pair[0]):
        citation = {key: value for key, value in one.items() if key != "index"}
        if end > at and text[max(start, at) : end].strip():
            if start > at:
                blocks.append({"type": "text", "text": text[at:start]})
            blocks.append({"type": "text", "text": text[max(start, at) : end], "citations": [citation]})
            at = end
        elif blocks:
            blocks[-1].setdefault("citations", []).append(citation)
    blocks.append({"type": "text", "text": text[at:]})
    return [block for block in blocks if block["text"].strip()]


def _places(annotations: Raw, count: int, length: int) -> list[tuple[int, int]]:
    """Where each stands, in characters."""
    try:
        told = _ANNOTATIONS.decode(annotations)
    except msgspec.DecodeError:
        told = []
    whole = (0, length)
    return [_place(one, length) or whole for one in told] if len(told) == count else [whole] * count


def _place(annotation: dict[str, Any], length: int) -> tuple[int, int] | None:
    inner = annotation.get(str(annotation.get("type")))
    if not isinstance(inner, dict):
        return None
    start, end = inner.get("start_index"), inner.get("end_index")
    if type(start) is not int or type(end) is not int or not 0 <= start < min(end, length):
        return None
    return start, min(end, length)
