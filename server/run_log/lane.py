"""The growing text of one model call: always counted, kept only while somebody needs it."""

from __future__ import annotations

from collections import deque
from typing import Any

from server.bus import Sleepers
from server.events import MemberRef, StageRef

MAX_TEXT = 1024 * 1024
"""Code points kept of one text; beyond them its head is dropped."""

JOIN_AT = 256
"""So many small pieces are joined into one, or their headers would outweigh the text."""


class _Text:
    """One kind's text from ``start`` (code points dropped before it) on."""

    __slots__ = ("kept", "loose", "pieces", "start")

    def __init__(self, start: int) -> None:
        self.start = start
        self.kept = 0
        self.loose = 0
        self.pieces: deque[str] = deque()

    def add(self, text: str) -> None:
        if len(text) > MAX_TEXT:
            self.start += len(text) - MAX_TEXT
            text = text[-MAX_TEXT:]
        self.pieces.append(text)
        self.kept += len(text)
        self.loose += 1
        if self.loose == JOIN_AT:
            pieces = [self.pieces.pop() for _ in range(min(JOIN_AT, len(self.pieces)))]
            self.pieces.append("".join(reversed(pieces)))
            self.loose = 0
        while self.kept > MAX_TEXT:
            head = self.pieces.popleft()
            over = self.kept - MAX_TEXT
            dropped = min(over, len(head))
            if dropped < len(head):
                self.pieces.appendleft(head[dropped:])
            self.kept -= dropped
            self.start += dropped

    def since(self, offset: int) -> tuple[int, str]:
        if offset <= self.start:
            return self.start, "".join(self.pieces)
        wanted = self.start + self.kept - offset
        if wanted <= 0:
            return offset, ""
        parts: list[str] = []
        got = 0
        for piece in reversed(self.pieces):  # a reader is near the end: its part is found at once
            parts.append(piece)
            got += len(piece)
            if got >= wanted:
                break
        parts.reverse()
        parts[0] = parts[0][got - wanted :]
        return offset, "".join(parts)


class Lane:
    """One member's text, or the summary's, in one run.

    ``chars`` counts code points by kind (``text``, ``reasoning``, ``tool_call``, ``refusal``). ``stage`` and
    ``member`` are what its deltas are told under. ``answer`` is true once its text is (part of) the client's
    answer. ``sleepers`` are woken when kept text grows; its run sets them.
    """

    __slots__ = ("_kept", "_texts", "answer", "chars", "member", "name", "shared", "sleepers", "stage")

    def __init__(self, name: str) -> None:
        self.name = name
        self.stage: StageRef | None = None
        self.member: MemberRef | None = None
        self.answer = False
        self.chars: dict[str, int] = {"text": 0}
        self.sleepers: Sleepers | None = None
        self._texts: dict[str, _Text] | None = None
        self.shared: dict[str, tuple[int, int, int, bytes]] = {}  # the last delta told of each kind, for all
        self._kept = False

    def add(self, kind: str, text: str) -> None:
        """Note that the model said ``text``. On the hot path: one addition while nobody needs it."""
        try:
            self.chars[kind] += len(text)
        except KeyError:
            self.chars[kind] = len(text)
        if self._texts is not None:
            self._store(kind, text)

    def keep(self) -> None:
        """From now on keep the text, for the run's life: somebody will ask for it."""
        self._kept = True
        self.begin()

    def drop(self) -> None:
        """Let go of a text that was kept for the run's life: the room is wanted."""
        self._kept = False
        self._texts = None

    def begin(self) -> None:
        """Keep the text from here on, until ``end``. The run does this when its first text watcher comes."""
        if self._texts is None:
            self._texts = {kind: _Text(count) for kind, count in self.chars.items()}

    def end(self) -> None:
        """The run's last text watcher left: the text goes too, unless it is kept for another reason."""
        if not self._kept:
            self._texts = None

    @property
    def size(self) -> int:
        """Code points that are kept."""
        return sum(text.kept for text in self._texts.values()) if self._texts else 0

    def since(self, kind: str, offset: int) -> tuple[int, str]:
        """The text of a kind behind ``offset``, and where it begins: later than asked if the head is gone."""
        texts = self._texts
        if texts is None:
            return max(offset, self.chars.get(kind, 0)), ""
        kept = texts.get(kind)
        return kept.since(offset) if kept is not None else (offset, "")

    def text(self, kind: str = "text") -> str:
        """All that is kept of a kind."""
        return self.since(kind, 0)[1]

    def start(self, kind: str = "text") -> int:
        """Where the kept text of a kind begins."""
        return self.since(kind, 0)[0]

    def _store(self, kind: str, text: str) -> None:
        assert self._texts is not None
        kept = self._texts.get(kind)
        if kept is None:
            kept = self._texts[kind] = _Text(self.chars[kind] - len(text))
        kept.add(text)
        if self.sleepers is not None and self.sleepers.asleep:
            self.sleepers.wake()


def is_included(lane: Lane, include: frozenset[str]) -> bool:
    """Does ``include`` open this lane's text?"""
    return (lane.answer and "answer" in include) or (lane.name != "summary" and "drafts" in include)


def tell_text(told: dict[str, Any], lane: Lane | None, include: frozenset[str]) -> None:
    """Put into a call's snapshot how long its text is, and the text itself if ``include`` opens it."""
    if lane is None:
        return
    told["chars"] = max(told["chars"], lane.chars["text"])
    if not is_included(lane, include):
        return
    told["text_start"], told["text"] = lane.since("text", 0)
    if "reasoning" in include and "reasoning" in lane.chars:
        told["reasoning_start"], told["reasoning"] = lane.since("reasoning", 0)
