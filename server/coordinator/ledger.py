"""The account of a run that may cost only so much: what each call may cost is set aside before it starts.

Amounts are the units of ``server/prices.py``. At any time what was reserved is what was settled, what was
refunded, and what is still held for calls under way.
"""

from __future__ import annotations

from server.prices import Units


class Ledger:
    """Reservations within ``limit``, each settled once."""

    def __init__(self, limit: Units) -> None:
        self.limit = limit
        self.reserved: Units = 0
        self.settled: Units = 0
        self.refunded: Units = 0
        self._aside: Hold | None = None

    @property
    def held(self) -> Units:
        """What is set aside for calls under way."""
        return self.reserved - self.settled - self.refunded

    def reserve(self, most: Units | None) -> Hold | None:
        """Set aside what a call costs at most; None, and nothing has changed, if that breaks the limit.

        A call of which nobody knows what it costs is let through, and counted once its cost is known.
        """
        amount = most or 0
        if self.settled + self.held + amount > self.limit:
            return None
        self.reserved += amount
        return Hold(self, amount)

    def set_aside(self, most: Units | None) -> None:
        """Keep so much for a call that comes last, until ``release``."""
        self._aside = self.reserve(most)

    def release(self) -> None:
        """What was set aside is free again: its call starts now, or never will."""
        if self._aside is not None:
            self._aside.settle(0)
            self._aside = None


class Hold:
    """What is set aside for one call."""

    def __init__(self, ledger: Ledger, amount: Units) -> None:
        self.amount = amount
        self._ledger = ledger
        self._open = True

    def settle(self, cost: Units | None) -> None:
        """The call has ended, and cost so much; None: nobody knows, and all of it is kept. Once counts.

        An upstream may count more than was reserved: that is settled as it is, and nothing more will start.
        """
        if not self._open:
            return
        self._open = False
        ledger = self._ledger
        spent = self.amount if cost is None else cost
        ledger.reserved += max(0, spent - self.amount)
        ledger.settled += spent
        ledger.refunded += max(0, self.amount - spent)
