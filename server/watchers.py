"""Who watches at the moment: counted by key, and sent away when the server ends."""

from __future__ import annotations

from collections import Counter
from typing import Protocol

from server.errors import RateLimited


class Watcher(Protocol):
    """One connection of the status channel. After ``go_away``, which does not wait, it ends by itself.

    What there is to tell it by then it is still told.
    """

    def go_away(self) -> None: ...


class Watchers:
    """The watchers of this process. Whoever adds one removes it."""

    def __init__(self) -> None:
        self._by_watcher: dict[Watcher, str] = {}
        self._by_key: Counter[str] = Counter()
        self._closing = False

    def __len__(self) -> int:
        return len(self._by_watcher)

    def add(self, watcher: Watcher, key: str, limit: int) -> None:
        """Count a watcher of ``key``. Raises ``RateLimited`` if there are ``limit`` already."""
        if self._by_key[key] >= limit:
            raise RateLimited(
                f"This key has {limit} open connections to the status channel; close one first.",
                code="too_many_connections",
                retry_after_s=5,
            )
        self._by_watcher[watcher] = key
        self._by_key[key] += 1
        if self._closing:  # it was connected already, and only now said who it is
            watcher.go_away()

    def remove(self, watcher: Watcher) -> None:
        """Forget a watcher; nothing happens if it was not there."""
        key = self._by_watcher.pop(watcher, None)
        if key is not None:
            self._by_key[key] -= 1
            if not self._by_key[key]:
                del self._by_key[key]

    def send_away(self) -> None:
        """Tell every watcher to go, and those who still come."""
        self._closing = True
        for watcher in list(self._by_watcher):
            watcher.go_away()
