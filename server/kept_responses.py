"""Responses that were answered, kept for their clients to go on from: in memory, bounded in time and size."""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

from server.errors import Conflict, InvalidRequest, NotFound
from server.kept_stream import KeptStream
from server.settings import Responses as ResponsesSettings

MAX_RESPONSES = 100_000


class Kept(msgspec.Struct, frozen=True):
    """One response: the ``key`` that asked, its body, and all items up to it, the oldest first.

    The items of its own request are those from ``begin`` on, up to what it said, from ``end`` on.
    ``kept_stream`` is that of one which is carried out in the background, ``ended`` false while that is under
    way. ``kept_at`` and ``size`` (bytes) are set when it is kept.
    """

    key: str
    body: bytes
    items: list[bytes]
    begin: int
    end: int
    kept_stream: KeptStream | None = None
    ended: bool = True
    kept_at: float = 0
    size: int = 0


class KeptResponses:
    """All of them, by id. ``monotonic`` gives seconds that never fall."""

    def __init__(self, settings: ResponsesSettings, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._monotonic = monotonic
        self._kept: dict[str, Kept] = {}  # oldest first
        self._size = 0

    def __len__(self) -> int:
        return len(self._kept)

    def __contains__(self, id: str) -> bool:
        return id in self._kept

    def keep(self, id: str, response: Kept) -> None:
        """Keep a response, in place of one that has its id; the oldest go where there is no room."""
        self._drop(id)
        size = len(response.body) + sum(map(len, response.items))
        if response.kept_stream is not None and response.ended:
            size += response.kept_stream.size
        self._kept[id] = msgspec.structs.replace(response, kept_at=self._monotonic(), size=size)
        self._size += size
        self._sweep()

    def get(self, id: str, key: str) -> Kept:
        """The response of this id. Raises ``NotFound``, also for that of somebody else."""
        self._sweep()
        found = self._kept.get(id)
        if found is None or found.key != key:
            raise NotFound("There is no response of this id, or no longer.", code="response_not_found")
        return found

    def delete(self, id: str, key: str) -> None:
        """Forget a response. Raises ``NotFound``."""
        self.get(id, key)
        self._drop(id)

    def _sweep(self) -> None:
        horizon = self._monotonic() - self._settings.keep_s
        while self._kept:
            id, oldest = next(iter(self._kept.items()))
            full = self._size > self._settings.max_bytes or len(self._kept) > MAX_RESPONSES
            if oldest.kept_at > horizon and not full:
                return
            self._drop(id)

    def _drop(self, id: str) -> None:
        gone = self._kept.pop(id, None)
        if gone is not None:
            self._size -= gone.size


class Memory:
    """What is kept for one key; see ``responses_wire.Recall``."""

    def __init__(self, kept: KeptResponses, key: str) -> None:
        self._kept = kept
        self._key = key

    def items(self, response_id: str) -> list[bytes]:
        """All items up to a response and in it."""
        try:
            before = self._kept.get(response_id, self._key)
            if before.ended:
                return before.items
        except NotFound:
            raise InvalidRequest(
                "previous_response_id names no response that is kept; send the whole conversation as input.",
                param="previous_response_id",
                code="previous_response_not_found",
            ) from None
        raise Conflict(
            "The previous response is still under way; wait for its end.", param="previous_response_id"
        )

    def item(self, item_id: str, param: str) -> bytes:
        """An item of a response, whose id stands within the item's."""
        _, _, rest = item_id.partition("_")
        stem, _, number = rest.rpartition("_")
        try:
            response = self._kept.get(f"resp_{stem}", self._key)
            return response.items[response.end :][int(number)]
        except (NotFound, ValueError, IndexError):
            raise InvalidRequest(
                f"{param} refers to an item that is not kept; send the item itself.",
                param=param,
                code="previous_response_not_found",
            ) from None
