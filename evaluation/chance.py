"""Chance by name: the same names give the same numbers, on every machine and in any order."""

from __future__ import annotations

import struct
from hashlib import blake2b
from statistics import NormalDist

_NORMAL = NormalDist()
_UNIT = 2.0**-64


class Chance:
    """A short row of numbers that belongs to ``names``. At most eight may be taken."""

    __slots__ = ("_left",)

    def __init__(self, *names: object) -> None:
        digest = blake2b("\0".join(map(str, names)).encode()).digest()
        self._left = list(struct.unpack("<8Q", digest))

    def uniform(self) -> float:
        """From 0 up to, and without, 1."""
        # A number close to 2**64 would be rounded up to 1.
        return min(float(self._left.pop()) * _UNIT, 1 - 2.0**-53)

    def normal(self) -> float:
        """Of mean 0 and deviation 1."""
        return _NORMAL.inv_cdf(min(max(self.uniform(), 1e-12), 1 - 1e-12))
