"""What a JSON text may be beyond its syntax: not nested absurdly, and on one line where a line is needed."""

from __future__ import annotations

import re

MAX_DEPTH = 256
# Possessive, so that a string of many megabytes costs no memory for places to turn back to.
# The closing quote may lack: else each quote within a string that never ends would be tried anew.
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[{]|[\]}]', re.DOTALL)

_NESTING = re.compile(r'["{}\[\]\\]')


def is_too_deep(data: bytes) -> bool:
    """Does it nest deeper than ``MAX_DEPTH``? Cheap where it has few brackets or is short."""
    if len(data) <= MAX_DEPTH or data.count(b"[") + data.count(b"{") <= MAX_DEPTH:
        return False
    depth = 0
    for match in _TOKEN.finditer(data):
        first = data[match.start()]
        if first in b"[{":
            depth += 1
            if depth > MAX_DEPTH:
                return True
        elif first in b"]}":
            depth -= 1
    return False


class Nesting:
    """A JSON text that comes piece by piece: has all ended in it that has begun? Keeps none of it."""

    __slots__ = ("_depth", "_escaped", "_quoted")

    def __init__(self) -> None:
        self._depth = 0
        self._quoted = False
        self._escaped = False

    @property
    def open(self) -> bool:
        """Is an object, a list or a string unfinished?"""
        return self._quoted or self._depth > 0

    def add(self, text: str) -> None:
        """Take in the next piece."""
        at, self._escaped = int(self._escaped and bool(text)), self._escaped and not text
        while (mark := _NESTING.search(text, at)) is not None:
            at = mark.end()
            match mark[0]:
                case "\\" if self._quoted:
                    self._escaped = at == len(text)
                    at += 1
                case '"':
                    self._quoted = not self._quoted
                case "{" | "[" if not self._quoted:
                    self._depth += 1
                case "}" | "]" if not self._quoted:
                    self._depth -= 1


def one_line(data: bytes) -> bytes:
    """The same value on one line. A string cannot hold a bare line end, so each stands between values."""
    return data.replace(b"\r", b" ").replace(b"\n", b" ") if b"\n" in data or b"\r" in data else data
