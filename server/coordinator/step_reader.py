"""One step of thought, read while it arrives: ``{"title": …, "content": …, "next_action": …}``.

Models are sloppy: the object may stand in a fence or behind prose, be cut, hold raw line breaks, or not be
there at all; then the whole text is the step. What is readable counts.
"""

from __future__ import annotations

import re
from typing import Literal, TypeAlias

Field: TypeAlias = Literal["title", "content"]
Piece: TypeAlias = tuple[Field, str]

FIELDS = ("title", "content", "next_action")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}
_State: TypeAlias = Literal["seek", "open", "key", "colon", "value", "string", "raw", "after", "done"]


class StepReader:
    """Reads one step; ``feed`` and ``finish`` return the new pieces of title and content, in order."""

    def __init__(self) -> None:
        self._said: dict[Field, list[str]] = {"title": [], "content": []}
        self._action = ""
        self._all: list[str] = []
        self._state: _State = "seek"
        self._key = ""
        self._escape = ""  # an escape that is not complete yet
        self._high = ""  # the first half of a character beyond the BMP
        self._raw: list[str] = []
        self._depth = 0
        self._quoted = False  # within a string of a raw value
        self._found = False  # has a field of ours begun?
        self._pieces: list[tuple[Field, list[str]]] = []  # not yet told

    @property
    def title(self) -> str:
        """What was told of it so far."""
        return "".join(self._said["title"])

    @property
    def content(self) -> str:
        """What was told of it so far."""
        return "".join(self._said["content"])

    @property
    def is_last(self) -> bool:
        """Does the step ask for the answer? One that does not say goes on."""
        return "final" in self._action.lower()

    def feed(self, text: str) -> list[Piece]:
        """Take the next piece of text."""
        self._all.append(text)
        for char in text:
            self._take(char)
        return self._drain()

    def finish(self) -> list[Piece]:
        """The text is over: what was cut counts, and a text without any object is the step."""
        if self._state == "raw":
            self._end_raw()
        if not self.title and not self.content and not self._pieces:
            self._add("content", "".join(self._all).strip())
        return self._drain()

    def _drain(self) -> list[Piece]:
        pieces: list[Piece] = [(field, "".join(chars)) for field, chars in self._pieces]
        self._pieces = []
        for field, text in pieces:
            self._said[field].append(text)
        return pieces

    def _take(self, char: str) -> None:
        match self._state:
            case "seek":
                if char == "{":
                    self._state = "open"
            case "open":
                self._open(char)
            case "key":
                if char == '"' and not self._key.endswith("\\"):
                    self._state = "colon"
                else:
                    self._key += char
            case "colon":
                if char == ":":
                    self._state = "value"
                elif not char.isspace() and not self._found:
                    self._state = "seek"
            case "value":
                self._begin_value(char)
            case "string":
                self._take_string(char)
            case "raw":
                self._take_raw(char)
            case "after":
                self._after(char)
            case _:
                pass  # done: what follows the object is not read

    def _open(self, char: str) -> None:
        if char == '"':
            self._state, self._key = "key", ""
        elif char != "{" and not char.isspace():
            self._state = "seek"  # a brace of prose

    def _begin_value(self, char: str) -> None:
        if char.isspace():
            return
        self._found = self._found or self._key in FIELDS
        if char == '"':
            self._state = "string"
        else:
            self._state, self._raw, self._depth, self._quoted = "raw", [], 0, False
            self._take_raw(char)

    def _take_string(self, char: str) -> None:
        if self._escape:
            self._take_escape(char)
        elif char == "\\":
            self._escape = char
        elif char == '"':
            self._flush_high()
            self._state = "after"
        else:
            self._flush_high()
            self._put(char)

    def _take_escape(self, char: str) -> None:
        self._escape += char
        if self._escape[1] != "u":
            escape, self._escape = self._escape, ""
            self._flush_high()
            # An escape that JSON does not know stands as it was written: LaTeX, mostly.
            self._put(_ESCAPES.get(char, char if char in '"\\/' else escape))
        elif len(self._escape) == 6:
            digits, self._escape = self._escape[2:], ""
            try:
                code = int(digits, 16)
            except ValueError:
                self._put("\\u" + digits)
                return
            self._take_code(code)

    def _take_code(self, code: int) -> None:
        if 0xD800 <= code < 0xDC00:
            self._flush_high()
            self._high = chr(code)
        elif 0xDC00 <= code < 0xE000:
            high, self._high = self._high, ""
            joined = 0x10000 + ((ord(high) - 0xD800) << 10) + code - 0xDC00 if high else 0xFFFD
            self._put(chr(joined))
        else:
            self._flush_high()
            self._put(chr(code))

    def _flush_high(self) -> None:
        if self._high:
            self._high = ""
            self._put("\ufffd")

    def _take_raw(self, char: str) -> None:
        if not self._quoted and self._depth == 0 and char in ",}":
            self._end_raw()
            self._state = "after"
            self._after(char)
            return
        if char == '"' and self._raw[-1:] != ["\\"]:
            self._quoted = not self._quoted
        elif not self._quoted:
            self._depth += (char in "[{") - (char in "]}")
        self._raw.append(char)

    def _end_raw(self) -> None:
        raw = "".join(self._raw).strip()
        if raw and raw != "null":
            self._put(raw)
        self._raw = []

    def _after(self, char: str) -> None:
        if char == '"':
            self._state, self._key = "key", ""
        elif char == "}":
            self._state = "done" if self._found else "seek"

    def _put(self, text: str) -> None:
        if self._key == "next_action":
            self._action += text
        elif self._key == "title":
            self._add("title", text)
        elif self._key == "content":
            self._add("content", text)

    def _add(self, field: Field, text: str) -> None:
        if not text:
            return
        if self._pieces and self._pieces[-1][0] == field:
            self._pieces[-1][1].append(text)
        else:
            self._pieces.append((field, [text]))


def same_words(text: str) -> str:
    """The text without case, marks and spacing, to tell a repeated step."""
    return " ".join(re.findall(r"\w+", text.casefold()))
