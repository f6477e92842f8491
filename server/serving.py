"""The process around the application: listen, say so, serve until a signal, drain, end.

In order: the addresses are bound, so that a port in use is told before anything was started; the application
starts up; the sockets listen; ``on_ready`` is called. At SIGTERM or SIGINT:

0. with ``notice_s``, ``on_notice`` is called (readiness turns 503) and all else goes on so long, for load
   balancers to look elsewhere;
1. nobody new is let in; ``on_drain`` is called (readiness turns 503, new work is refused); idle connections
   are closed;
2. the application's ``on_shutdown`` runs, which may wait for the work that websockets tell of, and closes
   them; meanwhile and after, requests under way have until ``drain_s`` to finish, with ``Connection: close``;
3. for what is left, ``on_drain_timeout`` is awaited, so that streams can send their last event;
4. what still runs is cancelled and unwinds; then the application's cleanup contexts run.

A second signal goes to the end of this at once; a third has the system's own meaning.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from server.serving_protocol import SERVER_NAME, Connections
from server.serving_site import CannotListen, Site, bind, cannot_listen, url

__all__ = ["CannotListen", "ServeOptions", "run", "serve", "served"]

log = logging.getLogger(__name__)

T = TypeVar("T")

LINGERING_S = 2.0
"""How long an unread body is still taken after its answer, so that the answer is not lost to a reset."""

LAST_WORDS_S = 2.0
"""How long streams have to send their last event when the drain time is over."""

UNWIND_S = 2.0
"""How long cancelled handlers have to unwind before the application is cleaned up under them."""

CUT_UNWIND_S, CUT_CLEANUP_S = 0.5, 1.0
"""How long the unwinding and the cleanup may still take after a second signal."""


class ServeOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How to serve. Times in seconds, sizes in bytes.

    ``header_timeout_s`` (0: none) bounds the sending of each head; ``keepalive_s`` an idle connection.
    ``on_notice`` and ``on_drain`` must not block; ``on_drain_timeout`` is cut short after two seconds.
    """

    host: str = "127.0.0.1"
    port: int = 18888
    header_timeout_s: float = 10.0
    keepalive_s: float = 75.0
    notice_s: float = 0.0
    drain_s: float = 30.0
    max_line_size: int = 16 * 1024  # the address in the first line
    max_field_size: int = 16 * 1024  # one header, name and value
    max_headers: int = 128
    on_notice: Callable[[], None] | None = None
    on_drain: Callable[[], None] | None = None
    on_drain_timeout: Callable[[], Awaitable[None]] | None = None


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run ``main`` to its end on a new event loop: uvloop's where it is installed, else asyncio's."""
    try:
        import uvloop
    except ImportError:
        factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    else:
        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main)


async def serve(
    app: web.Application,
    options: ServeOptions,
    *,
    on_ready: Callable[[str], None],
    reload: Callable[[], Awaitable[None]] | None = None,
) -> None:
    """Serve ``app``, which is not started yet, until a signal ends it; the module says in which order.

    ``on_ready`` gets the address (``http://127.0.0.1:18888``) once connections are accepted. SIGHUP awaits
    ``reload``, one at a time; without it SIGHUP drains like SIGTERM. Cancelled, this ends at once, cleanly.
    Runs in the main thread. Raises CannotListen, and whatever the application's start raises.
    """
    connections = Connections()
    app.on_response_prepare.append(_last_touches(connections))
    signals = _Signals()
    sockets = await bind(options.host, options.port)
    runner = _Runner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
    try:
        with signals.installed(reloads=reload is not None):
            try:
                async with signals.limit(None, signals=1):
                    await runner.setup()
                    connections.others_prepare = len(app.on_response_prepare) > 1
                    await _listen(runner, sockets, connections, options)
                if not signals.asked.is_set():
                    on_ready(url(sockets[0]))
                    await _until_asked(signals, reload)
                    await _drain(runner, connections, options, signals)
            finally:
                await _end(runner, connections, signals)
    finally:
        for sock in sockets:
            sock.close()


@asynccontextmanager
async def served(app: web.Application, options: ServeOptions) -> AsyncIterator[str]:
    """Serve ``app`` as ``serve`` does, for as long as the block lasts, which gets its address.

    It heeds no signal and does not drain: what still runs at the end of the block is cancelled. Several may
    be served at once. Raises CannotListen, and whatever the application's start raises.
    """
    connections = Connections()
    app.on_response_prepare.append(_last_touches(connections))
    sockets = await bind(options.host, options.port)
    runner = _Runner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
    try:
        try:
            await runner.setup()
            await _listen(runner, sockets, connections, options)
            yield url(sockets[0])
        finally:
            await _end(runner, connections, _Signals())
    finally:
        for sock in sockets:
            sock.close()


async def _listen(
    runner: web.AppRunner, sockets: list[socket.socket], connections: Connections, options: ServeOptions
) -> None:
    connection_options = {
        "header_timeout_s": options.header_timeout_s,
        "keepalive_timeout": options.keepalive_s,
        "max_line_size": options.max_line_size,
        "max_field_size": options.max_field_size,
        "max_headers": options.max_headers,
        "lingering_time": LINGERING_S,
        "access_log": None,
        "auto_decompress": False,  # bodies come as they were sent; who reads one inflates it, and checks
    }
    for sock in sockets:
        try:
            await Site(runner, sock, connections, connection_options).start()
        except OSError as error:
            # Two servers may bind the same address; only one may listen.
            raise cannot_listen(options.host, options.port, error) from error


async def _until_asked(signals: _Signals, reload: Callable[[], Awaitable[None]] | None) -> None:
    async with asyncio.TaskGroup() as group:
        reloads = group.create_task(_reload_when_told(signals, reload), name="reload") if reload else None
        await signals.asked.wait()
        if reloads:
            reloads.cancel()


async def _reload_when_told(signals: _Signals, reload: Callable[[], Awaitable[None]]) -> None:
    while True:
        await signals.hangup.wait()
        signals.hangup.clear()
        try:
            await reload()
        except Exception:
            log.exception("the reload failed; the server goes on as it was")


async def _drain(runner: _Runner, connections: Connections, options: ServeOptions, signals: _Signals) -> None:
    """Steps 0 to 3: let what runs finish, and tell what cannot."""
    if options.notice_s:
        if options.on_notice is not None:
            options.on_notice()
        async with signals.limit(options.notice_s):
            await asyncio.Event().wait()
    for site in runner.sites:
        await site.stop()
    if options.on_drain is not None:
        options.on_drain()
    connections.drain()
    async with signals.limit(options.drain_s):
        await runner.shutdown()
        await connections.wait_closed()
    if connections and options.on_drain_timeout is not None and not signals.at_once:
        async with signals.limit(LAST_WORDS_S):
            await options.on_drain_timeout()
            await connections.wait_closed()


async def _end(runner: _Runner, connections: Connections, signals: _Signals) -> None:
    """Step 4. Everything is released when this returns, whatever state the server was in."""
    connections.drain()
    connections.cancel()
    try:
        async with signals.limit(UNWIND_S, grace_s=CUT_UNWIND_S):
            await connections.wait_closed()
    finally:
        # Stops the sites, if that has not been done; tells on_shutdown, if that has not; then on_cleanup.
        async with signals.limit(None, grace_s=CUT_CLEANUP_S):
            await runner.cleanup()


def _last_touches(
    connections: Connections,
) -> Callable[[web.Request, web.StreamResponse], Coroutine[Any, Any, None]]:
    async def last_touches(_request: web.Request, response: web.StreamResponse) -> None:
        response.headers["Server"] = SERVER_NAME
        if connections.draining and response.status != 101:
            response.force_close()
            response.headers["Connection"] = "close"

    return last_touches


class _Runner(web.AppRunner):
    """An AppRunner that can tell the application of its end before ``cleanup`` does, and only once."""

    _told = False

    async def shutdown(self) -> None:
        if self._told:
            return
        self._told = True
        try:
            await super().shutdown()
        except Exception:
            # Requests under way keep their time, and the cleanup still comes.
            log.exception("on_shutdown failed")


class _Signals:
    """What the process was told: to drain, to end at once, to reload."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.hangup = asyncio.Event()
        self._count = 0
        self._limit: tuple[asyncio.Timeout, int, float] | None = None

    @property
    def at_once(self) -> bool:
        """Whether a second signal has come."""
        return self._count >= 2

    @contextmanager
    def installed(self, *, reloads: bool) -> Iterator[None]:
        """Take SIGTERM, SIGINT and SIGHUP while inside."""
        loop = asyncio.get_running_loop()
        ending = [signal.SIGTERM, signal.SIGINT]
        if reloads:
            loop.add_signal_handler(signal.SIGHUP, self.hangup.set)
        else:
            ending.append(signal.SIGHUP)
        for number in ending:
            loop.add_signal_handler(number, self._end)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                loop.remove_signal_handler(number)

    def _end(self) -> None:
        self._count += 1
        self.asked.set()
        if self._count == 2:
            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)  # so that a third one kills
        if self._limit is not None:
            timeout, signals, grace_s = self._limit
            if self._count >= signals and not timeout.expired():
                timeout.reschedule(asyncio.get_running_loop().time() + grace_s)

    @asynccontextmanager
    async def limit(
        self, seconds: float | None, *, signals: int = 2, grace_s: float = 0
    ) -> AsyncIterator[None]:
        """Cut what is inside short after ``seconds`` (None: never), quietly.

        It is also cut ``grace_s`` after the ``signals``-th signal, be that before or while it runs.
        """
        if self._count >= signals:
            seconds = grace_s
        timeout = asyncio.timeout(seconds)
        try:
            async with timeout:
                self._limit = (timeout, signals, grace_s)
                yield
        except TimeoutError:
            if not timeout.expired():
                raise
        finally:
            self._limit = None
