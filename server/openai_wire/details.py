"""``reasoning_details``: what OpenRouter tells of thoughts, in pieces that must come back joined.

Source: OpenRouter's guide to reasoning tokens. Pieces of one text have the same ``type`` and ``index``; the
signature comes with the last one, what is encrypted comes whole.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

# Types whose pieces are joined, and the field that has the words.
_WORDS = {"reasoning.text": "text", "reasoning.summary": "summary"}
# More is not kept: it would be held in memory until the thoughts end, and again by the client. (characters)
MAX_WORDS = 1024 * 1024


def words_of(details: Iterable[dict[str, Any]]) -> str:
    """The text of these pieces that people can read."""
    found = (one.get(_WORDS.get(str(one.get("type")), "")) for one in details)
    return "".join(text for text in found if isinstance(text, str))


def details_in(things: Iterable[dict[str, Any]]) -> list[Any]:
    """Those among what was sealed, in their order."""
    lists = [one.get("reasoning_details") for one in things]
    return [detail for one in lists if isinstance(one, list) for detail in one]


class Details:
    """Those of one answer. ``lost``: there were too many to be kept."""

    def __init__(self) -> None:
        self.lost = False
        self._joined: list[dict[str, Any]] = []
        self._words: list[list[str]] = []  # of each, its pieces
        self._size = 0

    def add(self, pieces: Iterable[dict[str, Any]]) -> None:
        """Take in the next pieces."""
        for piece in pieces:
            field = _WORDS.get(str(piece.get("type")), "")
            said = {key: value for key, value in piece.items() if value is not None and key != field}
            text = piece.get(field)
            words = [text] if isinstance(text, str) else []
            self._size += sum(map(len, words))
            if field and self._joined and _same(self._joined[-1], piece):
                self._joined[-1] |= said
                self._words[-1] += words
            else:
                self._joined.append(said)
                self._words.append(words)
        if self._size > MAX_WORDS:
            self.lost = True
            self._forget()

    def take(self) -> list[dict[str, Any]]:
        """Those since the last time, joined; none where nothing of them has to come back."""
        made = [
            one | {field: "".join(words)} if (field := _WORDS.get(str(one.get("type")))) else one
            for one, words in zip(self._joined, self._words, strict=True)
        ]
        self._forget()
        return made if not self.lost and any(one.get("signature") or "data" in one for one in made) else []

    def _forget(self) -> None:
        self._joined, self._words, self._size = [], [], 0


def _same(before: dict[str, Any], piece: dict[str, Any]) -> bool:
    return all(before.get(key) == piece.get(key) for key in ("type", "index"))
