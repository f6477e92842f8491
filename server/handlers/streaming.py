"""A server-sent event response whose head waits for the first delta, and which never goes silent.

The head leaves with the first piece of the answer, so an early failure is still a real status; or at the
commit time, with a comment, since clients give up without a head. Silence is filled with comments. A reader
that takes nothing for too long is cut off. One timer serves all three.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from types import TracebackType

from aiohttp import HttpVersion11, web

from server.app_keys import RECORD, SNAPSHOT, TASKS
from server.errors import ServerError
from server.middlewares import send_head
from server.sse import CONTENT_TYPE, KEEP_ALIVE


class EventStream:
    """One ``text/event-stream`` answer. Use as an async context manager; ``response`` is what to return.

    ``started`` tells whether the head has left. Writing raises ``ConnectionResetError`` when the client has
    gone. ``waited_s`` is what of the time up to now was spent waiting for upstreams; it is taken off the
    overhead that the head tells. ``after_commit`` is called when the head has left without any answer.
    ``heartbeat`` is what fills a silence, in whole events.
    """

    def __init__(self, request: web.Request, *, commit_after_s: float) -> None:
        settings = request[SNAPSHOT].settings.server
        self._request = request
        self._loop = asyncio.get_running_loop()
        self._commit_at = request[RECORD].started + commit_after_s
        self._heartbeat_s = settings.heartbeat_s
        self._write_timeout_s = settings.write_timeout_s
        self._silence_s = min(self._heartbeat_s, self._write_timeout_s)  # the timer comes at least this often
        self._last_write = self._loop.time()
        self._writing_since: float | None = None
        self._chunked = request.version >= HttpVersion11
        self._committing: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._ended = False
        self.waited_s = 0.0
        self.heartbeat = KEEP_ALIVE
        self.after_commit: Callable[[], None] | None = None
        self.response = web.StreamResponse(
            headers={
                "Content-Type": CONTENT_TYPE,
                "Cache-Control": "no-cache",
                "X-Accel-Buffering": "no",
            }
        )
        if not self._chunked:
            self.response.force_close()  # only the close can tell such a client where the body ends

    @property
    def started(self) -> bool:
        """Has the head left, or is it just leaving?"""
        return self.response.prepared or self._committing is not None

    async def __aenter__(self) -> EventStream:
        self._set_timer()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended = True
        if self._timer is not None:
            self._timer.cancel()
        if self._committing is not None:
            if not self._committing.done():
                # Only then: a turn of the loop after the end is one in which a client that has read all of it
                # closes, and is taken for one that left.
                self._committing.cancel()
                await asyncio.wait((self._committing,))
            if not self._committing.cancelled():
                self._committing.exception()  # the client had gone; who wrote after it has been told

    async def write(self, data: bytes) -> None:
        """Send whole events; waits while the client's socket is full."""
        if self._committing is not None:
            await asyncio.shield(self._committing)
        if not self.response.prepared:
            await self._prepare()
        now = self._loop.time()
        self._last_write = self._writing_since = now
        await self.response.write(data)
        self._writing_since = None

    def commit(self) -> None:
        """Let the head leave now, with a comment: there will be something to say."""
        if not self.started and not self._ended:
            self._committing = self._request.app[TASKS].create(
                self._commit(), name="commit a stream", awaited=True
            )

    async def end(self) -> None:
        """End the body in good order."""
        self._ended = True
        await self.response.write_eof()

    async def fail(self, error: ServerError, told: bytes) -> None:
        """Tell of a failure after the head has left: ``told``, in whole events, and the end of the body."""
        self._request[RECORD].code = error.code
        await self.write(told)
        await self.end()

    async def _prepare(self) -> None:
        overhead_s = max(0.0, time.monotonic() - self._request[RECORD].started - self.waited_s)
        self._request[RECORD].overhead_s = overhead_s
        self.response.headers["X-Antiphon-Overhead-Ms"] = f"{overhead_s * 1000:.2f}"
        await send_head(self._request, self.response)

    async def _commit(self) -> None:
        """Send the head and a comment: no delta has come, and the client must not give up."""
        self.waited_s = time.monotonic() - self._request[RECORD].started  # all of it was waiting
        await self._prepare()
        self._last_write = self._loop.time()
        await self.response.write(KEEP_ALIVE)
        if self.after_commit is not None:
            self.after_commit()

    def _set_timer(self) -> None:
        if not self.started:
            # The first write may come at any moment and sets no timer: look for the silence after it too.
            when = min(self._commit_at, self._loop.time() + self._silence_s)
        elif self._writing_since is not None:
            when = self._writing_since + self._write_timeout_s
        else:
            when = self._last_write + self._silence_s
        self._timer = self._loop.call_at(when, self._due)

    def _due(self) -> None:
        """The timer's moment: commit, cut off, keep alive, or nothing after all."""
        now = self._loop.time()
        transport = self._request.transport
        if self._ended or transport is None:
            return
        if not self.started:
            if now >= self._commit_at:
                self.commit()
        elif self._writing_since is not None:
            if now >= self._writing_since + self._write_timeout_s:
                transport.abort()  # aiohttp then cancels the handler
                return
        elif now >= self._last_write + self._heartbeat_s:
            # Between two events by nature: each leaves in one call. Not counted as unread: it is tiny.
            beat = self.heartbeat
            transport.write(b"%x\r\n%b\r\n" % (len(beat), beat) if self._chunked else beat)
            self._last_write = now
        self._set_timer()
