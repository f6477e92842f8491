"""An answer's text on its way from frame to delta: halves of characters joined, stop words obeyed."""

from __future__ import annotations

from collections.abc import Sequence


class PairJoiner:
    """Joins surrogate pairs that were split between frames.

    A frame may end with the first half of a character beyond U+FFFF. It waits here for the second; a half
    that stays alone becomes U+FFFD, for no answer can carry it.
    """

    __slots__ = ("_half",)

    def __init__(self) -> None:
        self._half = ""

    def feed(self, text: str) -> str:
        """What can be said by now."""
        if not self._half and text.isascii():
            return text
        text = self._half + text
        self._half = ""
        if text and "\ud800" <= text[-1] <= "\udbff":
            text, self._half = text[:-1], text[-1]
        return whole(text)

    def flush(self) -> str:
        """What is left when no more comes."""
        text, self._half = whole(self._half), ""
        return text


def whole(text: str) -> str:
    """The text with halves of surrogate pairs joined, and U+FFFD for a half that stands alone."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


class StopCutter:
    """Ends the text before the first stop word, which Spark does not do itself.

    The end of the text is held back while it may still grow into a stop word.
    """

    __slots__ = ("_held", "_stops", "hit")

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(filter(None, stops))
        self._held = ""
        self.hit = False

    def feed(self, text: str) -> str:
        """What can be said by now; once ``hit``, nothing."""
        if not self._stops:
            return text
        if self.hit:
            return ""
        text = self._held + text
        self._held = ""
        # The one that is complete first, as if the text came letter by letter.
        places = [(text.find(stop), len(stop)) for stop in self._stops]
        if found := [(place + size, place) for place, size in places if place >= 0]:
            self.hit = True
            return text[: min(found)[1]]
        keep = max(self._begun(text, stop) for stop in self._stops)
        if keep:
            text, self._held = text[:-keep], text[-keep:]
        return text

    def flush(self) -> str:
        """What was held back, when no more comes."""
        text, self._held = self._held, ""
        return text

    @staticmethod
    def _begun(text: str, stop: str) -> int:
        """How many characters at the end of ``text`` begin ``stop``."""
        longest = min(len(text), len(stop) - 1)
        return next((size for size in range(longest, 0, -1) if text.endswith(stop[:size])), 0)
