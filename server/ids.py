"""Random ids. The system is asked for randomness once for many of them: asking costs more than the id."""

from __future__ import annotations

import os

_BLOCK = 4096


class RandomIds:
    """Gives hexadecimal ids of ``size`` random bytes each. No id is given twice."""

    __slots__ = ("_at", "_block", "_size")

    def __init__(self, size: int) -> None:
        self._size = size
        self._block = ""
        self._at = 0

    def __call__(self) -> str:
        """The next id, ``2 * size`` characters."""
        start = self._at
        self._at = end = start + 2 * self._size
        if end > len(self._block):
            self._block = os.urandom(_BLOCK).hex()
            start, self._at = 0, (end := 2 * self._size)
        return self._block[start:end]
