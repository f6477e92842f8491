"""The slots of a channel, and whose turn it is: by key, then by run, with room for calls that come alone.

A combination asks many models at once, so a storm of them would fill every queue before the one plain
question behind it. Therefore those who wait are let in by turns, key by key and within a key run by run; a
plain call goes before a combination's calls, though not always; and a share of the slots is never theirs.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque

# Of so many calls that are let in while both kinds wait, one is a combination's: none is put off for ever.
EACH = 4


class Caller:
    """Who asks for a slot: an access key's name, a run's id, and whether it is one of a run's many calls."""

    __slots__ = ("key", "member", "run")

    def __init__(self, key: str = "", run: str = "", *, member: bool = False) -> None:
        self.key = key
        self.run = run
        self.member = member


class Slots:
    """``limit`` calls at a time, of which a combination's calls take ``for_members`` at most.

    ``acquire`` before a call, ``release`` after it, with the same caller.
    """

    def __init__(self, limit: int, for_members: int) -> None:
        self._free = limit
        self._free_for_members = for_members
        self._alone = _Line()
        self._members = _Line()
        self._alone_in_a_row = 0

    def locked(self, caller: Caller) -> bool:
        """Would ``acquire`` wait?"""
        if caller.member:
            return not (self._free and self._free_for_members) or bool(self._members or self._alone)
        return not self._free or bool(self._alone)

    async def acquire(self, caller: Caller) -> None:
        """Wait for a slot. Cancelled, it leaves the queue and holds nothing."""
        if not self.locked(caller):
            self._take(caller)
            return
        line = self._members if caller.member else self._alone
        turn = line.join(caller)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # it was given in the same moment
                self.release(caller)
            else:
                line.leave(caller, turn)
                self._let_in()  # who came meanwhile stands behind this one, perhaps for nothing
            raise

    def release(self, caller: Caller) -> None:
        """Give a slot back; whose turn it is has it at once."""
        self._free += 1
        if caller.member:
            self._free_for_members += 1
        self._let_in()

    def _take(self, caller: Caller) -> None:
        self._free -= 1
        if caller.member:
            self._free_for_members -= 1

    def _let_in(self) -> None:
        while self._free:
            member = bool(self._members) and self._free_for_members > 0
            if self._alone and not (member and self._alone_in_a_row >= EACH - 1):
                line = self._alone
                self._alone_in_a_row += 1
            elif member:
                line = self._members
                self._alone_in_a_row = 0
            else:
                return
            caller, turn = line.next()
            if not turn.done():  # else it is being cancelled, and waits no longer
                self._take(caller)
                turn.set_result(None)


class _Line:
    """Those who wait: the keys in turn, of each its runs in turn, of each its calls in order."""

    def __init__(self) -> None:
        self._keys: OrderedDict[str, OrderedDict[str, deque[tuple[Caller, asyncio.Future[None]]]]] = (
            OrderedDict()
        )

    def __bool__(self) -> bool:
        return bool(self._keys)

    def join(self, caller: Caller) -> asyncio.Future[None]:
        """What is done when it is the caller's turn."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        runs = self._keys.setdefault(caller.key, OrderedDict())
        runs.setdefault(caller.run, deque()).append((caller, turn))
        return turn

    def leave(self, caller: Caller, turn: asyncio.Future[None]) -> None:
        """The caller waits no longer, if it still does."""
        runs = self._keys.get(caller.key, OrderedDict())
        calls = runs.get(caller.run, deque())
        if (caller, turn) not in calls:
            return
        calls.remove((caller, turn))
        if not calls:
            del runs[caller.run]
        if not runs:
            del self._keys[caller.key]

    def next(self) -> tuple[Caller, asyncio.Future[None]]:
        """Who is next. There must be one."""
        key, runs = self._keys.popitem(last=False)
        run, calls = runs.popitem(last=False)
        found = calls.popleft()
        if calls:
            runs[run] = calls  # behind the key's other runs
        if runs:
            self._keys[key] = runs  # behind the other keys
        return found
