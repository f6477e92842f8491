"""HTTP/1.1 as far as the rig needs it: where a head ends, how long a body is, what chunks hold. No socket.

Both ends of the rig are bare protocols, for they must cost little beside what they measure.
"""

from __future__ import annotations

import re

HEAD_END = b"\r\n\r\n"
#: A chunked body's last bytes. Trailers would hide them: nothing here sends any.
LAST_CHUNK = b"\r\n0\r\n\r\n"

_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)[ \t]*\r\n", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:[^\r]*\bchunked[ \t]*\r\n", re.IGNORECASE)
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})[ \r]")


class BadFraming(ValueError):
    """What came is not HTTP/1.1 as the rig speaks it."""


def content_length(head: bytes) -> int | None:
    """The length that a head (with its blank line) names; None: none."""
    found = _LENGTH.search(head)
    return int(found[1]) if found else None


def is_chunked(head: bytes) -> bool:
    """Does the body come in chunks?"""
    return _CHUNKED.search(head) is not None


def status_of(head: bytes) -> int:
    """An answer's status. Raises BadFraming."""
    found = _STATUS.match(head)
    if not found:
        raise BadFraming(f"no status line: {head[:60]!r}")
    return int(found[1])


class ChunkedBody:
    """Takes a chunked body apart as it comes."""

    def __init__(self) -> None:
        self.over = False  # the last chunk and the blank line after it have come
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """Return the content that ``data`` completes: only whole chunks. Raises BadFraming."""
        data = self._held + data
        contents = []
        at = 0
        while not self.over:
            line_end = data.find(b"\r\n", at)
            if line_end < 0:
                if len(data) - at > 4096:
                    raise BadFraming(f"no end to a chunk's size: {data[at : at + 40]!r}")
                break
            size = self._size(data[at:line_end])
            end = line_end + 2 + size
            if len(data) < end + 2:
                break
            if data[end : end + 2] != b"\r\n":
                raise BadFraming(f"a chunk is not {size} bytes long")
            contents.append(data[line_end + 2 : end])
            self.over = size == 0
            at = end + 2
        self._held = data[at:]
        if self.over and self._held:
            raise BadFraming(f"something follows the last chunk: {self._held[:40]!r}")
        return b"".join(contents)

    @staticmethod
    def _size(line: bytes) -> int:
        digits = line.partition(b";")[0].strip()
        if not re.fullmatch(rb"[0-9a-fA-F]{1,8}", digits):
            raise BadFraming(f"not a chunk's size: {line[:40]!r}")
        return int(digits, 16)
