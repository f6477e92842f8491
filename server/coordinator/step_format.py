"""How steps of thought and the answer look to the client: as reasoning, or as text under headings."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from server.coordinator.step_reader import Piece
from server.deltas import Delta, Finished, Opening, ReasoningDelta, TextDelta
from server.strategy_settings import Steps

_FINAL = "### Final Answer\n"


class StepWriter:
    """Makes deltas of pieces. A step's heading goes out before its content, whichever came first."""

    def __init__(self, settings: Steps) -> None:
        self._settings = settings
        self._number = 0
        self._headed = False
        self._title = ""
        self._held = ""
        self._answered = False
        self._orphan = False

    @property
    def is_text(self) -> bool:
        """Are the steps part of the answer's text?"""
        return self._settings.format != "reasoning"

    def begin(self) -> None:
        """The next step begins."""
        self._number += 1
        self._headed, self._title, self._held = False, "", ""

    def step(self, pieces: Sequence[Piece]) -> list[Delta]:
        """What new pieces of the step make. The title is complete when content comes after it."""
        text = ""
        for field, piece in pieces:
            if field == "title":
                self._title += piece
            elif self._title and not self._headed:
                text += self._heading() + self._held + piece
                self._held = ""
            elif self._headed:
                text += piece
            else:
                self._held += piece
        return self._make(text)

    def end(self) -> list[Delta]:
        """What closes the step: its heading, if none came, and what was held for it."""
        text = "" if self._headed else self._heading() + self._held
        self._held = ""
        return self._make(
            text + {"details": "\n</details>", "reasoning": "\n\n"}.get(self._settings.format, "")
        )

    def answer(self, batch: Sequence[Delta], seconds: float) -> list[Delta]:
        """The answer's deltas; ``seconds`` of thought are told before its end, if that is wanted.

        The choice has been opened by the steps, so no second opening passes.
        """
        deltas: list[Delta] = []
        for delta in batch:
            if type(delta) is Opening:
                self._orphan = delta.original is not None
                continue
            # What shared a chunk with the opening is written anew; so is all where something is added.
            self._orphan = self._orphan and delta.original is not None and not delta.original.data
            if self._orphan or self._settings.show_time:
                delta = replace(delta, original=None)
            if type(delta) is TextDelta and not self._answered:
                self._answered = True
                if self.is_text and self._number:
                    deltas.append(TextDelta("\n\n" + _FINAL))
            if type(delta) is Finished and self._settings.show_time:
                deltas.append(TextDelta(f"\n\n**Total thinking time: {seconds:.2f} seconds**"))
            deltas.append(delta)
        return deltas

    def _heading(self) -> str:
        self._headed = True
        title = " ".join(self._title.split()) or "…"
        gap = "\n\n" if self._number > 1 else ""
        match self._settings.format:
            case "markdown":
                return f"{gap}## Step {self._number}: {title}\n"
            case "details":
                title = title.replace("&", "&amp;").replace("<", "&lt;")
                return f"{gap}<details open>\n<summary>Step {self._number}: {title}</summary>\n"
        return f"Step {self._number}: {title}\n"

    def _make(self, text: str) -> list[Delta]:
        if not text:
            return []
        return [TextDelta(text) if self.is_text else ReasoningDelta(text)]
