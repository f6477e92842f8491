"""The images of one run, which several calls send: each is fetched, and made to fit the same bounds, once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from server.errors import InvalidRequest
from server.upstreams.image_fitting import Bounds, Fitted

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Once(Generic[K, V]):
    """Things that are made once for all who want them.

    Whoever comes first makes it, and the others wait. If the maker is cancelled, or fails for a reason of its
    own, the next one makes it; what is wrong with the thing itself (``InvalidRequest``) is wrong for all.
    """

    def __init__(self) -> None:
        self._made: dict[K, V] = {}
        self._refused: dict[K, InvalidRequest] = {}
        self._making: dict[K, asyncio.Event] = {}

    async def get(self, key: K, make: Callable[[], Awaitable[V]]) -> V:
        """What is made for ``key``. Raises what ``make`` raises."""
        while (under_way := self._making.get(key)) is not None:
            await under_way.wait()
        if key in self._made:
            return self._made[key]
        if key in self._refused:
            raise self._refused[key]
        over = self._making[key] = asyncio.Event()
        try:
            made = self._made[key] = await make()
        except InvalidRequest as error:
            self._refused[key] = error
            raise
        finally:
            del self._making[key]
            over.set()
        return made


class RunImages:
    """What the calls of one run share. It is kept as long as the run."""

    def __init__(self) -> None:
        self.fetched: Once[str, bytes] = Once()
        self.fitted: Once[tuple[str, Bounds], Fitted] = Once()
