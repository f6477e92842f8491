"""What a JSON text may be beyond its syntax: not nested absurdly, and on one line where a line is needed."""

from __future__ import annotations

import re

MAX_DEPTH = 256
# Possessive, so that a string of many megabytes costs no memory for places to turn back to.
# The closing quote may lack: else each quote within a string that never ends would be tried anew.
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[{]|[\]}]', re.DOTALL)


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


def one_line(data: bytes) -> bytes:
    """The same value on one line. A string cannot hold a bare line end, so each stands between values."""
    return data.replace(b"\r", b" ").replace(b"\n", b" ") if b"\n" in data or b"\r" in data else data
