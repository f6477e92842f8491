"""How many further attempts a model's requests may cost, so that an outage is not answered with a storm."""

from __future__ import annotations


class RetryBudget:
    """A purse that requests fill and further attempts empty.

    Each request puts ``ratio`` in, up to ``reserve``; each further attempt takes 1 out. It begins full.
    """

    __slots__ = ("_ratio", "_reserve", "left")

    def __init__(self, ratio: float, reserve: int) -> None:
        self._ratio = ratio
        self._reserve = reserve
        self.left = float(reserve)

    def add(self) -> None:
        """A request has come."""
        if self.left < self._reserve:
            self.left = min(self.left + self._ratio, self._reserve)

    def spend(self) -> bool:
        """May one more attempt be made? If so, it is paid."""
        if self.left < 1:
            return False
        self.left -= 1
        return True
